"""A connection to the controller that others keep busy is replaced, and only by one to the same running controller."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from passrelay_producer.sources import samba
from passrelay_producer.sources.samba import _Watch
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_producer.supplemental import OpenPgpKeyFile
from passrelay_schemas.errors import UnavailableError


class Listener:
    """A private socket that accepts and says nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accepted: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def accept(self) -> socket.socket:
        taken, _ = self._listening.accept()
        taken.settimeout(10)
        self.accepted.append(taken)
        return taken

    def close(self) -> None:
        for one in (*self.accepted, self._listening):
            one.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "ldapi")
    yield made
    made.close()


@pytest.fixture
def directory(listener: Listener) -> Iterator[SambaDirectory]:
    opened = SambaDirectory(listener.path)
    opened._open()
    listener.accept()
    yield opened
    opened.close()


def test_the_new_connection_stands_before_the_old_one_ends(listener: Listener, directory: SambaDirectory) -> None:
    directory.crowded = True
    directory.move()
    listener.accept()
    assert not directory.crowded
    (old, new) = listener.accepted
    while old.recv(4096):  # an unbind, then the end
        pass
    new.settimeout(0)
    with pytest.raises(BlockingIOError):
        new.recv(1)


def test_a_controller_that_was_stopped_in_between_has_to_be_looked_at_anew(
    listener: Listener, directory: SambaDirectory
) -> None:
    listener.accepted[0].close()
    with pytest.raises(UnavailableError, match="closed by the server"):
        directory.move()


class Connection:
    """Counts its moves."""

    def __init__(self, *, crowded: bool) -> None:
        self.crowded = crowded
        self.moves = 0

    def move(self) -> None:
        self.moves += 1


def test_only_who_waits_is_moved_and_not_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [100.0]
    monkeypatch.setattr("passrelay_producer.sources.samba.time.monotonic", lambda: clock[0])
    watch = _Watch(OpenPgpKeyFile(tmp_path / "key"))
    busy, free = Connection(crowded=True), Connection(crowded=False)
    for _ in range(3):
        watch.keep_apart(cast("Any", busy), cast("Any", free))
    assert (busy.moves, free.moves) == (1, 0)
    clock[0] += samba.MOVE_SECONDS
    watch.keep_apart(cast("Any", busy), cast("Any", free))
    assert (busy.moves, free.moves) == (2, 0)


def test_nobody_moves_while_nobody_waits(tmp_path: Path) -> None:
    watch = _Watch(OpenPgpKeyFile(tmp_path / "key"))
    free, busy = Connection(crowded=False), Connection(crowded=True)
    watch.keep_apart(cast("Any", free))
    watch.keep_apart(cast("Any", busy))
    assert (free.moves, busy.moves) == (0, 1)
