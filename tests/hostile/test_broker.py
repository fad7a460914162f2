"""A broker that lies, to consumers and to operators: what it gets out of them, and what it does not.

It has no key, so all that it can make is messages around what producers have sealed and signed. Each test is named in
docs/security.md; consumers and commands are real processes.
"""

from __future__ import annotations

import itertools
import json
import random
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_consumer.disposition import Again, Dropped, Final, dispose
from passrelay_consumer.outcome import Outcome
from passrelay_ops.news import EVERYTHING, hear
from passrelay_schemas import filetime, topology
from passrelay_schemas import news as documents
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.message import ATTEMPT, NOTE, REASON, REPLAYS, SETTLE, SETTLE_SINCE, Counters, record_properties
from passrelay_schemas.news import News
from passrelay_schemas.record import Record, envelope_text
from passrelay_schemas.verdict import FINAL, Reason, Verdict
from tests.hostile.wire import TOO_LATE, RawHeaders
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.enrolment import change
from tests.lab.folder import canary_password
from tests.lab.process import wait_for
from tests.lab.relay import Relay

pytestmark = pytest.mark.acceptance

_ESCAPE = "\x1b]0;owned\x07\u202e"
_DEEP = b"V"
for _ in range(100):
    _DEEP = b"A" + struct.pack(">I", len(_DEEP)) + _DEEP


@pytest.fixture
def relay(tmp_path: Path, shared_broker: Broker, shared_directory: Directory) -> Iterator[Relay]:
    shared_broker.purge_all()
    deployment = Relay(tmp_path / "relay", shared_broker, shared_directory)
    yield deployment
    deployment.close()
    shared_broker.purge_all()


def _forged_properties(number: int) -> pika.BasicProperties:
    """Properties that no producer sets, each another way."""
    at = datetime(9999, 1, 1, tzinfo=UTC)
    headers: list[dict[str, Any]] = [
        {ATTEMPT: 2**31 - 1, REPLAYS: 2**31 - 1},
        {ATTEMPT: -1, REPLAYS: "x", REASON: ["a"], NOTE: b"\xff" * 4096},
        {SETTLE_SINCE: "0001-01-01T00:00:00+14:00", REASON: "policy"},
        {"x-death": [{"queue": topology.EVENTS, "count": 10**6, "time": at}], "x-first-death-reason": "expired"},
        {NOTE: "x" * 60_000, REASON: _ESCAPE},
        {"x-stream-offset": 7, "x-opt-deaths": {"a": {"b": [1]}}},
    ]
    return pika.BasicProperties(
        headers=headers[number % len(headers)],
        message_id=str(uuid4()),
        app_id="somebody-else",
        type="passrelay.record/1",
        content_type="text/html",
        content_encoding="gzip",
        priority=255,
        delivery_mode=1,
    )


def _publish(relay: Relay, exchange: str, *messages: tuple[bytes, pika.BasicProperties]) -> None:
    connection = BlockingConnection(relay.broker.parameters())
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for body, properties in messages:
            channel.basic_publish(exchange, "", body, properties)
    finally:
        connection.close()


def _mixed(one: bytes, other: bytes) -> list[bytes]:
    """Envelopes put together from parts of two."""
    first, second = json.loads(one), json.loads(other)
    return [
        json.dumps({name: (first if name in chosen else second)[name] for name in first}).encode()
        for size in (1, 2, 3)
        for chosen in itertools.combinations(first, size)
    ]


# --- to consumers


