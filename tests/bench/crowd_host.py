"""One process that plays many producers: a real service each, with its own spool, keys and connection to the broker.

    python -m tests.bench.crowd_host < one JSON line, then "go", then the end of input

Only the source is not real: from "go" on it gives its events, a page at a time. Says "connected" when every one is.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from passrelay_producer.service import Service
from passrelay_producer.sources import About, Memory, Page, PendingReason, Result
from passrelay_producer.spool import Spool
from passrelay_schemas import filetime, logs
from passrelay_schemas.logs import Log
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.settings_file import load
from tests.lab.enrolment import change
from tests.lab.folder import canary_password
from tests.lab.process import wait_for

_PAGE_EVENTS = 10
"""A busy controller's page."""


class Given:
    """A source whose controller has so many changes, of as many users, as soon as `go` is set."""

    def __init__(self, count: int, go: threading.Event) -> None:
        self._count = count
        self._go = go

    def initialise(self, memory: Memory, *, everything: bool) -> Page:
        """Nothing to choose."""
        return Page()

    def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
        """All of it, then silence until `stop`."""
        while not (self._go.wait(0.2) or stop.is_set()):
            pass
        numbers = iter(range(self._count))
        while (part := list(itertools.islice(numbers, _PAGE_EVENTS))) and not stop.is_set():
            events = [
                change(f"user{n}", canary_password(), guid=uuid4(), kvno=1, changed_at=filetime.now()) for n in part
            ]
            yield Page(events=events, tags=part)
        stop.wait()

    def recapture(self, memory: Memory, sam_account_name: str | None) -> Iterator[Page]:
        """Nobody asks."""
        yield from ()

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        """Nothing is left to do."""

    def about(self) -> About:
        """Like standard input."""
        return About("stdin")

    def fault(self) -> str:
        """None."""
        return ""

    def waiting(self) -> Mapping[PendingReason, int]:
        """Nothing."""
        return {}


def main() -> None:
    """Play until the end of input."""
    order = json.loads(sys.stdin.readline())
    logs.configure("warning")
    go = threading.Event()
    with ExitStack() as stack:
        services = []
        for path in order["configs"]:
            settings = load(ProducerSettings, Path(path))
            spool = stack.enter_context(Spool(settings.spool))
            services.append(Service(settings, spool, Given(order["events"], go), Log("producer")))
        threads = [threading.Thread(target=service.serve) for service in services]
        for thread in threads:
            thread.start()
        wait_for(
            lambda: all(service._publisher.connected for service in services),
            what="every producer connected",
            timeout_seconds=600,
            interval_seconds=0.1,
        )
        print("connected", flush=True)
        if sys.stdin.readline():
            go.set()
            sys.stdin.readline()
        for service in services:
            service.stop()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
