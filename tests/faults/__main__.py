"""The command of a campaign: `./run faults --seed N --minutes M`.

Exit code 1 when anything was lost, stale, readable or silent; the document says how to run the same seed again.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from typing import Annotated, Any

import typer

from passrelay_ops.report import Report
from tests.faults.mounts import keep_mounts_private
from tests.faults.plan import Kind, draw
from tests.faults.sabotage import PROTECTIONS
from tests.faults.site import Site
from tests.faults.trial import Result, Trial

LISTS = ("lost", "stale", "readable", "audit_drift", "undecided")
"""Fields of the document; other findings stand under `failures` only."""


def main(
    seed: Annotated[int | None, typer.Option(help="The seed to repeat; default: a new one.")] = None,
    minutes: Annotated[float, typer.Option(min=0.2, help="How long load and faults last.")] = 3,
    faults: Annotated[int | None, typer.Option(min=0, help="So many faults, instead of minutes.")] = None,
    kinds: Annotated[str, typer.Option(help="Only these kinds, separated by commas.")] = "",
    without: Annotated[str, typer.Option(help=f"Switch one protection off: {', '.join(PROTECTIONS)}.")] = "",
    nodes: Annotated[int, typer.Option(min=1, max=3, help="Of RabbitMQ: 1, or a cluster of 3.")] = 1,
    per_second: Annotated[float, typer.Option(min=1, help="Changes on standard input a second.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document as the last line of stdout.")] = False,
) -> None:
    """Load, random faults from the seed, then everything is healed and every promise is checked."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    if without and without not in PROTECTIONS:
        raise typer.BadParameter(f"--without: one of {', '.join(PROTECTIONS)}")
    chosen = _kinds(kinds)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a clean end, exit code 130
    with Report("faults", as_json=as_json) as report:
        keep_mounts_private()
        plan = draw(seed, seconds=None if faults is not None else minutes * 60, count=faults, kinds=chosen, nodes=nodes)
        seconds = plan.ends_at + 5 if faults is not None else minutes * 60
        began = time.monotonic()

        def say(text: str) -> None:
            report.progress(f"faults: {text}")

        say(f"seed {seed}, {len(plan.faults)} faults in {seconds:.0f} s, {nodes} broker node(s)")
        with Site(nodes=nodes, without=without or None) as site:
            say(f"servers started in {time.monotonic() - began:.0f} s")
            report.servers.update(site.versions)
            trial = Trial(site, plan, per_second=per_second, seconds=seconds, binds=40, say=say)
            result = trial.run(all_faults=faults is not None)
        options = f"--faults {faults}" if faults is not None else f"--minutes {minutes:g}"
        more = [f"--nodes {nodes}" if nodes > 1 else "", f"--kinds {kinds}" if kinds else ""]
        more += [f"--without {without}" if without else "", f"--per-second {per_second:g}" if per_second != 30 else ""]
        rerun = " ".join(["./run faults", f"--seed {seed}", options, *filter(None, more)])
        _tell(report, result, {"seed": seed, "minutes": minutes, "nodes": nodes, "without": without, "rerun": rerun})


def _kinds(text: str) -> tuple[Kind, ...]:
    try:
        return tuple(Kind(name) for name in text.split(",")) if text else tuple(Kind)
    except ValueError:
        raise typer.BadParameter(f"--kinds: some of {', '.join(Kind)}") from None


def _tell(report: Report, result: Result, fields: dict[str, Any]) -> None:
    done = Counter(each.fault.kind.value for each in result.done if not each.error)
    for name, value in {**fields, "faults": dict(done), **result.numbers}.items():
        report[name] = value
    for name in LISTS:
        report[name] = [f"{each.subject}: {each.detail}" for each in result.findings if each.check == name]
    report["not_done"] = [each.document() for each in result.done if each.error]
    report["schedule"] = [each.document() for each in result.done]
    for finding in result.findings[:50]:
        report.fail(finding.check, finding.subject, finding.detail)
    if result.explained:
        report["explained"] = result.explained
    report.say(f"{sum(done.values())} faults of {len(done)} kinds, {result.numbers.get('events')} events")
    found = Counter(finding.check for finding in result.findings)
    report.say(f"found: {dict(found) or 'nothing'}")
    if found:
        report.say(f"again: {fields['rerun']}")


if __name__ == "__main__":
    typer.run(main)
