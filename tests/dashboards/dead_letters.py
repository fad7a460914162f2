"""Dead letters: what waits for a person, why, and what is on its way there."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.board import DEAD_LETTERS, Board, Row
from tests.dashboards.panels import (
    NEUTRAL,
    NONE_IS_BETTER,
    NONE_IS_GOOD,
    PER_MINUTE,
    About,
    Column,
    Query,
    lines,
    number,
    rows,
)
from tests.dashboards.pipeline import per_minute

_LETTERS = "max by (reason) (passrelay_dead_letters)"
_REVOKED = (
    'sum(increase(passrelay_events_total{stage="consume", outcome="dead", reason="revoked"}[$__range]))'
    ' + (sum(increase(passrelay_news_refused_total{reason="revoked"}[$__range])) or vector(0))'
)


def board() -> Board:
    """What a person has to decide."""
    return Board(
        DEAD_LETTERS,
        "Dead letters",
        "Changes that could not be carried. `passrelay dead list` names the users and each repair; "
        "`passrelay dead replay` sends them again.",
        [Row("What waits for a person", _now()), Row("How it comes", _history())],
    )


def _now() -> list[models.Panel]:
    return [
        number(
            About(
                "To be decided",
                "Letters that wait for a person, without those of users who are not in IdM.",
                [Query('sum(max by (reason) (passrelay_dead_letters{reason!="user_missing"}))')],
                steps=NONE_IS_BETTER,
                runbooks=["PassrelayDeadLetters", "dead-letters"],
                none="not known",
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "Users not in IdM",
                "Letters of users who had no entry in IdM for a day. They raise no alert: AD may have more users.",
                [Query('max(passrelay_dead_letters{reason="user_missing"})')],
                steps=NEUTRAL,
                runbooks=["dead-letters"],
                none="not known",
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "Lost within 14 days",
                "Letters that the stream drops soon, with their passwords; without those of users who are not in IdM.",
                [Query('sum(max by (reason) (passrelay_dead_letters_expiring{reason!="user_missing"}))')],
                steps=NONE_IS_BETTER,
                runbooks=["PassrelayDeadLettersExpire"],
                none="not known",
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "Signed with a revoked key",
                "Events and news within the chosen time: somebody has a key that he must not have.",
                [Query(_REVOKED)],
                steps=NONE_IS_GOOD,
                decimals=0,
                runbooks=["PassrelayRevokedKeyUsed", "stolen-producer-key"],
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "Consumers on the brake",
                "A consumer stops after many dead letters of one reason in a row: that is a fault of the set-up.",
                [Query('sum(passrelay_consumer_paused{reason="brake"}) or 0 * count(passrelay_directory_up)')],
                steps=NONE_IS_GOOD,
                words={"0": ("none", "green")},
                runbooks=["PassrelayConsumerBrake"],
                none="not known",
                width=4,
                height=4,
            )
        ),
        rows(
            About(
                "By reason",
                "What waits, the most on top. `passrelay dead show` says the repair of each.",
                [Query(f"{_LETTERS} > 0"), Query("max by (reason) (passrelay_dead_letters_expiring) > 0")],
                runbooks=["dead-letters"],
                none="No letter waits",
                width=8,
            ),
            [
                Column("reason", "Reason"),
                Column("Value #A", "Letters", steps=[("text", None)]),
                Column("Value #B", "Lost within 14 days", steps=[("orange", None)]),
            ],
            sort_by="Letters",
        ),
        lines(
            About(
                "Letters by reason",
                "How many waited; replaying and discarding takes them away.",
                [Query(f"{_LETTERS} > 0", "{{reason}}")],
                runbooks=["PassrelayDeadLetters"],
                none="No letter waits",
                width=16,
            ),
            stacked=True,
        ),
    ]


def _history() -> list[models.Panel]:
    return [
        lines(
            About(
                "Died, by reason",
                "Changes a minute that became dead letters.",
                [Query(per_minute('stage="consume", outcome="dead"', "reason") + " > 0", "{{reason}}")],
                unit=PER_MINUTE,
                runbooks=["PassrelayDeadLetters", "PassrelayConsumerBrake"],
                none="none died",
                width=8,
            ),
            bars=True,
        ),
        lines(
            About(
                "Tried again, by reason",
                "Tries a minute that wait in a tier; after [idm] horizon_hours they die.",
                [Query(per_minute('stage="consume", outcome="retry"', "reason") + " > 0", "{{reason}}")],
                unit=PER_MINUTE,
                runbooks=["PassrelayRetriesGrow"],
                none="nothing was tried again",
                width=8,
            ),
            bars=True,
        ),
        lines(
            About(
                "News that were not believed",
                "Messages a minute in the news stream without a good signature of an enrolled producer.",
                [
                    Query(
                        "60 * sum by (reason) (rate(passrelay_news_refused_total[$__rate_interval])) > 0", "{{reason}}"
                    )
                ],
                unit=PER_MINUTE,
                runbooks=["PassrelayRevokedKeyUsed"],
                none="all were believed",
                width=8,
            ),
            bars=True,
        ),
    ]
