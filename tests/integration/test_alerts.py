"""The alert rules are valid, fire and end with the real windows, speak of metrics that exist, and have a page each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from passrelay_ops import metrics_reference
from tests.lab.process import run_tool

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "ops/prometheus"
RULES = FOLDER / "passrelay.rules.yml"
CASES = sorted(FOLDER.glob("*.test.yml"))
TEXT = RULES.read_text()
ALERTS = re.findall(r"- alert: (\w+)", TEXT)
HEADINGS = ("## Meaning", "## Confirm", "## Repair", "## When to ignore it")


def test_promtool_accepts_the_rules() -> None:
    run_tool(["promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES])


def test_promtool_accepts_the_sample_whose_jobs_are_those_of_the_rules(tmp_path: Path) -> None:
    sample = (FOLDER / "prometheus.yml").read_text().replace("[passrelay.rules.yml]", f"[{RULES}]")
    # With what stands there as a comment, for who needs it.
    whole = re.sub(r"^( *)# (?=alerting:| |- job)", r"\1", sample, flags=re.MULTILINE)
    assert "\nalerting:\n  alertmanagers:\n" in whole
    for number, text in enumerate((sample, whole)):
        file = tmp_path / f"{number}.yml"
        file.write_text(text)
        run_tool(["promtool", "check", "config", file])
    jobs = re.search(r"# Scrape jobs: ([\w, -]+)\.", TEXT)
    assert jobs is not None
    assert set(jobs[1].split(", ")) == set(re.findall(r"^  - job_name: ([\w-]+)", sample, re.MULTILINE))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.partition(".")[0])
def test_alerts_fire_and_end_as_their_cases_say(case: Path) -> None:
    run_tool(["promtool", "test", "rules", case])


def test_every_alert_fires_in_some_case_and_no_name_is_used_twice() -> None:
    fired = set(re.findall(r'alertname="(\w+)"', "".join(case.read_text() for case in CASES)))
    assert sorted(fired) == sorted(ALERTS)


def test_every_metric_of_the_rules_and_of_their_cases_is_shown_by_a_service() -> None:
    shown = {family.name for families in metrics_reference.families().values() for family in families}
    used = set(re.findall(r"\bpassrelay_\w+", TEXT + "".join(case.read_text() for case in CASES)))
    assert used <= shown


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_links_to_its_page_which_says_what_to_do(alert: str) -> None:
    page = f"docs/runbooks/{alert}.md"
    rule = TEXT[TEXT.index(f"- alert: {alert}\n") :].partition("- alert: ")[2].partition("- alert: ")[0]
    assert f"runbook: {page}" in rule
    text = (ROOT / page).read_text()
    assert text.startswith(f"# {alert}\n")
    positions = [text.index(heading) for heading in HEADINGS]
    assert positions == sorted(positions)
