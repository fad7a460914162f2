"""Every query of every dashboard returns data from a real Prometheus that watched a real deployment in trouble."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.dashboards.questions import Answers, documents, filled, panels
from tests.dashboards.story import PREFIX, SILENT, Story
from tests.integration.test_watch import Site
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.network import Reservations
from tests.lab.process import run_tool

pytestmark = pytest.mark.integration

DOCUMENTS = documents()
QUERIES = [
    pytest.param(document, target["expr"], id=f"{uid}, {panel['title']}, {target['refId']}")
    for uid, document in DOCUMENTS.items()
    for panel in panels(document)
    for target in panel["targets"]
]
ARRIVES = "A change arrives in IdM"
_WATCHED = (
    "passrelay_work_consumers",
    'passrelay_producer_up{producer="dc1"}',
    'passrelay_producer_up{producer="dc2"}',
)
_IDM = ('passrelay_directory_up{server="idm1", instance="a"}', 'passrelay_directory_up{server="idm2", instance="a"}')
_SOURCES = ('passrelay_producer_source_up{producer="dc1"}', 'passrelay_producer_source_up{producer="dc2"}')
_GOOD = {_WATCHED[0]: "2", **dict.fromkeys((*_WATCHED[1:], _IDM[1], *_SOURCES), "1"), _IDM[0]: "0"}
CHANGES = 8
"""Between one trouble and the next."""


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory,
    shared_broker: Broker,
    shared_directory: Directory,
    reservations: Reservations,
) -> Iterator[Story]:
    if not shared_broker.running:
        shared_broker.start()
    site = Site(tmp_path_factory.mktemp("story") / "site", shared_broker, shared_directory)
    story = Story(site, reservations, changes=CHANGES, factor=240)
    with story.told(interval_seconds=0.1):
        yield story
    site.prepare()
    shared_broker.purge_all()


def _silent(*producers: str) -> dict[str, str | None]:
    up = {f'passrelay_producer_up{{producer="{name}"}}': "0" for name in producers}
    return up | {f'passrelay_producer_source_up{{producer="{name}"}}': None for name in producers}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, 2),
        ({_WATCHED[0]: "0"}, 0),
        ({_IDM[1]: "0"}, 0),
        (_silent("dc1"), 1),
        (_silent("dc1", "dc2"), 0),
        (_silent("dc1") | {_SOURCES[1]: "0"}, 0),
        (_silent("dc1") | {_SOURCES[1]: None}, 1),
        ({_SOURCES[0]: "0"}, 1),
        (dict.fromkeys(_SOURCES, "0"), 0),
        ({_SOURCES[0]: None}, -1),
        (dict.fromkeys(_SOURCES), -1),
        (dict.fromkeys(_IDM), -1),
        (dict.fromkeys((*_WATCHED, *_SOURCES)), -1),
        (dict.fromkeys(_GOOD), -1),
    ],
)
def test_the_first_tile_says_yes_only_if_each_link_is_known_to_be_good(
    tmp_path: Path, changed: dict[str, str | None], said: int
) -> None:
    series = [{"series": name, "values": value} for name, value in {**_GOOD, **changed}.items() if value is not None]
    asked = {"expr": promql(ARRIVES), "eval_time": "0m", "exp_samples": [{"labels": "{}", "value": said}]}
    cases = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}]}
    (tmp_path / "arrives.yml").write_text(json.dumps(cases))  # JSON is YAML
    run_tool(["promtool", "test", "rules", tmp_path / "arrives.yml"])


def promql(title: str) -> str:
    """The query of a tile of the Overview."""
    [panel] = [panel for panel in panels(DOCUMENTS["passrelay-overview"]) if panel["title"] == title]
    [target] = panel["targets"]
    return str(target["expr"])


def shown(story: Story, title: str) -> set[float]:
    """All values that a tile of the Overview had."""
    [series] = Answers(story.prometheus.address).series(promql(title), replace(story.span, step=1))
    return {value for _, value in series.points}


@pytest.mark.parametrize(("document", "promql"), QUERIES)
def test_a_query_returns_data(story: Story, document: dict[str, object], promql: str) -> None:
    answers, span = Answers(story.prometheus.address), story.span
    choices = {name: values for name, values in answers.choices(document).items() if f"${name}" in promql}
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        if chosen == {"producer": SILENT} and "passrelay_producer_up" not in promql:
            continue  # nothing is known of it but its silence
        assert answers.series(filled(promql, {**span.variables(), **chosen}), span), chosen


def test_the_first_tiles_said_what_was_true(story: Story) -> None:
    assert shown(story, ARRIVES) >= {0, 1}  # while IdM was away, and since it is there: not from dc3
    assert 2 not in shown(story, ARRIVES)
    assert shown(story, "Domain controllers") >= {1}
    assert shown(story, "Consumers") >= {0, 2}
    assert shown(story, "IdM servers") == {0, 1}
    assert max(shown(story, "Dead letters")) == 6 + 2 + 1 + 3  # written by the story, and died in it


def test_the_rows_that_are_repeated_have_something_to_be_repeated_for(story: Story) -> None:
    answers = Answers(story.prometheus.address)
    found = {name: values for document in DOCUMENTS.values() for name, values in answers.choices(document).items()}
    assert found["producer"] == ["dc1", "dc2", SILENT]
    assert len(found["instance"]) == 2
    assert len(found["server"]) == 1


def test_no_account_is_in_anything_that_prometheus_kept(story: Story) -> None:
    kept = json.dumps(Answers(story.prometheus.address).get("series", **{"match[]": '{job=~"passrelay-.+"}'}))
    assert "passrelay_dead_letters" in kept
    assert PREFIX not in kept
