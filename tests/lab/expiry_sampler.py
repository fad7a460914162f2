"""Who can be seen with an expired password, at any moment, at any server: read again and again without a pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from ldap3 import LEVEL

from tests.lab.directory import Directory
from tests.lab.directory_tree import demand

_TIMES = ("krbPasswordExpiration", "krbLastPwdChange")


@dataclass
class Sighting:
    """One user who was seen expired at one server, from one look to the next without a gap."""

    user: str
    server: str
    first: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """From the first look that showed it to the last one."""
        return self.last - self.first


class ExpirySampler:
    """A context in which one thread for each server reads the times of all users."""

    def __init__(self, servers: Sequence[Directory]) -> None:
        self.looks = {server.ldaps_url: 0 for server in servers}
        self._seen: list[Sighting] = []
        self._lasting: dict[tuple[str, str], Sighting] = {}
        self._faults: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(server,), daemon=True) for server in servers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def expired(self) -> list[Sighting]:
        """Whoever was seen expired, each time. What ended a thread early is raised here: it has seen nothing since."""
        for fault in self._faults:
            raise fault
        return list(self._seen)

    def _watch(self, server: Directory) -> None:
        try:
            with server.manager() as manager:
                while not self._stop.is_set():
                    manager.search(server.search_base, "(uid=*)", LEVEL, attributes=["uid", *_TIMES])
                    demand(manager, f"read every user of {server.ldaps_url}")
                    for item in manager.response or []:
                        self._look(server.ldaps_url, item["raw_attributes"])
                    self.looks[server.ldaps_url] += 1
        except BaseException as error:  # noqa: BLE001 - told to whoever asks for the result
            self._faults.append(error)

    def _look(self, server: str, found: dict[str, list[bytes]]) -> None:
        key = server, found["uid"][0].decode()
        expiration, last_change = (_moment(found.get(name)) for name in _TIMES)
        if expiration is None or (expiration > datetime.now(UTC) and expiration != last_change):
            self._lasting.pop(key, None)
            return
        if key not in self._lasting:
            self._lasting[key] = Sighting(key[1], server)
            self._seen.append(self._lasting[key])
        self._lasting[key].last = time.monotonic()


def _moment(values: list[bytes] | None) -> datetime | None:
    return datetime.strptime(values[0].decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC) if values else None
