"""AMQP properties: built anew from an allow-list; what a stranger wrote into headers counts for nothing."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties

from passrelay_schemas.keys import KeyUse, generate
from passrelay_schemas.message import ATTEMPT, NOTE, REASON, REPLAYS, Counters, envelope_properties, record_properties
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import Reason, Verdict
from tests.unit.builders import EVENT_ID, PRODUCER, SIGNED_AT, Party

HEADER = Party().seal().header


def over_the_wire(properties: pika.BasicProperties) -> BasicProperties:
    decoded: BasicProperties = BasicProperties().decode(b"".join(properties.encode()))
    return decoded


def test_an_envelope_carries_its_id_and_nothing_about_anybody() -> None:
    properties = over_the_wire(envelope_properties(HEADER))
    assert properties.message_id == str(EVENT_ID)
    assert properties.app_id == PRODUCER
    assert properties.type == "passrelay.envelope/1"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.headers is None
    for name in ("user_id", "reply_to", "correlation_id", "expiration", "priority", "timestamp", "cluster_id"):
        assert getattr(properties, name) is None


def test_counters_survive_the_wire() -> None:
    key, _ = generate(KeyUse.OPS)
    note = NoteSealer().seal("alice", event_id=EVENT_ID, ops_key=key)
    properties = envelope_properties(HEADER, attempt=3, replays=2, reason=Reason.USER_MISSING, note=note)
    assert Counters.of(over_the_wire(properties)) == Counters(attempt=3, replays=2, reason="user_missing", note=note)


def test_republishing_drops_every_header_that_is_not_ours() -> None:
    received = pika.BasicProperties(
        headers={ATTEMPT: 1, "x-death": [{"queue": "passrelay.events"}], "x-first-death-queue": "x", "other": 1}
    )
    counters = Counters.of(received)
    again = envelope_properties(HEADER, attempt=counters.attempt + 1, replays=counters.replays)
    assert again.headers == {ATTEMPT: 2}


def test_an_envelope_that_cannot_be_parsed_has_no_names() -> None:
    properties = envelope_properties(None)
    assert (properties.message_id, properties.app_id) == (None, None)


@pytest.mark.parametrize("headers", [None, {}])
def test_absent_headers_count_nothing(headers: dict[str, Any] | None) -> None:
    assert Counters.of(pika.BasicProperties(headers=headers)) == Counters()


@pytest.mark.parametrize("value", [True, -1, 2**31, 2**63, 1.5, "3", b"3", None, [1], {"a": 1}, SIGNED_AT], ids=repr)
def test_a_count_of_the_wrong_kind_counts_as_absent(value: Any) -> None:
    headers = {ATTEMPT: value, REPLAYS: value, "x-delivery-count": value}
    assert Counters.of(pika.BasicProperties(headers=headers)) == Counters()


@pytest.mark.parametrize("value", [True, 1, [1], {"a": 1}, None, "x" * 5000, b"x" * 5000])
def test_a_text_of_the_wrong_kind_or_size_counts_as_absent(value: Any) -> None:
    assert Counters.of(pika.BasicProperties(headers={REASON: value, NOTE: value})) == Counters()


def test_the_brokers_own_count_is_read() -> None:
    headers = {"x-delivery-count": 21, REASON: b"policy"}
    assert Counters.of(pika.BasicProperties(headers=headers)) == Counters(deliveries=21, reason="policy")


amqp_values = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.lists(st.integers())


@given(headers=st.dictionaries(st.sampled_from([ATTEMPT, REPLAYS, REASON, NOTE, "x-delivery-count"]), amqp_values))
def test_no_headers_stop_the_consumer(headers: dict[str, Any]) -> None:
    counters = Counters.of(pika.BasicProperties(headers=headers))
    assert all(0 <= count < 2**31 for count in (counters.attempt, counters.replays, counters.deliveries))


def test_a_record_carries_its_reason_in_clear_and_nothing_else() -> None:
    record = Record(
        event_id=EVENT_ID, producer=PRODUCER, verdict=Verdict.DEAD, reason=Reason.POLICY, received_at=SIGNED_AT
    )
    properties = over_the_wire(record_properties(record))
    assert properties.type == "passrelay.record/1"
    assert properties.message_id == str(EVENT_ID)
    assert properties.delivery_mode == 2
    assert properties.headers == {REASON: "policy"}
