"""Pipeline: each stage of a change's way, what holds it up, and the services and the broker that carry it."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.board import PIPELINE, Board, Row
from tests.dashboards.panels import (
    NEUTRAL,
    NONE_IS_GOOD,
    PER_MINUTE,
    SECONDS,
    UP,
    About,
    Column,
    Query,
    lines,
    number,
    rows,
    states,
)

_EXPIRY = [("red", None), ("orange", 14 * 86400), ("green", 30 * 86400)]


def board() -> Board:
    """The way of the changes."""
    return Board(
        PIPELINE,
        "Pipeline",
        "Where changes are on their way from Active Directory to IdM, and what holds them up.",
        [
            Row("Flow", _flow()),
            Row("What does not get through", _trouble()),
            Row("Consumers", _consumers()),
            Row("Broker", _broker()),
            Row("Services, keys and certificates", _services()),
        ],
    )


def per_minute(matchers: str, by: str) -> str:
    """Events a minute."""
    return f"60 * sum by ({by}) (rate(passrelay_events_total{{{matchers}}}[$__rate_interval]))"


def quantiles(histogram: str, matchers: str = "") -> list[Query]:
    """Of 100, so many took no longer."""
    buckets = f"sum by (le) (rate({histogram}_bucket{matchers}[$__rate_interval]))"
    return [
        Query(f"histogram_quantile({quantile}, {buckets})", name)
        for quantile, name in ((0.5, "50 of 100"), (0.95, "95 of 100"), (0.99, "99 of 100"))
    ]


def _flow() -> list[models.Panel]:
    return [
        lines(
            About(
                "Captured and published",
                "Changes a minute that were put into spools, and that the broker confirmed.",
                [
                    Query(per_minute('stage="capture", outcome="captured"', "outcome"), "{{outcome}}"),
                    Query(per_minute('stage="publish", outcome="published"', "outcome"), "{{outcome}}"),
                ],
                unit=PER_MINUTE,
                runbooks=["PassrelayNoApply"],
                width=12,
            )
        ),
        lines(
            About(
                "Outcomes at the consumers",
                "Changes a minute by outcome. Duplicate and superseded changed nothing, because IdM has the same or a "
                "newer password; retry comes again.",
                [Query(per_minute('stage="consume"', "outcome"), "{{outcome}}")],
                unit=PER_MINUTE,
                runbooks=["PassrelayNoApply", "dead-letters"],
                width=12,
            ),
            stacked=True,
        ),
        lines(
            About(
                "From AD to IdM",
                "How long changes took, as the two clocks have it; what was tried again is in it.",
                quantiles("passrelay_end_to_end_seconds"),
                unit=SECONDS,
                steps=[("green", None), ("red", 900)],
                width=12,
            )
        ),
        lines(
            About(
                "Where changes wait",
                "Spools of living producers, the work queue, and each tier of the retry queues (copies that look "
                "again at every IdM server included).",
                [
                    Query("sum(max by (producer) (passrelay_producer_queued))", "spools"),
                    Query("max(passrelay_work_messages)", "work queue"),
                    Query("max by (tier) (passrelay_retry_messages)", "retry in {{tier}}"),
                ],
                runbooks=["PassrelayRetriesGrow", "PassrelaySpoolOld"],
                width=12,
            ),
            stacked=True,
        ),
    ]


def _trouble() -> list[models.Panel]:
    return [
        lines(
            About(
                "Not captured",
                "Changes a minute that were left out: by a filter (excluded), because they cannot be an event "
                "(refused), or because the password cannot be read yet (pending).",
                [
                    Query(
                        per_minute('stage="capture", outcome!="captured"', "outcome, reason") + " > 0",
                        "{{outcome}} {{reason}}",
                    )
                ],
                unit=PER_MINUTE,
                runbooks=["PassrelayCapturePending"],
                none="nothing was left out",
                width=12,
            ),
            bars=True,
        ),
        lines(
            About(
                "Not published",
                "Publishes a minute that failed and are tried again. Returned: no queue is bound to the exchange. "
                "Refused: the queue is full or has no majority.",
                [Query(per_minute('stage="publish", outcome!="published"', "outcome"), "{{outcome}}")],
                unit=PER_MINUTE,
                runbooks=["PassrelaySpoolOld"],
                width=12,
            ),
            bars=True,
        ),
        lines(
            About(
                "Tried again, by reason",
                "Tries a minute that ended in a retry tier: entry trouble that a person or a late key heals.",
                [Query(per_minute('stage="consume", outcome="retry"', "reason") + " > 0", "{{reason}}")],
                unit=PER_MINUTE,
                runbooks=["PassrelayRetriesGrow", "dead-letters"],
                none="nothing was tried again",
                width=12,
            ),
            bars=True,
        ),
        lines(
            About(
                "Looked at again on every IdM server",
                "With several IdM servers each write is looked at until all of them show it. Unsettled: that takes "
                "longer than replication explains.",
                [Query(per_minute('stage="settle"', "outcome"), "{{outcome}}")],
                unit=PER_MINUTE,
                runbooks=["PassrelaySettleWaits"],
                width=12,
            ),
            bars=True,
        ),
    ]


def _consumers() -> list[models.Panel]:
    return [
        number(
            About(
                "Consumers at work",
                "Consumers that take events from the broker. A paused one takes none.",
                [Query("max(passrelay_work_consumers)")],
                steps=[("red", None), ("green", 1)],
                runbooks=["PassrelayNoConsumer"],
                none="not known",
                width=4,
            )
        ),
        states(
            About(
                "Paused",
                "Consumers that take nothing, with the reason: directory (no IdM server passes its probe), broker, "
                "or brake (many dead letters of one reason in a row).",
                [Query("max by (instance, reason) (passrelay_consumer_paused)", "{{instance}} {{reason}}")],
                steps=[("green", None), ("red", 1)],
                words={"0": ("at work", "green"), "1": ("paused", "red")},
                runbooks=["PassrelayConsumerPaused", "PassrelayConsumerBrake"],
                none="none was paused",
                width=10,
            )
        ),
        lines(
            About(
                "Handled, by consumer",
                "Deliveries a minute on each consumer's workers.",
                [
                    Query(
                        "60 * sum by (instance)"
                        ' (rate(passrelay_stage_seconds_count{stage="handle"}[$__rate_interval]))',
                        "{{instance}}",
                    )
                ],
                unit=PER_MINUTE,
                width=10,
            ),
            stacked=True,
        ),
    ]


def _broker() -> list[models.Panel]:
    return [
        states(
            About(
                "Connected to the broker",
                "Each service's own connection. Without it a producer spools, a consumer waits, a watcher shows "
                "nothing.",
                [Query("passrelay_broker_up", "{{job}} {{instance}}")],
                steps=[("red", None), ("green", 1)],
                words=UP,
                runbooks=["PassrelayBrokerUnreachable"],
                width=12,
            )
        ),
        number(
            About(
                "RabbitMQ's alarms",
                "Memory and disk alarms of all nodes: while one is on, RabbitMQ takes no publishes at all.",
                [Query("sum(rabbitmq_alarms_memory_used_watermark) + sum(rabbitmq_alarms_free_disk_space_watermark)")],
                steps=NONE_IS_GOOD,
                words={"0": ("none", "green")},
                runbooks=["PassrelaySpoolOld"],
                none="not scraped",
                width=4,
            )
        ),
        lines(
            About(
                "RabbitMQ's disk and memory",
                "Free disk above the limit at which RabbitMQ blocks publishers, and memory in use, on each node.",
                [
                    Query(
                        "sum by (instance) (rabbitmq_disk_space_available_bytes)"
                        " - sum by (instance) (rabbitmq_disk_space_available_limit_bytes)",
                        "disk left {{instance}}",
                    ),
                    Query("sum by (instance) (rabbitmq_process_resident_memory_bytes)", "memory used {{instance}}"),
                ],
                unit="bytes",
                none="not scraped",
                width=8,
            )
        ),
    ]


def _services() -> list[models.Panel]:
    return [
        states(
            About(
                "Seen by Prometheus",
                "Whether each service's metrics page answers.",
                [Query('up{job=~"passrelay-.+"}', "{{job}} {{instance}}")],
                steps=[("red", None), ("green", 1)],
                words=UP,
                runbooks=["PassrelayTargetDown", "PassrelayWatchMissing"],
                width=8,
            )
        ),
        rows(
            About(
                "Keys and certificates",
                "When each key in use and each certificate file expires, the first on top.",
                [
                    Query(
                        "min by (key_id, name, instance) ("
                        "passrelay_certificate_expiry_timestamp_seconds or passrelay_key_expiry_timestamp_seconds"
                        ") - time()"
                    )
                ],
                unit=SECONDS,
                steps=_EXPIRY,
                runbooks=["PassrelayKeyExpires", "PassrelayCertificateExpires"],
                width=9,
            ),
            [
                Column("Value", "Expires in", unit=SECONDS, steps=_EXPIRY),
                Column("key_id", "Key"),
                Column("name", "File"),
                Column("instance", "Instance"),
            ],
            sort_by="Expires in",
            rising=True,
        ),
        rows(
            About(
                "Versions",
                "What runs where. Update consumers first, then producers.",
                [Query("max by (job, instance, version) (passrelay_build_info)")],
                steps=NEUTRAL,
                pages=["upgrade"],
                width=7,
            ),
            [
                Column("version", "Version"),
                Column("job", "Service"),
                Column("instance", "Instance"),
            ],
        ),
    ]
