"""passrelay end to end: from a full work queue to the applied record, one consumer with so many connections."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import last_offset, read
from passrelay_schemas import filetime, record, topology
from passrelay_schemas.process_settings import ConsumerTableSettings
from passrelay_schemas.verdict import Verdict
from tests.bench.bare_publisher import publish
from tests.bench.quiet import AFTER_A_RUN_SECONDS, wait_until_quiet
from tests.lab.enrolment import Sender, change
from tests.lab.folder import canary_password
from tests.lab.process import LabError, wait_for
from tests.lab.relay import Relay

_SENDER = "bench"


class EndToEnd:
    """One deployment; each run writes one more version for every user that it is given."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._accounts: dict[str, tuple[UUID, int]] = {}
        self._kvno = itertools.count(1)
        self._sender: Sender = relay.enrolment.enrol(_SENDER)
        relay.prepare()

    def envelopes(self, users: Sequence[str]) -> list[bytes]:
        """A change for each user, newer than any before."""
        kvno = next(self._kvno)
        return [self._envelope(user, kvno) for user in users]

    def _envelope(self, user: str, kvno: int) -> bytes:
        guid, rid = self._accounts.setdefault(user, (uuid4(), 3000 + len(self._accounts)))
        now = filetime.now()
        return self._sender.envelope(
            change(user, canary_password(), guid=guid, kvno=kvno, changed_at=now, rid=rid),
        )

    def fill(self, bodies: Sequence[bytes]) -> float:
        """Put bodies into the work queue as a producer's user; the seconds that took."""
        return publish(self._relay.broker.parameters(_SENDER), bodies)

    def run(self, users: Sequence[str], *, connections: int) -> float:
        """Events per second, from the first write to the last."""
        envelopes = self.envelopes(users)
        connection = BlockingConnection(self._relay.broker.parameters())
        try:
            newest = last_offset(connection, topology.JOURNAL)
            after = 0 if newest is None else newest + 1
            self.fill(envelopes)
            wait_until_quiet(self._relay.broker.pids, AFTER_A_RUN_SECONDS)
            consumer = self._relay.consumer(f"{_SENDER}-consumer", workers=connections)
            seen = _depth(connection)
            consumer.start()
            wait_for(
                lambda: _depth(connection) >= seen + len(envelopes),
                what="every event applied",
                timeout_seconds=600,
                interval_seconds=0.2,
                alive=consumer.process,
            )
            consumer.stop()
            self._relay.services.remove(consumer)
            return _rate(_applied(connection, after), len(envelopes), connections)
        finally:
            connection.close()


def _depth(connection: BlockingConnection) -> int:
    # Not of the management API: that costs the broker more than the benchmark's own messages.
    channel = connection.channel()
    count: int = channel.queue_declare(topology.JOURNAL, passive=True).method.message_count
    channel.close()
    return count


def _applied(connection: BlockingConnection, after: int) -> list[datetime]:
    found = [record.decode(message.body) for message in read(connection, topology.JOURNAL, since=after)]
    if any(one.verdict is not Verdict.APPLIED for one in found):
        raise LabError("an event of the benchmark was not applied")
    return sorted(one.applied_at for one in found if one.applied_at is not None)


def _rate(times: Sequence[datetime], expected: int, connections: int) -> float:
    """Writes per second, from when the first one began until the last one did.

    By then all the others are done, but for what is in work at once: that much counts as not done.
    """
    if len(times) != expected:
        raise LabError(f"{expected} events of the benchmark led to {len(times)} applied records")
    in_work = ConsumerTableSettings(workers=connections).threads
    return (len(times) - in_work) / max(0.001, (times[-1] - times[0]).total_seconds())
