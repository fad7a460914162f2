"""A consumer that dies between setting a password and expiring it leaves nobody without must_change: IPA's plugin."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from passrelay_schemas import filetime
from passrelay_schemas.marker import MUST_CHANGE_DONE, Marker
from tests.lab.broker import Broker
from tests.lab.enrolment import Sender, change
from tests.lab.folder import canary_password
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.proxy import Proxy
from tests.lab.relay import Relay, Service

pytestmark = [pytest.mark.acceptance, pytest.mark.ipa]

USERS = 40
KILLS = 6
MOST_REQUESTS = 12
"""More than a consumer needs for one event."""


class Users:
    """Users whose administrator resets their passwords in AD, each time with "must change at next logon"."""

    def __init__(self, directory: IpaDirectory, sender: Sender, prefix: str, count: int) -> None:
        self._directory = directory
        self._sender = sender
        self._identity: dict[str, UUID] = {f"{prefix}{number}": uuid4() for number in range(count)}
        self._newest: dict[str, tuple[int, str]] = {}
        directory.add_users(self._identity)

    def reset(self, user: str) -> bytes:
        """One more reset, as the producer sends it."""
        kvno, password = self._newest.get(user, (0, ""))[0] + 1, canary_password()
        self._newest[user] = kvno, password
        made = change(user, password, guid=self._identity[user], kvno=kvno, changed_at=filetime.now(), must_change=True)
        return self._sender.envelope(made)

    def reset_all(self) -> list[bytes]:
        """One more reset of everybody."""
        return [self.reset(user) for user in self._identity]

    def marker(self, user: str) -> Marker | None:
        """What the entry carries now."""
        found = self._directory.read(user).get("passrelayMarker")
        return Marker.parse(found[0]) if found else None

    def faults(self) -> list[str]:
        """Everybody who has not the newest password, or need not change it."""
        return [fault for user in self._newest for fault in self._faults(user)]

    def _faults(self, user: str) -> Iterator[str]:
        kvno, password = self._newest[user]
        marker, entry = self.marker(user), self._directory.read(user)
        if marker is None or marker.kvno != kvno:
            yield f"{user}: the newest reset is {kvno}, the entry carries {marker}"
        elif marker.flags != {MUST_CHANGE_DONE}:
            yield f"{user}: the step after the write is not done: {marker}"
        expires = datetime.strptime(entry["krbPasswordExpiration"][0], "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        if expires > datetime.now(UTC):
            yield f"{user}: need not change the password before {expires}"
        if not self._directory.binds(user, password):
            yield f"{user}: the newest password does not bind"


@pytest.fixture
def relay(tmp_path: Path, shared_broker: Broker, shared_ipa_directory: IpaDirectory) -> Iterator[Relay]:
    deployment = Relay(tmp_path / "relay", shared_broker, shared_ipa_directory)
    yield deployment
    deployment.close()
    shared_broker.purge_all()


@pytest.fixture
def gate(reservations: Reservations, shared_ipa_directory: IpaDirectory) -> Iterator[Proxy]:
    proxy = Proxy(reservations, shared_ipa_directory.listening.ldaps)
    yield proxy
    proxy.close()


def _consumer(relay: Relay, name: str, **idm: Any) -> Service:
    # Nothing but events crosses the gate: probes of their own would be counted.
    return relay.consumer(name, workers=1, idm={"probe_seconds": 3600, **idm})


def _all_on_record(relay: Relay, events: int) -> bool:
    return len(relay.outcomes()) == events


def _held_or_done(gate: Proxy, relay: Relay, events: int) -> bool:
    return gate.holding.is_set() or _all_on_record(relay, events)


def _deep(relay: Relay, depth: float) -> bool:
    return relay.journal_depth() >= depth


def test_killed_before_each_of_its_requests_in_turn(
    relay: Relay, gate: Proxy, shared_ipa_directory: IpaDirectory
) -> None:
    users = Users(shared_ipa_directory, relay.enrolment.enrol("dc1"), "turn", 1)
    relay.prepare()
    consumer = _consumer(relay, "consumer", servers=[f"ldaps://localhost:{gate.port}"])
    consumer.start()
    relay.publish([users.reset("turn0")])
    wait_for(partial(_all_on_record, relay, 1), what="the first outcome")
    between = 0
    for requests in range(MOST_REQUESTS):
        gate.hold_after(requests)
        relay.publish([users.reset("turn0")])
        kvno = requests + 2
        wait_for(partial(_held_or_done, gate, relay, kvno), what="the consumer before its next request")
        if not gate.holding.is_set():
            break
        marker = users.marker("turn0")
        between += marker is not None and marker.kvno == kvno and MUST_CHANGE_DONE not in marker.flags
        consumer.kill()
        gate.cut()
        gate.heal()
        # It gets the same event again, and its worker has a connection for the next one.
        consumer.start()
        wait_for(partial(_all_on_record, relay, kvno), what="the outcome after the kill")
        assert users.faults() == [], f"killed before request {requests + 1}"
    else:
        raise AssertionError(f"one event takes more than {MOST_REQUESTS} requests")
    print(f"killed before each of {requests} requests, {between} times between the two writes")
    assert users.faults() == []
    assert between >= 1, "never killed between the write and the step after it"


def test_killed_at_random_moments(relay: Relay, shared_ipa_directory: IpaDirectory) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    users = Users(shared_ipa_directory, relay.enrolment.enrol("dc1"), "kill", USERS)
    relay.prepare()
    envelopes = [*users.reset_all(), *users.reset_all()]
    dice.shuffle(envelopes)
    relay.publish(envelopes)
    consumer = relay.consumer("consumer")
    for kill in range(KILLS):
        consumer.start()
        depth = len(envelopes) * (kill + dice.random()) / KILLS
        wait_for(partial(_deep, relay, depth), what=f"{depth:.0f} outcomes", interval_seconds=0.001)
        consumer.kill()
    consumer.start()
    wait_for(partial(_all_on_record, relay, len(envelopes)), what="every outcome", timeout_seconds=120)
    assert users.faults() == []
