"""Producers: every domain controller, as the watcher hears it, and what the controllers' own pages show."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.board import PRODUCERS, Board, Choice, Row
from tests.dashboards.panels import (
    NEUTRAL,
    NONE_IS_BETTER,
    PER_MINUTE,
    SECONDS,
    UP,
    About,
    Column,
    Query,
    lines,
    number,
    rows,
)
from tests.dashboards.pipeline import quantiles

_OLD = [("green", None), ("orange", 60), ("red", 900)]
_HEARD = {"0": ("silent", "red"), "1": ("heard", "green")}
_ONE = 'producer=~"$producer"'
_HOST = 'instance=~"$instance"'
_ROOM = [("red", None), ("orange", 200e6), ("green", 1e9)]


def board() -> Board:
    """One row for each controller."""
    return Board(
        PRODUCERS,
        "Producers",
        "Every domain controller: is it heard, what waits there, what cannot be captured.",
        [
            Row("Every domain controller", [_table()]),
            Row("Domain controller $producer, as `passrelay watch` hears it", _heard(), repeat="producer"),
            Row("Producer $instance, from its own page", _own(), repeat="instance"),
        ],
        [
            Choice("producer", "Producer", "label_values(passrelay_producer_up, producer)"),
            Choice("instance", "Instance", "label_values(passrelay_source_up, instance)"),
        ],
    )


def _table() -> models.Panel:
    newest = "max by (producer)"
    return rows(
        About(
            "Domain controllers",
            "Producers that the watcher's configuration lists. A silent one's numbers are not known: what is changed "
            "there waits in its spool, or is not captured at all.",
            [
                Query(f"{newest} (passrelay_producer_up)"),
                Query(f"time() - {newest} (passrelay_producer_last_news_timestamp_seconds)"),
                Query(f"{newest} (passrelay_producer_queued)"),
                Query(f"{newest} (passrelay_producer_oldest_seconds)"),
                Query(f"{newest} (passrelay_producer_pending)"),
                Query(f"{newest} (passrelay_clock_ahead_seconds)"),
                Query(f"{newest} (passrelay_producer_source_up)"),
            ],
            runbooks=[
                "PassrelayProducerSilent",
                "PassrelaySourceDown",
                "PassrelaySpoolOld",
                "PassrelayCapturePending",
                "PassrelayClockOff",
            ],
            none="not known",
            height=7,
        ),
        [
            Column("producer", "Producer"),
            Column("Value #A", "State", words=_HEARD),
            Column("Value #G", "Its source", words=UP),
            Column("Value #B", "Last heard", unit=SECONDS, steps=[("green", None), ("red", 300)]),
            Column("Value #C", "In its spool", steps=[("green", None), ("orange", 100)]),
            Column("Value #D", "Oldest there", unit=SECONDS, steps=_OLD),
            Column("Value #E", "Cannot be captured", steps=NONE_IS_BETTER),
            Column("Value #F", "Clock ahead", unit=SECONDS, steps=[("green", None), ("orange", 300)]),
        ],
    )


def _heard() -> list[models.Panel]:
    return [
        number(
            About(
                "State",
                "Heard: its signed news are at most 5 minutes old.",
                [Query(f"max(passrelay_producer_up{{{_ONE}}})")],
                steps=[("red", None), ("green", 1)],
                words=_HEARD,
                runbooks=["PassrelayProducerSilent"],
                none="not known",
                width=4,
                height=6,
            )
        ),
        number(
            About(
                "Last heard",
                "How long ago, by the producer's own clock. It speaks about every minute.",
                [Query(f"time() - max(passrelay_producer_last_news_timestamp_seconds{{{_ONE}}})")],
                unit=SECONDS,
                steps=[("green", None), ("red", 300)],
                runbooks=["PassrelayProducerSilent"],
                none="never",
                width=4,
                height=6,
            )
        ),
        lines(
            About(
                "Waits there",
                "Changes in its spool that are not published, and accounts whose newest password it cannot read.",
                [
                    Query(f"max(passrelay_producer_queued{{{_ONE}}})", "in the spool"),
                    Query(f"max(passrelay_producer_pending{{{_ONE}}})", "cannot be captured"),
                ],
                runbooks=["PassrelayCapturePending"],
                none="not known",
                width=8,
                height=6,
            )
        ),
        lines(
            About(
                "Age and clock",
                "Age of the oldest change in its spool, and how far its clock is ahead of IdM's.",
                [
                    Query(f"max(passrelay_producer_oldest_seconds{{{_ONE}}})", "oldest in the spool"),
                    Query(f"max(passrelay_clock_ahead_seconds{{{_ONE}}})", "clock ahead"),
                ],
                unit=SECONDS,
                steps=[("green", None), ("red", 900)],
                runbooks=["PassrelaySpoolOld", "PassrelayClockOff"],
                none="not known",
                width=8,
                height=6,
            )
        ),
    ]


def _own() -> list[models.Panel]:
    return [
        number(
            About(
                "Source",
                "Down: nothing is captured there: the controller cannot be read, or has not loaded the Windows hook.",
                [Query(f"min(passrelay_source_up{{{_HOST}}})")],
                steps=[("red", None), ("green", 1)],
                words=UP,
                runbooks=["PassrelaySourceDown"],
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Since the last capture",
                "Long on a quiet night; not while people change passwords there.",
                [Query(f"time() - max(passrelay_last_capture_timestamp_seconds{{{_HOST}}})")],
                unit=SECONDS,
                steps=NEUTRAL,
                none="none yet",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Room in the spool",
                "What the disk, or max_bytes, leaves. Without room capturing waits; the domain controller does not.",
                [Query(f"min(passrelay_spool_free_bytes{{{_HOST}}})")],
                unit="bytes",
                steps=_ROOM,
                runbooks=["PassrelaySpoolLow"],
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Spool in use",
                "Bytes; published changes are kept for [spool] retention_hours, for a lost broker.",
                [Query(f"max(passrelay_spool_bytes{{{_HOST}}})")],
                unit="bytes",
                steps=NEUTRAL,
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Oldest not published",
                "Age of the oldest change that the broker does not take.",
                [Query(f"max(passrelay_spool_oldest_seconds{{{_HOST}}})")],
                unit=SECONDS,
                steps=_OLD,
                words={"0": ("none waits", "green")},
                runbooks=["PassrelaySpoolOld"],
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Cannot be captured",
                "Accounts, or records of the Windows hook, whose password cannot be captured now.",
                [Query(f"sum(passrelay_capture_pending{{{_HOST}}})")],
                steps=NONE_IS_BETTER,
                runbooks=["PassrelayCapturePending"],
                width=4,
                height=4,
            )
        ),
        lines(
            About(
                "Changes per minute",
                "By stage and outcome.",
                [
                    Query(
                        f"60 * sum by (stage, outcome) (rate(passrelay_events_total{{{_HOST}}}[$__rate_interval])) > 0",
                        "{{stage}}: {{outcome}}",
                    )
                ],
                unit=PER_MINUTE,
                none="no change",
                width=8,
                height=7,
            ),
            bars=True,
        ),
        lines(
            About(
                "Events in the spool",
                "By state and by the consumers' key that they are sealed to: after a key's rotation the old one must "
                "come to an end before it is retired.",
                [
                    Query(
                        f"sum by (state, recipient_key_id) (passrelay_spool_events{{{_HOST}}})",
                        "{{state}} {{recipient_key_id}}",
                    )
                ],
                pages=["keys"],
                width=8,
                height=7,
            ),
            stacked=True,
        ),
        lines(
            About(
                "Time to seal and to spool a page",
                "A page holds the changes that came together; spooling ends with the disk's own confirmation.",
                [
                    *_named("seal", quantiles("passrelay_stage_seconds", f'{{{_HOST}, stage="seal"}}')[1:2]),
                    *_named("spool", quantiles("passrelay_stage_seconds", f'{{{_HOST}, stage="spool"}}')[1:2]),
                ],
                unit=SECONDS,
                none="no change",
                width=8,
                height=7,
            )
        ),
    ]


def _named(stage: str, queries: list[Query]) -> list[Query]:
    return [Query(query.promql, f"{stage}, {query.legend}") for query in queries]
