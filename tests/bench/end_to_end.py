"""passrelay end to end: from a full work queue to the applied record, one consumer with so many connections."""

from __future__ import annotations

from uuid import UUID, uuid4

from passrelay_schemas import filetime
from passrelay_schemas.verdict import Verdict
from tests.lab.enrolment import Sender, change
from tests.lab.folder import canary_password
from tests.lab.process import LabError, wait_for
from tests.lab.relay import Relay


class EndToEnd:
    """One deployment; each run writes one more version for every user."""

    def __init__(self, relay: Relay, users: list[str]) -> None:
        self._relay = relay
        self._users = users
        self._guids: dict[str, UUID] = {user: uuid4() for user in users}
        self._kvno = 0
        self._sender: Sender = relay.enrolment.enrol("bench")
        relay.prepare()

    def run(self, *, connections: int) -> float:
        """Events per second, between the first and the last applied record."""
        self._kvno += 1
        envelopes = [
            self._sender.envelope(
                change(
                    user,
                    canary_password(),
                    guid=self._guids[user],
                    kvno=self._kvno,
                    changed_at=filetime.now(),
                    rid=3000 + number,
                )
            )
            for number, user in enumerate(self._users)
        ]
        seen = self._relay.journal_depth()
        self._relay.publish(envelopes)
        consumer = self._relay.consumer(f"bench-{connections}-{self._kvno}", workers=connections)
        consumer.start()
        wait_for(
            lambda: self._relay.journal_depth() >= seen + len(envelopes),
            what="every event applied",
            timeout_seconds=600,
            interval_seconds=0.2,
        )
        consumer.stop()
        records = self._relay.records()[seen:]
        times = sorted(record.applied_at.timestamp() for record in records if record.applied_at is not None)
        if any(record.verdict is not Verdict.APPLIED for record in records) or len(times) != len(envelopes):
            raise LabError("an event of the benchmark was not applied")
        return (len(times) - 1) / (times[-1] - times[0])
