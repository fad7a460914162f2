"""passrelay with one of its protections switched off: what a campaign must find.

python -m tests.faults.sabotage PROTECTION, then passrelay's own arguments. Nothing of this is in the product.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import ldap3

import passrelay_consumer.channel
import passrelay_consumer.directory
import passrelay_consumer.handler
import passrelay_consumer.opening
import passrelay_consumer.service
import passrelay_producer.publisher
import passrelay_producer.service
import passrelay_producer.spool
from passrelay_consumer.decide import OUTDATED, Settled, Write, decide
from passrelay_ops import cli
from passrelay_producer.capture import Capture
from passrelay_schemas import topology
from passrelay_schemas.message import event_properties

_LATE_SECONDS = 1.0


def _put(place: object, name: str, replacement: object) -> None:
    mock.patch.object(place, name, replacement).start()


def _compare_and_set() -> None:
    """A write replaces marker and proof, whatever they are by now."""

    def replace(old: object, new: object) -> list[tuple[str, list[bytes]]]:
        return [(ldap3.MODIFY_REPLACE, [str(new).encode("ascii")])]

    _put(passrelay_consumer.directory, "_replace_exactly", replace)


def _ack() -> None:
    """The broker counts a delivery as done when it is sent."""
    channel_class = passrelay_consumer.channel.EventChannel
    opened = channel_class._opened

    def open_without_acks(self: Any, channel: Any) -> None:
        consume = channel.basic_consume
        channel.basic_consume = lambda queue, callback: consume(queue, callback, auto_ack=True)
        channel.basic_ack = channel.basic_nack = lambda *_, **__: None
        opened(self, channel)

    _put(channel_class, "_opened", open_without_acks)


def _confirms() -> None:
    """An event counts as published when it was sent, whether or not the broker has it."""

    def publish(self: Any, channel: Any, signed: Any) -> None:
        properties = event_properties(signed.event_id, signed.producer)
        channel.basic_publish(topology.EVENTS, "", signed.body, properties, mandatory=False)
        self._safe.append(signed.place)
        self._mark()

    _put(passrelay_producer.publisher.Publisher, "_publish", publish)


def _settle() -> None:
    """The site says `settle = false` in its configuration: nothing to be patched."""


def _order() -> None:
    """What arrives last is written last."""

    def by_arrival(*arguments: Any, **options: Any) -> Any:
        decision = decide(*arguments, **options)
        return Write() if isinstance(decision, Settled) and decision.reason in OUTDATED else decision

    _put(passrelay_consumer.handler, "decide", by_arrival)


def _commit() -> None:
    """A line is answered before it is in the spool."""
    commit = passrelay_producer.spool.Spool.commit

    def later(self: Any, page: Any, sealed: Any) -> None:
        threading.Timer(_LATE_SECONDS, commit, (self, page, sealed)).start()

    _put(passrelay_producer.spool.Spool, "commit", later)


def _signature() -> None:
    """A signature is not looked at."""
    _put(passrelay_consumer.opening, "verify", lambda envelope, key: None)


def _core_dumps() -> None:
    """A process that is aborted may leave its memory on disk."""
    for service in (passrelay_consumer.service, passrelay_producer.service):
        _put(service, "forbid_core_dumps", lambda: None)


def _seal() -> None:
    """A producer tells its log what it captures."""
    seal = Capture._seal

    def tell(self: Any, page: Any) -> Any:
        for event in page.events:
            print(event.password.reveal() if event.password else "", file=sys.stderr)
        return seal(self, page)

    _put(Capture, "_seal", tell)


PROTECTIONS: dict[str, Callable[[], None]] = {
    "compare_and_set": _compare_and_set,
    "ack": _ack,
    "confirms": _confirms,
    "settle": _settle,
    "order": _order,
    "commit": _commit,
    "signature": _signature,
    "core_dumps": _core_dumps,
    "silence": _seal,
}


def main() -> None:
    """Switch it off, and be passrelay."""
    PROTECTIONS[sys.argv.pop(1)]()
    cli.main()


if __name__ == "__main__":
    main()
