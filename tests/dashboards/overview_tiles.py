"""Overview's tiles: one number each, in the order in which somebody asks at night."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.board import DEAD_LETTERS, DIRECTORY, PIPELINE, PRODUCERS
from tests.dashboards.panels import NEUTRAL, NONE_IS_BETTER, NONE_IS_GOOD, SECONDS, About, Query, number

FIRING = 'ALERTS{alertname=~"Passrelay.+", alertstate="firing"}'
SPOOLS = "(sum(max by (producer) (passrelay_producer_queued)) or vector(0))"
_DIED = 'stage="consume", outcome="dead", reason!="user_missing"'
TIERS = "sum(max by (tier) (passrelay_retry_messages))"
# What each producer's own news say of it, and 0 for a silent one; one that does not tell is left out. One watcher or
# several say the same.
_CARRIES = """(
  max by (producer) (passrelay_producer_source_up) or max by (producer) (passrelay_producer_up) == 0
)"""
_ALL_KNOWN = f"count{_CARRIES} == count(count by (producer) (passrelay_producer_up))"
# The first line that there is counts. A `yes` needs to know that each link is good: whatever nobody tells is not.
_ARRIVES = f"""\
max(passrelay_work_consumers) == 0
or max(passrelay_directory_up) == 0
or max{_CARRIES} == 0 and {_ALL_KNOWN}
or 1 + (min{_CARRIES} == 0)
or 2 * (max(passrelay_work_consumers) > bool 0 and max(passrelay_directory_up) == 1 and {_ALL_KNOWN})
or vector(-1)"""


def chain() -> list[models.Panel]:
    """Whether a password change arrives: each link of the chain."""
    return [
        number(
            About(
                "A change arrives in IdM",
                "From each link of the chain: producers are heard and can read their domain controllers, a consumer "
                "takes events, an IdM server takes writes. Not known: nobody tells one of these.",
                [Query(_ARRIVES)],
                steps=[("purple", None), ("red", 0), ("orange", 1), ("green", 2)],
                words={
                    "-1": ("not known", "purple"),
                    "0": ("NO", "red"),
                    "1": ("not from every DC", "orange"),
                    "2": ("yes", "green"),
                },
                runbooks=["PassrelayNoApply", "PassrelaySourceDown", "PassrelayWatchMissing"],
                leads_to=PIPELINE,
                width=8,
                height=4,
            )
        ),
        number(
            About(
                "Domain controllers",
                "Producers whose signed news are older than 5 minutes: what is changed there is not carried.",
                [Query("sum(1 - max by (producer) (passrelay_producer_up))")],
                unit="suffix:silent",
                steps=NONE_IS_GOOD,
                words={"0": ("all heard", "green")},
                runbooks=["PassrelayProducerSilent"],
                leads_to=PRODUCERS,
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Broker",
                "Producers, consumers and watchers without a connection to RabbitMQ.",
                [Query("sum(1 - passrelay_broker_up)")],
                unit="suffix:cut off",
                steps=NONE_IS_GOOD,
                words={"0": ("reached by all", "green")},
                runbooks=["PassrelayBrokerUnreachable"],
                leads_to=PIPELINE,
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Consumers",
                "Consumers that take events. A paused one takes none.",
                [Query("max(passrelay_work_consumers)")],
                unit="suffix:at work",
                steps=[("red", None), ("green", 1)],
                words={"0": ("none", "red")},
                runbooks=["PassrelayNoConsumer", "PassrelayConsumerPaused"],
                leads_to=PIPELINE,
                none="not known",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "IdM servers",
                "IdM servers that no consumer can write to. With one good server left, changes arrive.",
                [Query("sum(1 - max by (server) (passrelay_directory_up))")],
                unit="suffix:down",
                steps=NONE_IS_BETTER,
                words={"0": ("all take writes", "green")},
                runbooks=["PassrelayDirectoryDown", "PassrelayDirectoryExpiresPasswords"],
                leads_to=DIRECTORY,
                none="not known",
                width=4,
                height=4,
            )
        ),
    ]


def behind() -> list[models.Panel]:
    """How far IdM is behind."""
    return [
        number(
            About(
                "Changes on the way",
                "In the spools of living producers and in the work queue: what the services have to carry now.",
                [Query(f"{SPOOLS} + max(passrelay_work_messages)")],
                steps=[("green", None), ("orange", 100), ("red", 1000)],
                runbooks=["PassrelaySpoolOld", "PassrelayNoConsumer", "PassrelayWatchMissing"],
                leads_to=PIPELINE,
                none="not known",
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "To be tried again",
                "Events in the retry queues, for up to a day: mostly users who are not in IdM (yet). Copies that look "
                "again at every IdM server are among them.",
                [Query(TIERS)],
                steps=NEUTRAL,
                runbooks=["PassrelayRetriesGrow"],
                leads_to=PIPELINE,
                none="not known",
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "Oldest in a spool",
                "Age of the oldest change that a domain controller keeps because the broker does not take it.",
                [Query("max(passrelay_spool_oldest_seconds or passrelay_producer_oldest_seconds)")],
                unit=SECONDS,
                steps=[("green", None), ("orange", 60), ("red", 900)],
                words={"0": ("none waits", "green")},
                runbooks=["PassrelaySpoolOld"],
                leads_to=PRODUCERS,
                width=5,
                height=4,
            )
        ),
        number(
            About(
                "From AD to IdM",
                "95 of 100 changes of the last 15 minutes took no longer, as the two clocks have it.",
                [Query("histogram_quantile(0.95, sum by (le) (rate(passrelay_end_to_end_seconds_bucket[15m]))) >= 0")],
                unit=SECONDS,
                steps=[("green", None), ("orange", 60), ("red", 900)],
                leads_to=PIPELINE,
                none="no change",
                width=5,
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
                leads_to=DIRECTORY,
                none="none yet",
                width=4,
                height=4,
            )
        ),
    ]


def failed() -> list[models.Panel]:
    """What failed, or soon will."""
    return [
        number(
            About(
                "Alerts",
                "Alerts of passrelay that fire now; the table below says what to do.",
                [Query(f"count({FIRING}) or vector(0)")],
                steps=NONE_IS_GOOD,
                runbooks=["PassrelayTargetDown"],
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Dead letters",
                "Changes that wait for a person, without those of users who are not in IdM.",
                [Query('sum(max by (reason) (passrelay_dead_letters{reason!="user_missing"}))')],
                steps=NONE_IS_BETTER,
                runbooks=["PassrelayDeadLetters"],
                leads_to=DEAD_LETTERS,
                none="not known",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Lost within 14 days",
                "Dead letters that the stream drops in less than 14 days, with their passwords; without those of "
                "users who are not in IdM.",
                [Query('sum(max by (reason) (passrelay_dead_letters_expiring{reason!="user_missing"}))')],
                steps=NONE_IS_BETTER,
                runbooks=["PassrelayDeadLettersExpire"],
                leads_to=DEAD_LETTERS,
                none="not known",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Died in this time",
                "Changes that became dead letters within the chosen time, without those of users who are not in IdM.",
                [Query(f"sum(increase(passrelay_events_total{{{_DIED}}}[$__range]))")],
                steps=NONE_IS_BETTER,
                decimals=0,
                runbooks=["PassrelayConsumerBrake"],
                leads_to=DEAD_LETTERS,
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Cannot be captured",
                "Accounts, or records of the Windows hook, whose password a living producer cannot capture.",
                [Query("sum(max by (producer) (passrelay_producer_pending))")],
                steps=NONE_IS_BETTER,
                runbooks=["PassrelayCapturePending"],
                leads_to=PRODUCERS,
                none="not known",
                width=4,
                height=4,
            )
        ),
        number(
            About(
                "Next expiry",
                "In how long the first of all keys in use and of all hosts' certificate files expires.",
                [
                    Query(
                        "min(passrelay_key_expiry_timestamp_seconds or passrelay_certificate_expiry_timestamp_seconds)"
                        " - time()"
                    )
                ],
                unit=SECONDS,
                steps=[("red", None), ("orange", 14 * 86400), ("green", 30 * 86400)],
                runbooks=["PassrelayKeyExpires", "PassrelayCertificateExpires"],
                leads_to=PIPELINE,
                width=4,
                height=4,
            )
        ),
    ]
