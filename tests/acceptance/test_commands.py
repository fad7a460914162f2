"""What a newcomer types first does what README says, and its document has the promised shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

_ROOT = Path(__file__).resolve().parents[2]
_COMMON = {"schema", "ok", "version", "started_at", "duration_seconds", "machine", "servers", "failures"}


def test_the_demo_makes_every_newest_password_work_and_shows_a_live_table(tmp_path: Path) -> None:
    written = tmp_path / "demo.json"
    # On a terminal, as a newcomer sees it; the document goes to a file.
    command = f"stty rows 60 cols 120; exec {sys.executable} -m tests.demo --json > {written}"
    typescript = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    done = subprocess.run(typescript, cwd=_ROOT, capture_output=True, text=True, timeout=900, check=False)
    print(done.stdout[-4000:])
    assert "user20" in done.stdout
    assert "0 clear-text passwords" in done.stdout
    document = json.loads(written.read_text().splitlines()[-1])
    assert set(document) >= _COMMON
    assert (done.returncode, document["schema"], document["failures"]) == (0, "passrelay.demo/1", [])
    assert document["ok"]
    assert len(document["users"]) == 20
    assert all(user["newest_binds"] and user["older_refused"] for user in document["users"])
    ways = {way for user in document["users"] for way in user["ways"]}
    assert ways == {"samba-tool", "ldaps-reset", "ldaps-change", "kpasswd"}
    assert {fault["target"] for fault in document["faults"]} == {"consumer1", "broker", "directory"}
    assert document["events"]["dead"] == 0
    assert document["canary"]["files"] > 50
    assert document["canary"]["hits"] == []
    assert all(document["servers"].values())
