"""What the watcher makes of letters and news: only what is true now counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from prometheus_client import generate_latest

from passrelay_ops.dead_letters import Letter, State
from passrelay_ops.watch.metrics import WatchMetrics
from passrelay_ops.watch.sight import Depth, Sight, live, voices
from passrelay_schemas.news import News, SpooledFor
from passrelay_schemas.verdict import Reason

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def letter(reason: Reason, days_ago: float, state: State = State.LIVE) -> Letter:
    failed = NOW - timedelta(days=days_ago)
    return Letter(uuid4(), 0, "dc1", "lab.example", reason, 1, 0, 1, failed, failed, state, account="anna")


def news(**changes: Any) -> News:
    fields: dict[str, Any] = {
        "signing_key_id": "signing-1",
        "producer": "dc1",
        "source": "samba",
        "version": "1",
        "sent_at": NOW,
        "started_at": NOW - timedelta(days=1),
        "spool": (
            SpooledFor(recipient_key_id="recipient-1", queued=2, oldest_at=NOW - timedelta(seconds=90), retained=5),
            SpooledFor(recipient_key_id="recipient-2", queued=1, oldest_at=NOW - timedelta(seconds=300), retained=0),
        ),
        "pending": {"no_clear_text": 2, "key_missing": 1},
    }
    return News.model_validate(fields | changes)


def test_letters_that_are_handled_or_dropped_by_the_stream_do_not_count() -> None:
    letters = [
        letter(Reason.POLICY, 1),
        letter(Reason.POLICY, 77),
        letter(Reason.POLICY, 91),
        letter(Reason.POLICY, 1, State.REPLAYED),
        letter(Reason.IDENTITY, 1, State.DISCARDED),
        letter(Reason.USER_MISSING, 75),
    ]
    waiting, soon = live(letters, NOW)
    assert waiting == {"policy": 2, "user_missing": 1}
    assert soon == {"policy": 1}


def test_a_producer_that_is_silent_stopped_or_never_heard_is_down_and_shows_no_numbers() -> None:
    for said in (
        {"dc1": news(sent_at=NOW - timedelta(minutes=6))},
        {"dc1": news(stopping=True)},
        {"dc1": news(sent_at=NOW + timedelta(minutes=6))},
        {},
    ):
        (voice,) = voices(["dc1"], said, NOW).values()
        assert not voice.alive
        assert (voice.queued, voice.oldest_at, voice.pending) == (0, None, 0)


def test_only_expected_producers_are_shown() -> None:
    assert list(voices(["dc1"], {"dc1": news(), "dc9": news(producer="dc9")}, NOW)) == ["dc1"]


def test_the_page_of_a_look() -> None:
    sight = Sight(
        live={"policy": 2},
        expiring={},
        work=Depth(7, 3),
        tiers={"15s": Depth(1, 0), "1h": Depth(4, 0)},
        voices=voices(["dc1", "dc2", "dc3"], {"dc1": news(source_up=False), "dc3": news(producer="dc3")}, NOW),
        at=NOW,
    )
    page = generate_latest(WatchMetrics(lambda: sight).registry).decode()
    for line in (
        'passrelay_dead_letters{reason="policy"} 2.0',
        'passrelay_dead_letters{reason="identity"} 0.0',
        'passrelay_retry_messages{tier="1h"} 4.0',
        "passrelay_work_messages 7.0",
        "passrelay_work_consumers 3.0",
        'passrelay_producer_up{producer="dc1"} 1.0',
        'passrelay_producer_up{producer="dc2"} 0.0',
        'passrelay_producer_queued{producer="dc1"} 3.0',
        'passrelay_producer_oldest_seconds{producer="dc1"} 300.0',
        'passrelay_producer_pending{producer="dc1"} 3.0',
        'passrelay_producer_source_up{producer="dc1"} 0.0',
        "passrelay_broker_up 1.0",
        'passrelay_news_refused_total{reason="revoked"} 0.0',
    ):
        assert f"{line}\n" in page
    assert 'passrelay_producer_queued{producer="dc2"}' not in page
    # dc3 lives, and its version is too old to say it.
    assert 'passrelay_producer_queued{producer="dc3"}' in page
    assert page.count("passrelay_producer_source_up{") == 1
    assert "anna" not in page


def test_without_a_true_look_there_are_no_numbers() -> None:
    page = generate_latest(WatchMetrics(lambda: None).registry).decode()
    assert "passrelay_broker_up 0.0\n" in page
    for name in ("passrelay_dead_letters", "passrelay_work_messages", "passrelay_producer_up"):
        assert name not in page
