"""The topology's arguments are paid-for rules: one missing argument loses messages on some server version."""

from __future__ import annotations

import pytest

from passrelay_schemas.topology import (
    DEAD,
    DELIVERY_LIMIT,
    EVENTS,
    EXCHANGES,
    JOURNAL,
    NEWS,
    RETRY,
    TIERS,
    Queue,
    queues,
    tier_for,
)

ALL = queues()
QUORUM = [queue for queue in ALL if queue.arguments["x-queue-type"] == "quorum"]
STREAMS = [queue for queue in ALL if queue.arguments["x-queue-type"] == "stream"]


def test_the_public_names() -> None:
    assert {exchange.name for exchange in EXCHANGES} == {
        "passrelay.events",
        "passrelay.retry",
        "passrelay.dead",
        "passrelay.journal",
        "passrelay.news",
    }
    assert {queue.name for queue in QUORUM} == {
        "passrelay.events",
        "passrelay.retry.15s",
        "passrelay.retry.2m",
        "passrelay.retry.10m",
        "passrelay.retry.1h",
    }
    assert {queue.name for queue in STREAMS} == {"passrelay.dead", "passrelay.journal", "passrelay.news"}


@pytest.mark.parametrize("queue", QUORUM, ids=lambda queue: queue.name)
def test_no_work_queue_can_lose_a_message(queue: Queue) -> None:
    arguments = queue.arguments
    assert arguments["x-dead-letter-strategy"] == "at-least-once"
    assert arguments["x-overflow"] == "reject-publish"  # at-least-once is silently off without it
    assert arguments["x-max-length-bytes"] > 0
    assert arguments["x-delivery-limit"] == DELIVERY_LIMIT > 100  # -1 loses on 3.10, the default of 20 loses on 4.x
    assert arguments["x-dead-letter-exchange"] in {exchange.name for exchange in EXCHANGES}
    assert "x-dead-letter-routing-key" not in arguments


def test_events_fall_into_the_dead_stream_and_tiers_return_to_the_events() -> None:
    targets = {queue.name: queue.arguments["x-dead-letter-exchange"] for queue in QUORUM}
    assert targets.pop(EVENTS) == DEAD
    assert set(targets.values()) == {EVENTS}
    assert "x-message-ttl" not in next(queue for queue in QUORUM if queue.name == EVENTS).arguments


@pytest.mark.parametrize("queue", STREAMS, ids=lambda queue: queue.name)
def test_streams_are_bounded_in_age_and_size(queue: Queue) -> None:
    assert queue.arguments["x-max-age"] == ("7D" if queue.name == NEWS else "90D")
    assert queue.arguments["x-max-length-bytes"] > queue.arguments["x-stream-max-segment-size-bytes"] > 0
    assert "x-delivery-limit" not in queue.arguments  # the server refuses it on a stream


def test_every_queue_is_fed_and_dead_letters_reach_a_queue() -> None:
    types = {exchange.name: exchange.type for exchange in EXCHANGES}
    assert types == {EVENTS: "fanout", RETRY: "direct", DEAD: "fanout", JOURNAL: "fanout", NEWS: "fanout"}
    for queue in ALL:
        assert (queue.routing_key == "") == (types[queue.exchange] == "fanout"), queue
    fed = {queue.exchange for queue in ALL}
    assert fed == set(types)
    # a dead letter keeps its routing key (a tier's name): only a fanout takes it whatever it is
    assert all(types[queue.arguments["x-dead-letter-exchange"]] == "fanout" for queue in QUORUM)
    assert len({(queue.exchange, queue.routing_key) for queue in ALL}) == len(ALL)


def test_streams_are_declared_before_what_dead_letters_into_them() -> None:
    names = [queue.name for queue in ALL]
    assert names.index(DEAD) < names.index(EVENTS) < min(names.index(tier.queue) for tier in TIERS)


@pytest.mark.parametrize(
    ("attempt", "tier"),
    [(1, "15s"), (2, "15s"), (3, "2m"), (4, "10m"), *((n, "1h") for n in range(5, 11)), (10**6, "1h")],
)
def test_attempts_wait_longer_and_longer(attempt: int, tier: str) -> None:
    assert tier_for(attempt).name == tier


def test_a_tier_waits_as_long_as_its_name_says() -> None:
    waits = {queue.name: queue.arguments["x-message-ttl"] for queue in QUORUM if queue.name != EVENTS}
    assert waits == {
        "passrelay.retry.15s": 15_000,
        "passrelay.retry.2m": 120_000,
        "passrelay.retry.10m": 600_000,
        "passrelay.retry.1h": 3_600_000,
    }


def test_tests_may_shorten_single_tiers() -> None:
    shortened = {queue.name: queue.arguments.get("x-message-ttl") for queue in queues({"15s": 200})}
    assert shortened["passrelay.retry.15s"] == 200
    assert shortened["passrelay.retry.2m"] == 120_000
    assert queues() == ALL
