"""What a newcomer types first does what README says, and its document has the promised shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.acceptance

_ROOT = Path(__file__).resolve().parents[2]
_COMMON = {"schema", "ok", "version", "started_at", "duration_seconds", "machine", "servers", "failures"}


def _document(module: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", module, "--json", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=900, check=False)
    print(done.stderr[-4000:])
    document = json.loads(done.stdout.splitlines()[-1])
    assert set(document) >= _COMMON
    assert document["ok"] is (done.returncode == 0)
    return done.returncode, document


def test_the_demo_makes_every_newest_password_work_in_spite_of_three_faults() -> None:
    code, document = _document("tests.demo")
    assert (code, document["schema"], document["failures"]) == (0, "passrelay.demo/1", [])
    assert len(document["users"]) == 20
    assert all(user["newest_binds"] and user["older_refused"] for user in document["users"])
    ways = {way for user in document["users"] for way in user["ways"]}
    assert ways == {"samba-tool", "ldaps-reset", "ldaps-change", "kpasswd"}
    assert {fault["target"] for fault in document["faults"]} == {"consumer1", "broker", "directory"}
    assert document["events"]["dead"] == 0
    assert document["canary"]["files"] > 50
    assert document["canary"]["hits"] == []
    assert all(document["servers"].values())


def test_the_demo_shows_a_live_table_in_a_terminal() -> None:
    command = f"stty rows 60 cols 120; exec {sys.executable} -m tests.demo"
    typescript = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    done = subprocess.run(typescript, cwd=_ROOT, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout[-4000:])
    assert done.returncode == 0
    assert "user20" in done.stdout
    assert "0 clear-text passwords" in done.stdout
