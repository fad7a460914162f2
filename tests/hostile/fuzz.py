"""The long form: `python -m tests.hostile.fuzz --inputs 1000000 [--parser NAME]... [--state FILE] [--json]`.

`--state` keeps how far each parser came, so that the next run goes on there. `--guided` lets libFuzzer (atheris) choose
the mutations by the code that they reach. `--parser NAME --input BASE64` gives one input to one parser.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from passrelay_schemas import __version__
from passrelay_schemas.filetime import rfc3339, utc_now
from tests.hostile.campaign import BLOCK, Finding, campaign, scratch
from tests.hostile.parsers import PARSERS, run

_AT_ONCE = 40
"""Blocks between two lines of progress."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of each parser")
    parser.add_argument("--parser", action="append", choices=sorted(PARSERS), help="only this one; may be repeated")
    parser.add_argument("--state", type=Path, help="JSON file with how far each parser came")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--guided", action="store_true", help="mutations chosen by coverage; needs atheris")
    parser.add_argument("--input", help="one input in base64, for the one --parser")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parts(done: dict[str, int], names: list[str], inputs: int) -> Iterator[list[tuple[str, int]]]:
    """What is still to be done, some blocks of one parser at a time."""
    for name in names:
        left = range(done.get(name, 0), max(1, inputs // BLOCK))
        for start in range(0, len(left), _AT_ONCE):
            yield [(name, block) for block in left[start : start + _AT_ONCE]]


def _campaign(arguments: argparse.Namespace, names: list[str]) -> tuple[dict[str, Any], list[Finding]]:
    state: Path | None = arguments.state
    done: dict[str, int] = json.loads(state.read_text()) if state is not None and state.exists() else {}
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    findings: list[Finding] = []
    for part in _parts(done, names, arguments.inputs):
        name, began = part[0][0], time.monotonic()
        for _, block in campaign(part, arguments.processes):
            outcomes[name] += block.outcomes
            findings += block.findings
        done[name] = part[-1][1] + 1
        if state is not None:
            state.write_text(json.dumps(done))
        rate = len(part) * BLOCK / (time.monotonic() - began)
        _say(f"{name}: {done[name] * BLOCK:,} inputs, {rate:,.0f} a second, {len(findings)} findings")
    return {name: {"inputs": counts.total(), "outcomes": counts} for name, counts in outcomes.items()}, findings


def _guided(arguments: argparse.Namespace, names: list[str]) -> tuple[dict[str, Any], list[Finding]]:
    results, findings = {}, []
    for name in names:
        runs, began = arguments.inputs, time.monotonic()
        with scratch() as folder:
            (folder / "inputs").mkdir()
            command = [sys.executable, "-m", "tests.hostile.guided", name, str(runs), str(folder / "inputs")]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        results[name] = {"inputs": runs, "exit_code": ended.returncode}
        _say(f"{name}: {runs:,} guided inputs, {runs / (time.monotonic() - began):,.0f} a second")
        if ended.returncode:
            _say(ended.stderr[-3000:])
            findings.append(Finding(name, 0, 0, f"exit {ended.returncode}", "guided", ""))
    return results, findings


def main() -> int:
    """0 without a finding, 1 with one."""
    arguments, began, at = _arguments(), time.monotonic(), utc_now()
    names = arguments.parser or list(PARSERS)
    if arguments.input is not None:
        error = run(PARSERS[names[0]], base64.b64decode(arguments.input))
        _say(f"{names[0]}: {error.__name__ if error else 'taken'}")
        return 0
    results, findings = (_guided if arguments.guided else _campaign)(arguments, names)
    for finding in findings:
        again = f"--parser {finding.parser} --input {finding.input}" if finding.input else ""
        _say(f"FINDING {finding.parser}: {finding.error} at {finding.at}; {again}")
    if arguments.json:
        document = {
            "schema": "passrelay.fuzz/1",
            "ok": not findings,
            "version": __version__,
            "started_at": rfc3339(at),
            "duration_seconds": round(time.monotonic() - began, 3),
            "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
            "failures": [
                {"check": finding.parser, "subject": finding.at, "detail": finding.error} for finding in findings
            ],
            "parsers": results,
            "findings": [asdict(finding) for finding in findings],
        }
        sys.stdout.write(json.dumps(document) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
