"""A message that the broker itself gave up comes back through every queue and loses nothing on the way."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pika
import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import read
from passrelay_schemas import filetime, topology
from passrelay_schemas.verdict import Verdict
from tests.lab.enrolment import change
from tests.lab.folder import canary_password
from tests.lab.process import wait_for
from tests.lab.relay import Relay

pytestmark = pytest.mark.acceptance


def _use_up_the_delivery_limit(connection: BlockingConnection) -> None:
    channel = connection.channel()
    deliveries = 0
    while deliveries <= topology.DELIVERY_LIMIT:
        method, _, _ = channel.basic_get(topology.EVENTS)
        if method is not None:
            deliveries += 1
            channel.basic_nack(method.delivery_tag, requeue=True)
    channel.close()


def test_delivery_limit_then_dead_then_replay_then_tier_then_events_loses_nothing(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    name, password = "late-starter", canary_password()
    raw = sender.envelope(change(name, password, guid=uuid4(), kvno=1, changed_at=filetime.now()))
    relay.publish([raw])
    connection = BlockingConnection(relay.broker.parameters())
    try:
        _use_up_the_delivery_limit(connection)
        wait_for(lambda: relay.broker.queue_depths()[topology.DEAD] == 1, what="the letter in the dead stream")
        listed = json.loads(relay.passrelay("dead", "list", "--json", "--config", relay.ops_config()).splitlines()[-1])
        assert [letter["reason"] for letter in listed["letters"]] == ["delivery_limit"]
        (letter,) = read(connection, topology.DEAD)
        assert letter.body == raw
    finally:
        connection.close()
    replay: list[str | Path] = ["dead", "replay", "--yes", "--reason-text", "repaired", "--config", relay.ops_config()]
    relay.passrelay(*replay)  # nobody can say whose it is, so whether IdM has a newer password
    assert relay.broker.queue_depths()[topology.EVENTS] == 0
    relay.passrelay(*replay, "--overwrite-idm")
    relay.consumer("consumer").start()
    # The user is not there yet, so the event waits in a tier and comes back from it.
    wait_for(lambda: relay.broker.queue_depths()["passrelay.retry.15s"] == 1, what="the event in a tier")
    relay.directory.add_user(name)
    wait_for(lambda: len(relay.outcomes()) == 1, what="the outcome", timeout_seconds=60)
    (outcome,) = relay.outcomes().values()
    assert (outcome.verdict, outcome.attempts, outcome.replays) == (Verdict.APPLIED, 2, 1)
    assert relay.directory.binds(name, password)
    [act] = relay.records(topology.DEAD)
    assert (act.verdict, act.event_id, act.why) == (Verdict.REPLAYED, outcome.event_id, "repaired")
    relay.directory.delete_user(name)


def test_the_brokers_own_copy_of_headers_is_never_passed_on(relay: Relay) -> None:
    """A hostile or broken sender's x-death must not make the broker take a retry for a cycle and drop it."""
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    name, password = "with-history", canary_password()
    raw = sender.envelope(change(name, password, guid=uuid4(), kvno=1, changed_at=filetime.now()))
    deaths = [
        {"queue": tier.queue, "reason": "expired", "exchange": topology.RETRY, "count": 1, "routing-keys": [tier.name]}
        for tier in topology.TIERS
    ]
    connection = BlockingConnection(relay.broker.parameters())
    try:
        properties = pika.BasicProperties(delivery_mode=2, headers={"x-death": deaths, "x-passrelay-attempt": "evil"})
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(topology.EVENTS, "", raw, properties, mandatory=True)
    finally:
        connection.close()
    relay.consumer("consumer").start()
    wait_for(lambda: relay.broker.queue_depths()["passrelay.retry.15s"] == 1, what="the event in a tier")
    relay.directory.add_user(name)
    wait_for(lambda: len(relay.outcomes()) == 1, what="the outcome", timeout_seconds=60)
    assert relay.directory.binds(name, password)
    relay.directory.delete_user(name)
