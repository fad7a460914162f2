"""The command: the parts one after the other, medians of their interleaved runs, ratios with their bars."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from passrelay_ops.report import Report
from passrelay_schemas.errors import PassrelayError
from tests.bench.charts import write_charts
from tests.bench.machine import processor
from tests.bench.quantity import written
from tests.bench.run import Run

PARTS = ("relay", "stages", "peers", "latency", "scale")
"""Modules of this package with a function `measure(run)`; `relay` measures the limit too."""


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Only this part, repeatable: {', '.join(PARTS)}.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Runs of each kind, of which the median counts: 5.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, one run, no bar judged: does it work?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document as the last line of stdout.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Folder for charts (SVG).")] = None,
) -> None:
    """Measure passrelay against the directory's own limit and against its peers; exit 1 when a bar is not met."""
    parts = [part for part in PARTS if not only or part in only]
    if unknown := set(only or ()) - set(PARTS):
        raise typer.BadParameter(f"--only {', '.join(sorted(unknown))}: one of {', '.join(PARTS)}")
    with Report("bench", as_json=as_json) as report:
        run = Run(runs or (1 if quick else 5), quick=quick, progress=lambda text: report.progress(f"bench: {text}"))
        report["processor"] = processor()
        report["load_before"] = round(os.getloadavg()[0], 2)
        report["parts"], report["repetitions"], report["quick"] = parts, run.runs, quick
        try:
            for part in parts:
                _measure(part, run, report)
        finally:
            report.servers.update(run.versions)
            report["results"], report["ratios"] = run.results, run.ratios
        if not quick:
            for ratio in run.ratios:
                if not ratio["met"]:
                    report.fail("bar", ratio["id"], f"is {ratio['value']}, the bar is {ratio['bar']}")
        if chart is not None:
            chart.mkdir(parents=True, exist_ok=True)
            for path in write_charts(chart, run.results):
                report.progress(f"bench: {path}")
        report.say(_table(run))


def _measure(part: str, run: Run, report: Report) -> None:
    """One part; what it lacks does not stop the others."""
    try:
        importlib.import_module(f"tests.bench.{part}").measure(run)
    except PassrelayError as error:
        report.fail(part, "", str(error), exit_code=error.exit_code)


def _table(run: Run) -> Table:
    table = Table(title=f"medians of {run.runs}")
    for column in ("id", "median", "least", "most", "ratio", "bar", ""):
        table.add_column(column)
    ratios = {ratio["id"]: ratio for ratio in run.ratios}
    for result in run.results:
        ratio = ratios.pop(result["id"], None)
        values = (result["median"], min(result["runs"]), max(result["runs"]))
        table.add_row(result["id"], *(written(value, result["unit"]) for value in values), *_cells(ratio))
    for ratio in ratios.values():
        table.add_row(ratio["id"], "", "", "", *_cells(ratio))
    return table


def _cells(ratio: dict[str, object] | None) -> tuple[str, str, str]:
    return (str(ratio["value"]), str(ratio["bar"]), "met" if ratio["met"] else "NOT MET") if ratio else ("", "", "")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a clean end, exit code 130
    typer.run(main)
