"""When passwords arrive in a directory: it is told of every modify by the server itself, as soon as that is done."""

from __future__ import annotations

import ssl
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

from ldap3 import ASYNC_STREAM, SUBTREE, Connection, Server

from tests.lab.directory import Directory
from tests.lab.directory_connection import PinnedTls, close
from tests.lab.directory_template import ROOT_DN
from tests.lab.process import LabError

_PATIENCE_SECONDS = 60


class Arrivals:
    """A context with one persistent search (draft-ietf-ldapext-psearch), which costs the server next to nothing.

    Times are those of `time.time`, when the notice of a user's modify was read here.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._changed = threading.Condition()
        self._times: dict[str, list[float]] = defaultdict(list)
        self._last = 0.0
        self._connection: Any = None

    def __enter__(self) -> Self:
        directory = self._directory
        tls = PinnedTls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(directory.ca_file))
        # Without any timeout, which would end the listening thread after so long a silence.
        server = Server("127.0.0.1", port=directory.listening.ldaps, use_ssl=True, tls=tls, get_info="NO_INFO")
        password = directory._root_password
        self._connection = Connection(server, ROOT_DN, password, client_strategy=ASYNC_STREAM, check_names=False)
        self._connection.bind()
        self._connection.extend.standard.persistent_search(
            directory.search_base,
            "(objectClass=person)",
            SUBTREE,
            attributes=["1.1"],
            show_additions=False,
            show_deletions=False,
            show_dn_modifications=False,
            streaming=False,
            callback=self._seen,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self._connection)

    def _seen(self, message: Any) -> None:
        now = time.time()
        if message.get("type") == "searchResEntry":
            name = str(message["dn"]).partition(",")[0].partition("=")[2]
            with self._changed:
                self._times[name].append(now)
                self._last = now
                self._changed.notify_all()

    @property
    def silence(self) -> float:
        """Seconds since the last modify of anybody."""
        return time.time() - self._last

    def count(self, user: str) -> int:
        """How many modifies of a user were seen so far."""
        with self._changed:
            return len(self._times[user])

    def after(self, user: str, count: int) -> float:
        """The time of the first modify of a user after so many; LabError when it does not come within a minute."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._times[user]) > count, _PATIENCE_SECONDS):
                raise LabError(f"{user}: no modify in the directory within {_PATIENCE_SECONDS} s")
            return self._times[user][count]
