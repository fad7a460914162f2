"""Spools with a backlog, filled by the product's own spool, and what takes it off the broker again without a look."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_producer.sources import Page
from passrelay_producer.spool import Spool
from passrelay_schemas import filetime, topology
from passrelay_schemas.envelope import ProtectedHeader, SealedEvent
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.sealing import seal_event
from passrelay_schemas.source_settings import SpoolSettings
from tests.lab.broker import Broker
from tests.lab.enrolment import DOMAIN, Sender, change
from tests.lab.folder import canary_password
from tests.lab.process import LabError

MAX_BYTES = 20_000_000_000
"""[spool] max_bytes: its default of 2 GB holds half a million events."""
_PAGE_EVENTS = 1000


def fill(path: Path, events: Iterable[SealedEvent]) -> None:
    """A new spool with these events, committed a page at a time; what was there before is removed."""
    shutil.rmtree(path.parent, ignore_errors=True)
    waiting = iter(events)
    with Spool(SpoolSettings(path=path, max_bytes=MAX_BYTES)) as spool:
        while part := list(itertools.islice(waiting, _PAGE_EVENTS)):
            spool.commit(Page(), part)


def spool_bytes(path: Path) -> int:
    """What the spool takes of its disk, with its write-ahead log."""
    return sum(file.stat().st_size for file in path.parent.iterdir())


def sealed(sender: Sender, users: Iterable[tuple[str, UUID, int]], kvno: int) -> Iterator[SealedEvent]:
    """A change of each user (name, GUID, RID), sealed."""
    for name, guid, rid in users:
        event = change(name, canary_password(), guid=guid, kvno=kvno, changed_at=filetime.now(), rid=rid)
        yield seal_event(event, producer=sender.name, recipient=sender.recipient)


def unopened(sender: Sender, count: int) -> Iterator[SealedEvent]:
    """Events that nobody will open: each has its own header and id, all share the sealed bytes of one of them.

    For the spool, the producer and the broker they are like any other; sealing a million takes minutes.
    """
    (model,) = sealed(sender, [("nobody", UUID(int=1), 1105)], 1)
    suite, key_id = sender.recipient.algorithm, sender.recipient.key_id
    for _ in range(count):
        header = ProtectedHeader(
            suite=suite, recipient_key_id=key_id, producer=sender.name, domain=DOMAIN, event_id=new_event_id()
        )
        yield SealedEvent(header.encode(), model.sealed)


class Discard:
    """A context with a bare consumer that takes everything off the work queue and keeps only when it came."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._changed = threading.Condition()
        self.moments = array("d")
        """`time.perf_counter` at each arrival."""
        self._ready = threading.Event()
        self._failure = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._connection = BlockingConnection(self._broker.parameters())
        self._channel = self._connection.channel()
        self._channel.basic_consume(topology.EVENTS, self._taken, auto_ack=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        try:
            self._channel.start_consuming()
        except Exception as error:  # noqa: BLE001 - whoever waits says it
            self._failure = type(error).__name__
            with self._changed:
                self._changed.notify_all()

    def _taken(self, *_: Any) -> None:
        self.moments.append(time.perf_counter())
        if len(self.moments) % 100 == 0:
            with self._changed:
                self._changed.notify_all()

    def wait(self, count: int, *, timeout_seconds: float = 3600) -> None:
        """Until so many have come; LabError when they do not."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while len(self.moments) < count:
                if self._failure or time.monotonic() > deadline:
                    raise LabError(f"{len(self.moments)} of {count} events arrived {self._failure}")
                self._changed.wait(0.05)
