"""The short form of the benchmark: it runs, and its document has the promised shape. Speed is for a quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.site import ROOT

pytestmark = pytest.mark.acceptance

_PLACES = [
    f"{place}{scheme}.{connections}"
    for place in ("", "unpinned.")
    for scheme in ("default", "cheap")
    for connections in (1, 8)
]
_STAGES = {f"stage.{name}" for name in ("capture", "publish", "publish.bare", "open", "write.1", "write.8", "journal")}
_RATIOS = {f"relay.{place}" for place in _PLACES if not place.startswith("unpinned.cheap")} | {
    "stage.capture",
    "stage.publish",
}


def _bench(*options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.bench", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=900, check=False)
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, document


def test_the_benchmark_measures_the_limit_the_relay_and_each_stage() -> None:
    code, document = _bench("--quick", "--only", "relay", "--only", "stages")
    assert (document["failures"], code, document["ok"]) == ([], 0, True)
    assert (document["schema"], document["quick"]) == ("passrelay.bench/1", True)
    assert document["servers"]["rabbitmq"]
    assert document["servers"]["directory"]
    results = {result["id"]: result for result in document["results"]}
    assert set(results) == {f"{side}.{place}" for side in ("limit", "relay") for place in _PLACES} | _STAGES
    assert all(set(each) == {"id", "unit", "median", "runs"} for each in document["results"])
    assert all(each["unit"] == "per_second" and each["median"] > 0 for each in document["results"])
    assert {ratio["id"] for ratio in document["ratios"]} == _RATIOS
    # Speed itself is for the long form: here only what is said about it must be consistent.
    assert all(ratio["met"] is (ratio["value"] >= ratio["bar"]) for ratio in document["ratios"])


def test_a_part_that_lacks_a_package_names_it_and_ends_with_3(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--json", "--quick", "--only", "relay"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, env={"PATH": str(tmp_path)}, timeout=300, check=False
    )
    document = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 3
    assert [failure["check"] for failure in document["failures"]] == ["relay"]
    assert "Debian package gcc is not installed" in document["failures"][0]["detail"]
