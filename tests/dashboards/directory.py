"""Directory: every IdM server as the consumers' probes find it, and how quickly it takes writes."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.board import DIRECTORY, Board, Choice, Row
from tests.dashboards.panels import (
    NEUTRAL,
    NONE_IS_BETTER,
    NONE_IS_GOOD,
    PER_MINUTE,
    SECONDS,
    UP,
    About,
    Query,
    lines,
    number,
    states,
)
from tests.dashboards.pipeline import per_minute, quantiles

_ONE = 'server=~"$server"'
_CLOCK = [("orange", None), ("green", -60), ("orange", 60)]


def board() -> Board:
    """One row for each server."""
    return Board(
        DIRECTORY,
        "Directory",
        "Every IdM server: does it take writes, which check of its probe fails, how quick it is.",
        [
            Row("All IdM servers", _all()),
            Row("IdM server $server", _one(), repeat="server"),
        ],
        [Choice("server", "IdM server", "label_values(passrelay_directory_up, server)")],
    )


def _all() -> list[models.Panel]:
    return [
        number(
            About(
                "Servers down",
                "Servers that no consumer can write to. With one good server left, changes arrive.",
                [Query("sum(1 - max by (server) (passrelay_directory_up))")],
                steps=NONE_IS_BETTER,
                words={"0": ("none", "green")},
                runbooks=["PassrelayDirectoryDown"],
                none="not known",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Consumers paused",
                "Consumers that take nothing because no server passes their probe.",
                [Query('sum(passrelay_consumer_paused{reason="directory"}) or 0 * count(passrelay_directory_up)')],
                steps=NONE_IS_GOOD,
                words={"0": ("none", "green")},
                runbooks=["PassrelayConsumerPaused"],
                none="not known",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Since the last write",
                "Long on a quiet night; not while changes are on the way.",
                [Query("time() - max(passrelay_last_apply_timestamp_seconds > 0)")],
                unit=SECONDS,
                steps=NEUTRAL,
                runbooks=["PassrelayNoApply"],
                none="none yet",
                width=4,
                height=4,
            )
        ),
        states(
            About(
                "Takes writes",
                "Each server as each consumer finds it. All consumers write to the first good one of [idm] servers.",
                [Query("passrelay_directory_up", "{{server}} from {{instance}}")],
                steps=[("red", None), ("green", 1)],
                words=UP,
                runbooks=["PassrelayDirectoryDown"],
                width=12,
                height=4,
            )
        ),
        lines(
            About(
                "Written per minute",
                "Passwords written to IdM.",
                [Query(per_minute('stage="consume", outcome="applied"', "instance"), "{{instance}}")],
                unit=PER_MINUTE,
                width=12,
            ),
            stacked=True,
        ),
        lines(
            About(
                "Time for one event on a worker",
                "From its delivery to its verdict: opening, finding the entry, writing, looking at it. Nearly all of "
                "it is the directory's.",
                quantiles("passrelay_stage_seconds", '{stage="handle"}'),
                unit=SECONDS,
                steps=[("green", None), ("orange", 1)],
                none="no event",
                width=12,
            )
        ),
    ]


def _one() -> list[models.Panel]:
    return [
        states(
            About(
                "Checks of the probe",
                "Every minute, and after trouble, each consumer connects, binds, writes the disabled probe entry and "
                "looks whether IdM would expire what passrelay writes. A check that was not reached counts as failed.",
                [
                    Query(
                        f"min by (check, instance) (passrelay_directory_probe{{{_ONE}}})", "{{check}} from {{instance}}"
                    )
                ],
                steps=[("red", None), ("green", 1)],
                words={"0": ("failed", "red"), "1": ("passed", "green")},
                runbooks=["PassrelayDirectoryDown", "PassrelayDirectoryExpiresPasswords"],
                width=16,
            )
        ),
        lines(
            About(
                "Clock ahead of the consumers'",
                "Order needs no clock; expiry times and the first write to an entry do.",
                [Query(f"passrelay_clock_offset_seconds{{{_ONE}}}", "from {{instance}}")],
                unit=SECONDS,
                steps=_CLOCK,
                runbooks=["PassrelayClockOff"],
                width=8,
            )
        ),
    ]
