"""Wakes the source as soon as the controller commits, without asking it anything (inotify(7)).

The files of Samba's database lie in `sam.ldb.d` beside the folder of the private socket. tdb ends each transaction
with utime(2), because what it writes through its memory map changes no time stamp (lib/tdb/common/transaction.c); LMDB
writes with pwrite(2). Either is an event of the folder. LDAP's notification control does not serve here: Samba's LDAP
server tells of what another of its processes committed only every five seconds. Nothing depends on these events but how
soon a change is read: they say only that it is worth asking now, and the source asks every `poll_ms` anyway.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

_IN_MODIFY, _IN_ATTRIB = 0x2, 0x4
_READ_BYTES = 65536
_APART_SECONDS = 0.01
"""They wake no more often than this: logons are commits too, of which a controller may make hundreds a second."""
_STOP_SECONDS = 0.5
"""How soon `stop` is seen while nothing is committed."""


def database_folder(ldapi_path: Path) -> Path:
    """The folder of the database files, from the path of the private LDAP socket."""
    return ldapi_path.parent.parent / "sam.ldb.d"


class Commits:
    """A context with a watch on a folder; where the system gives none, `wait` is only the wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events = -1
        self._due = 0.0

    def __enter__(self) -> Self:
        if sys.platform != "linux":
            return self
        libc = ctypes.CDLL(None)
        self._events = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        folder = os.fsencode(self._folder)
        if self._events < 0 or libc.inotify_add_watch(self._events, folder, _IN_MODIFY | _IN_ATTRIB) < 0:
            self._close()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._events >= 0:
            os.close(self._events)
        self._events = -1

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Until something was committed since the last wait, but no longer than so many seconds, or until `stop`."""
        if self._events < 0:
            stop.wait(seconds)
            return
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if select.select([self._events], [], [], min(left, _STOP_SECONDS))[0]:
                stop.wait(max(0.0, min(until, self._due) - time.monotonic()))
                self._due = time.monotonic() + _APART_SECONDS
                with suppress(BlockingIOError):
                    os.read(self._events, _READ_BYTES)
                return
