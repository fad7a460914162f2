"""Every query of every dashboard returns data from a real Prometheus that watched a real deployment in trouble."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.dashboards.questions import Answers, documents, filled, panels
from tests.dashboards.story import PREFIX, SILENT, Story
from tests.integration.test_watch import Site
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.network import Reservations

pytestmark = pytest.mark.integration

DOCUMENTS = documents()
QUERIES = [
    pytest.param(document, target["expr"], id=f"{uid}, {panel['title']}, {target['refId']}")
    for uid, document in DOCUMENTS.items()
    for panel in panels(document)
    for target in panel["targets"]
]
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


def shown(story: Story, title: str) -> set[float]:
    """All values that a tile of the Overview had."""
    [panel] = [panel for panel in panels(DOCUMENTS["passrelay-overview"]) if panel["title"] == title]
    [target] = panel["targets"]
    [series] = Answers(story.prometheus.address).series(target["expr"], replace(story.span, step=1))
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
    assert shown(story, "A change arrives in IdM") >= {0, 1}  # while IdM was away, and since it is there: not from dc3
    assert 2 not in shown(story, "A change arrives in IdM")
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
