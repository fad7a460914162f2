"""Overview: does a password change arrive, how far behind is it, what failed, and what to look at next."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.board import OVERVIEW, Board, Row
from tests.dashboards.overview_tiles import FIRING, SPOOLS, TIERS, behind, chain, failed
from tests.dashboards.panels import (
    NEUTRAL,
    PER_MINUTE,
    SECONDS,
    About,
    Column,
    Query,
    lines,
    rows,
    states,
)

_WHERE = "alertname, severity, job, instance, producer, server, reason, key_id, name"
_SINCE = f"""\
time() - (
  max by ({_WHERE}) (ALERTS_FOR_STATE{{alertname=~"Passrelay.+"}})
  and max by ({_WHERE}) ({FIRING})
)"""


def board() -> Board:
    """The dashboard to begin with."""
    return Board(
        OVERVIEW,
        "Overview",
        "Does a password change arrive? How far behind is it? What failed? Click a tile for what is behind it.",
        [
            Row("Does a password change arrive?", chain()),
            Row("How far behind?", behind()),
            Row("What failed?", failed()),
            Row("What to do", [_alerts()]),
            Row("How it came about", _history()),
        ],
    )


def _alerts() -> models.Panel:
    return rows(
        About(
            "Alerts that fire",
            "Click an alert's name for its page: what it means, how to confirm it, the repair, when to ignore it.",
            [Query(_SINCE)],
            unit=SECONDS,
            steps=NEUTRAL,
            none="No alert fires",
            height=6,
        ),
        [
            Column("alertname", "Alert", names_runbook=True),
            Column("severity", "Severity", words={"critical": ("critical", "red"), "warning": ("warning", "orange")}),
            Column("Value", "For", unit=SECONDS),
            Column("producer", "Producer"),
            Column("server", "IdM server"),
            Column("reason", "Reason"),
            Column("job", "Service"),
            Column("instance", "Instance"),
            Column("key_id", "Key"),
            Column("name", "File"),
        ],
        sort_by="For",
    )


def _history() -> list[models.Panel]:
    def per_minute(stage: str, outcomes: str) -> str:
        events = f'passrelay_events_total{{stage="{stage}", outcome=~"{outcomes}"}}'
        return f"60 * sum(rate({events}[$__rate_interval]))"

    return [
        lines(
            About(
                "Changes per minute",
                "Captured on the domain controllers, published to the broker, ended in IdM (applied, duplicate, "
                "superseded or dead). Where two lines part, changes wait between them.",
                [
                    Query(per_minute("capture", "captured"), "captured"),
                    Query(per_minute("publish", "published"), "published"),
                    Query(per_minute("consume", "applied|duplicate|superseded|dead"), "ended in IdM"),
                ],
                unit=PER_MINUTE,
                runbooks=["PassrelayNoApply"],
                width=12,
            )
        ),
        lines(
            About(
                "Where changes wait",
                "In the producers' spools: the broker does not take them. In the work queue: no consumer takes them, "
                "or they come too fast. To be tried again: a person or a server has to be repaired first.",
                [
                    Query(SPOOLS, "spools"),
                    Query("max(passrelay_work_messages)", "work queue"),
                    Query(TIERS, "to be tried again"),
                ],
                runbooks=["PassrelaySpoolOld", "PassrelayRetriesGrow"],
                width=12,
            ),
            stacked=True,
        ),
        states(
            About(
                "Alerts over time",
                "When each alert fired.",
                [Query(f"max by (alertname) ({FIRING})", "{{alertname}}")],
                steps=[("red", None)],
                words={"1": ("fires", "red")},
                none="No alert fired",
                height=7,
            )
        ),
    ]