def test_repeated_reordered_mixed_and_with_forged_headers_each_password_is_the_newest(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    users = [f"lied-to-{number}" for number in range(6)]
    relay.directory.add_users(users)
    began, passwords, bodies = filetime.now(), {}, []
    for user in users:
        guid = uuid4()
        for kvno in (1, 2, 3):
            passwords[user, kvno] = canary_password()
            event = change(user, passwords[user, kvno], guid=guid, kvno=kvno, changed_at=began + kvno * 10_000_000)
            bodies.append(sender.envelope(event))
    handed_out = [(body, _forged_properties(number)) for number, body in enumerate(bodies * 4)]
    handed_out += [(body, _forged_properties(3)) for body in _mixed(bodies[0], bodies[5])]
    handed_out += [(body[: len(body) // 2], _forged_properties(1)) for body in bodies[:3]]
    broken = RawHeaders({b"a": TOO_LATE, b"deep": _DEEP}, type="\u202e")
    handed_out += [(body, broken) for body in bodies]
    random.Random(7).shuffle(handed_out)
    consumer = relay.consumer("consumer")
    consumer.start()
    _publish(relay, topology.EVENTS, *handed_out)
    ids = {str(Envelope.parse(body).event_id) for body in bodies}
    wait_for(lambda: ids <= relay.outcomes().keys(), what="an outcome of each event", timeout_seconds=120)
    wait_for(lambda: relay.broker.queue_depths()[topology.EVENTS] == 0, what="an empty queue")
    for user in users:
        assert relay.directory.binds(user, passwords[user, 3])
        assert not any(relay.directory.binds(user, passwords[user, kvno]) for kvno in (1, 2))
    outcomes = relay.outcomes()
    assert {outcomes[one].verdict for one in ids} <= {Verdict.APPLIED, Verdict.SUPERSEDED, Verdict.DUPLICATE}
    # What is not an event of ours has a record under an id of its own, never under a true event's.
    strangers = [record for record in relay.records() if record.verdict is Verdict.DEAD]
    assert {record.reason for record in strangers} <= {Reason.BAD_SIGNATURE, Reason.MALFORMED}
    assert not {str(record.event_id) for record in strangers} & ids
    assert consumer.lines("internal_error") == []
    assert consumer.process.running


def test_an_old_event_from_a_recording_brings_no_old_password_back(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    relay.directory.add_users(["recorded"])
    guid, old, new = uuid4(), canary_password(), canary_password()
    first, second = (
        sender.envelope(change("recorded", password, guid=guid, kvno=kvno, changed_at=filetime.now()))
        for kvno, password in ((1, old), (2, new))
    )
    relay.consumer("consumer").start()
    relay.publish([first, second])
    wait_for(lambda: len(relay.outcomes()) == 2, what="both outcomes")
    before = len(relay.records())
    forged = pika.BasicProperties(headers={SETTLE: 1, SETTLE_SINCE: "9999-12-31T23:59:59Z"})
    _publish(relay, topology.EVENTS, (first, pika.BasicProperties()), (first, forged), (first, _forged_properties(0)))
    wait_for(lambda: len(relay.records()) >= before + 3, what="their records")
    assert relay.directory.binds("recorded", new)
    assert not relay.directory.binds("recorded", old)


@pytest.mark.parametrize("settle", [1, 5, 2**31 - 1])
def test_a_forged_settle_header_can_make_an_event_end_without_a_record_as_dropping_it_does(settle: int) -> None:
    horizon, counters = timedelta(days=1), Counters(settle=settle)
    missing = Outcome(Verdict.RETRY, Reason.USER_MISSING, authentic=True)
    assert isinstance(dispose(missing, counters, horizon=horizon), Dropped if settle > 9 else Again)
    # What is not signed well is a letter all the same: nobody can hide a forgery in this way.
    stranger = Outcome(Verdict.DEAD, Reason.BAD_SIGNATURE, authentic=False)
    assert isinstance(dispose(stranger, counters, horizon=horizon), Final)


def test_forged_counts_make_a_letter_sooner_and_never_lose_it(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    raw = sender.envelope(change("nobody-yet", canary_password(), guid=uuid4(), kvno=1, changed_at=filetime.now()))
    relay.consumer("consumer").start()
    _publish(relay, topology.EVENTS, (raw, pika.BasicProperties(headers={ATTEMPT: 2**31 - 1})))
    wait_for(lambda: len(relay.records(topology.DEAD)) == 1, what="the letter")
    (letter,) = relay.records(topology.DEAD)
    assert (letter.reason, letter.envelope_bytes) == (Reason.USER_MISSING, raw)


# --- to operators


def _forged_records(event_id: Any, envelope: bytes) -> Iterator[tuple[bytes, pika.BasicProperties]]:
    """Records that no consumer wrote."""
    good = Record(
        event_id=event_id, producer="dc1", domain="lab.example", verdict=Verdict.DEAD, reason=Reason.POLICY,
        received_at=utc_now(), envelope=envelope_text(envelope),
    )  # fmt: skip
    changes: list[dict[str, Any]] = [
        {"event_id": uuid4(), "reason": None},
        {"event_id": uuid4(), "reason": _ESCAPE, "producer": _ESCAPE, "domain": _ESCAPE, "note": _ESCAPE},
        {"event_id": uuid4(), "received_at": datetime.max.replace(tzinfo=UTC)},
        {"event_id": uuid4(), "received_at": datetime.min.replace(tzinfo=UTC), "captured_at": None},
        {"event_id": uuid4(), "attempts": 2**70, "replays": 2**70},
        {"event_id": uuid4(), "envelope": "!"},
        {"event_id": uuid4(), "verdict": Verdict.REPLAYED, "by": _ESCAPE, "why": _ESCAPE},
    ]
    for changed in changes:
        record = good.model_copy(update=changed)
        yield record.encode(), record_properties(good)
    yield b"[" * 90_000, record_properties(good)
    yield b"\xff\xfe", record_properties(good)
    yield (
        good.model_copy(update={"event_id": uuid4()}).encode(),
        RawHeaders({b"a": TOO_LATE}, type="passrelay.record/1"),
    )
    yield envelope, RawHeaders({b"a": TOO_LATE})


def test_forged_letters_stop_no_command_and_change_nothing_of_the_true_one(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    raw = sender.envelope(change("true-one", canary_password(), guid=uuid4(), kvno=1, changed_at=filetime.now()))
    true_id = Envelope.parse(raw).event_id
    relay.consumer("consumer").start()
    _publish(relay, topology.EVENTS, (raw, pika.BasicProperties(headers={ATTEMPT: 2**31 - 1})))
    wait_for(lambda: len(relay.records(topology.DEAD)) == 1, what="the letter")
    forged = list(_forged_records(true_id, raw))
    _publish(relay, topology.DEAD, *forged)
    listed = relay.passrelay("dead", "list", "--config", relay.ops_config())
    assert not {"\x1b", "\x07", "\u202e"} & set(listed)
    document = json.loads(relay.passrelay("dead", "list", "--json", "--config", relay.ops_config()).splitlines()[-1])
    letters = {letter["event_id"]: letter for letter in document["letters"]}
    true = letters[str(true_id)]
    # The last of them made it look like one that the broker gave up: the reason it can change, not whose it is.
    assert (true["state"], true["account"], true["reason"]) == ("live", "true-one", "delivery_limit")
    for one in letters:
        shown = relay.passrelay("dead", "show", one, "--config", relay.ops_config())
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    # A forged letter that an operator replays is judged as ever: its envelope is the true event, so it comes once.
    relay.directory.add_users(["true-one"])
    relay.passrelay(
        "dead",
        "replay",
        "--yes",
        "--overwrite-idm",
        "--reason-text",
        "all",
        "--config",
        relay.ops_config(),
        check=False,
    )
    wait_for(lambda: "passrelayMarker" in relay.directory.read("true-one"), what="the true event's marker")
    finals = [record for record in relay.records() if record.event_id == true_id and record.verdict in FINAL]
    assert {record.verdict for record in finals} <= {Verdict.DEAD, Verdict.APPLIED, Verdict.DUPLICATE}


def test_a_broken_header_in_the_news_hides_no_producer(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    now = utc_now()
    news = News(
        signing_key_id=sender.signer.document.key_id, producer="dc1", source="stdin", version="1", sent_at=now,
        started_at=now,
    )  # fmt: skip
    good = documents.encode(news, sender.signer)
    broken = RawHeaders({b"a": TOO_LATE, b"deep": _DEEP}, app_id="dc1")
    stale = documents.encode(
        news.model_copy(update={"sent_at": now - timedelta(hours=1), "version": "0"}), sender.signer
    )
    # Last of all the broken ones, where a reader looks for the end of the stream.
    for messages in ([(good, broken)], [(stale, pika.BasicProperties())], [(b"[" * 60_000, broken), (b"", broken)]):
        _publish(relay, topology.NEWS, *messages)
    connection = BlockingConnection(relay.broker.parameters())
    try:
        heard = hear(connection, Keyring(relay.enrolment.consumer_keys), since=EVERYTHING)
    finally:
        connection.close()
    assert heard.news["dc1"].version == "1"
    assert [one.reason for one in heard.unbelieved] == [Reason.MALFORMED] * 2
