"""The command: interleaved runs, medians, ratios with their bars."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from passrelay_ops.report import Report
from tests.bench.end_to_end import EndToEnd
from tests.bench.limit import limit
from tests.lab.lab import Lab

_CORES = sorted(os.sched_getaffinity(0))
_CONNECTIONS = (1, 8)
_SCHEMES: dict[str, tuple[str | None, float]] = {"default": (None, 0.95), "cheap": ("SSHA512", 0.5)}
"""The server's default (PBKDF2) and a cheap one, each with its bar for relay / limit when the directory has a core."""


def main(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document as the last line of stdout.")] = False,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each kind; the median counts.")] = 5,
    users: Annotated[int, typer.Option(min=10, help="Writes in each run, one for each user.")] = 600,
) -> None:
    """Measure the directory's own limit and passrelay end to end; exit 1 when a bar is not met."""
    report = Report("bench", as_json=as_json)
    with report:
        results: dict[str, list[float]] = defaultdict(list)
        for name, (scheme, _) in _SCHEMES.items():
            _measure(report, name, scheme, runs=runs, users=users, results=results)
        medians = {name: statistics.median(values) for name, values in results.items()}
        report["results"] = [
            {"id": name, "unit": "per_second", "median": round(medians[name], 1), "runs": [round(v, 1) for v in values]}
            for name, values in results.items()
        ]
        ratios = []
        for name, (_, bar) in _SCHEMES.items():
            for connections in _CONNECTIONS:
                value = medians[f"relay.{name}.{connections}"] / medians[f"limit.{name}.{connections}"]
                ratios.append(
                    {"id": f"{name}.{connections}", "value": round(value, 3), "bar": bar, "met": value >= bar}
                )
                if value < bar:
                    report.fail("bar", f"{name}.{connections}", f"relay / limit is {value:.3f}, the bar is {bar}")
        report["ratios"] = ratios
        report.say(_table(medians, ratios))


def _measure(
    report: Report, name: str, scheme: str | None, *, runs: int, users: int, results: dict[str, list[float]]
) -> None:
    with Lab(samba=False, storage_scheme=scheme) as lab:
        report.servers.update(lab.versions)
        _pin(lab)
        names = [f"bench{number}" for number in range(users)]
        lab.directory.add_users(names)
        end_to_end = EndToEnd(lab.relay, names)
        for run in range(runs):
            for connections in _CONNECTIONS:
                alone = limit(lab.directory, names, connections=connections)
                relayed = end_to_end.run(connections=connections)
                results[f"limit.{name}.{connections}"].append(alone)
                results[f"relay.{name}.{connections}"].append(relayed)
                report.progress(
                    f"bench: {name} scheme, {connections} connections, run {run + 1}/{runs}: "
                    f"limit {alone:.0f}/s, relay {relayed:.0f}/s"
                )


def _pin(lab: Lab) -> None:
    """The directory on one core and all else on the others, as it would be on its own machine."""
    if len(_CORES) > 1:
        _keep_on(lab.directory.pid, _CORES[:1])
        for process in (os.getpid(), *lab.broker.pids):
            _keep_on(process, _CORES[1:])


def _keep_on(process: int, cores: list[int]) -> None:
    for task in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def _table(medians: dict[str, float], ratios: list[dict[str, object]]) -> Table:
    table = Table(title="writes per second, medians; the directory has a core of its own")
    for column in ("scheme.connections", "limit", "relay", "relay / limit", "bar"):
        table.add_column(column)
    for ratio in ratios:
        name = str(ratio["id"])
        table.add_row(
            name,
            f"{medians[f'limit.{name}']:.0f}",
            f"{medians[f'relay.{name}']:.0f}",
            str(ratio["value"]),
            str(ratio["bar"]),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
