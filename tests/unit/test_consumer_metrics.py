"""The consumer's metrics: names are an agreement, and no value of a clock difference breaks them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import generate_latest

from passrelay_consumer.directory import ProbeResult
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.outcome import Outcome
from passrelay_schemas.filetime import from_datetime
from passrelay_schemas.verdict import Verdict

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def applied(seconds_ago: float) -> Outcome:
    return Outcome(
        Verdict.APPLIED,
        applied_at=NOW,
        changed_at=from_datetime(NOW - timedelta(seconds=seconds_ago)),
        account="anna",
        server="ldaps://i",
    )


def test_every_name_is_on_the_page_and_no_account() -> None:
    metrics = ConsumerMetrics()
    metrics.settled(applied(2))
    metrics.settled(Outcome(Verdict.DEAD, "policy"))
    metrics.paused("directory", on=True)
    metrics.probed("ldaps://i", ProbeResult("write"))
    metrics.handled(0.1)
    page = generate_latest(metrics.registry).decode()
    for line in (
        'passrelay_events_total{outcome="applied",reason="",stage="consume"} 1.0',
        'passrelay_events_total{outcome="dead",reason="policy",stage="consume"} 1.0',
        "passrelay_end_to_end_seconds_sum 2.0",
        'passrelay_directory_up{server="ldaps://i"} 0.0',
        'passrelay_directory_probe{check="bind",server="ldaps://i"} 1.0',
        'passrelay_directory_probe{check="write",server="ldaps://i"} 0.0',
        'passrelay_directory_probe{check="expiry",server="ldaps://i"} 0.0',
        'passrelay_consumer_paused{reason="directory"} 1.0',
        'passrelay_stage_seconds_count{stage="handle"} 1.0',
    ):
        assert line in page
    assert metrics.registry.get_sample_value("passrelay_last_apply_timestamp_seconds") == NOW.timestamp()
    assert "anna" not in page


def test_a_clock_that_is_ahead_gives_no_negative_time() -> None:
    metrics = ConsumerMetrics()
    metrics.settled(applied(-30))
    assert metrics.registry.get_sample_value("passrelay_end_to_end_seconds_sum") == 0
    assert metrics.registry.get_sample_value("passrelay_end_to_end_seconds_count") == 1


def test_only_a_write_counts_for_the_end_to_end_time() -> None:
    metrics = ConsumerMetrics()
    metrics.settled(Outcome(Verdict.DUPLICATE, applied_at=NOW, changed_at=0))
    assert metrics.registry.get_sample_value("passrelay_end_to_end_seconds_count") == 0
