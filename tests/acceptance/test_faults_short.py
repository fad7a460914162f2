"""The short form of the fault campaign: every kind of fault once or nearly so, then every promise is checked."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest

from tests.faults.plan import CLUSTER_ONLY, Kind
from tests.faults.sabotage import PROTECTIONS
from tests.faults.site import ROOT

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

_EVERY_KIND = len(Kind) - len(CLUSTER_ONLY)
_SECONDS = 1500
"""Three minutes on an idle machine of two cores."""


def _campaign(*options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.faults", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=_SECONDS, check=False)
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, document


def test_every_promise_holds_after_faults_of_every_kind() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"./run faults --seed {seed} --faults {_EVERY_KIND}")
    code, document = _campaign("--seed", str(seed), "--faults", str(_EVERY_KIND), "--per-second", "25")
    print(json.dumps({key: document[key] for key in ("faults", "not_done") if key in document}))
    assert (document["failures"], code) == ([], 0), json.dumps(document.get("explained"), indent=1)
    assert document["schema"] == "passrelay.faults/1"
    assert document["seed"] == seed
    assert document["rerun"].startswith(f"./run faults --seed {seed}")
    # What another fault made impossible is told; the campaign is worth something all the same.
    assert len(document["faults"]) >= _EVERY_KIND - 3
    assert document["events"] > 500
    for name in ("lost", "stale", "readable", "audit_drift", "undecided"):
        assert document[name] == []


def test_without_signatures_the_campaign_says_whose_password_is_forged() -> None:
    """One of the protections, as a proof that the checks see; docs/reliability.md has all of them."""
    assert "signature" in PROTECTIONS
    options = ("--seed", "5", "--faults", "2", "--kinds", "strangers", "--per-second", "15", "--without", "signature")
    code, document = _campaign(*options)
    assert code == 1
    assert any("marker at version 10000" in line for line in document["stale"])
    [explained] = [each for each in document["explained"] if each["check"] == "stale"]
    assert explained["events"][-1]["journal"]
