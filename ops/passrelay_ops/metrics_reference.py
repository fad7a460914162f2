"""docs/metrics.md, written from what the services register so that it cannot lie.

`python -m passrelay_ops.metrics_reference docs/metrics.md` writes it; it is committed, and a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_ops.watch.metrics import WatchMetrics
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.spool import Spool
from passrelay_schemas.metrics import Family
from passrelay_schemas.source_settings import SpoolSettings

_HEAD = """\
# Metrics, health and alerts

Each service shows Prometheus metrics at `http://ADDRESS:PORT/metrics` once `[metrics] listen` is set. The page has no
login and no TLS: keep it on loopback or a monitoring network. It holds no account, no password and no secret.

| Service | Where it runs | What it alone knows |
|---|---|---|
| `passrelay producer run` | each domain controller | its source and its spool |
| `passrelay consumer run` | near IdM, any number | IdM's servers, outcomes, why nothing is consumed |
| `passrelay watch` | an operator's host; more than one may run | dead letters, queues, which producer is silent |

`passrelay watch` needs the broker's read permission on `^passrelay\\.(dead|news)$` and no private key
([ADR 16](adr/0016-watch.md)). RabbitMQ 4.2.7, 4.3.1 and later tell a queue's depth only to who has some permission on
it: there read on `^passrelay\\.(dead|news|events|retry\\..*)$`.

## Health

Beside the metrics, `/healthz` and `/readyz` answer 200 and `ok`, or 503 and one line for each thing that is wrong. They
ask no server, so they answer at once.

| Service | `/healthz`: it does its work, else restart it | `/readyz`: it can do its main job now |
|---|---|---|
| producer | every thread runs, main loop and broker session turn | the source can be read, the spool takes events |
| consumer | the same, and no worker hangs on one event | broker connected, an IdM server passes its probe, not paused |
| watch | its loop turns | its last look at the broker is younger than 2 minutes |

A producer without the broker is ready: it captures, and nothing is lost; `PassrelayBrokerUnreachable` tells. A restart
repairs nothing that only `/readyz` complains about, so tie restarts to `/healthz` alone.

## Alerts

[ops/prometheus/passrelay.rules.yml](../ops/prometheus/passrelay.rules.yml) holds the rules; each links to its page in
[runbooks](runbooks). Name the scrape jobs `passrelay-producer`, `passrelay-consumer` and `passrelay-watch`, as the
sample [ops/prometheus/prometheus.yml](../ops/prometheus/prometheus.yml) does, and scrape every domain controller.

Alerts reach nobody until Prometheus has an Alertmanager (the sample's `alerting:`) with a receiver, and passrelay ships
neither. Until then they stand on Prometheus's page Alerts and in Overview.

## Every metric

Counters and histograms begin at nothing with each start of a process. Histograms are in seconds. This page is
generated from the services' registries (`python -m passrelay_ops.metrics_reference docs/metrics.md`).
"""
_VALUES = """
## What `stage`, `outcome` and `reason` say

| Stage | Outcomes |
|---|---|
| `capture` | `captured`; `refused`, `pending`, `excluded` with their reason |
| `publish` | `published`; `returned` (no queue is bound), `refused` (the broker's nack): both are tried again |
| `consume` | `applied`, `duplicate`, `superseded`, `retry`, `dead`: as in the journal, with its reason |
| `settle` | rounds of copies that look whether every server has a write; `unsettled`: it takes too long |

Stages of `passrelay_stage_seconds`: `seal`, `spool` (one page of changes each), `handle` (one event on a worker).
"""


def families() -> dict[str, list[Family]]:
    """By service, all that can stand on its page."""
    with TemporaryDirectory() as folder, Spool(SpoolSettings(path=Path(folder) / "spool.sqlite")) as spool:
        producer = ProducerMetrics(spool)
    producer.watch(source=bool, broker=bool)
    consumer = ConsumerMetrics()
    consumer.watch(broker=bool)
    watch = WatchMetrics(lambda: None)
    return {"producer": producer.families, "consumer": consumer.families, "watch": watch.families}


def page() -> str:
    """The whole page."""
    return _HEAD + "\n" + "\n".join(_table(families())) + "\n" + _VALUES


def _table(found: Mapping[str, Sequence[Family]]) -> list[str]:
    services: dict[Family, list[str]] = {}
    for service, several in found.items():
        for family in several:
            services.setdefault(family, []).append(service)
    lines = ["| Metric | Kind | Labels | Meaning | Shown by |", "|---|---|---|---|---|"]
    for family in sorted(services, key=lambda one: one.name):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        cells = (f"`{family.name}`", family.kind, labels, family.meaning, ", ".join(services[family]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(path: Path) -> None:
    """Write the page."""
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
