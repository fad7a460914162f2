"""The committed Grafana dashboards: current, sound, and speaking only of what exists."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from passrelay_ops import metrics_reference
from passrelay_schemas.metrics import Family
from tests.dashboards.board import WIDTH
from tests.dashboards.generated import FOLDER, files, mark
from tests.dashboards.panels import UNKNOWN
from tests.dashboards.questions import Document, documents, everything, panels
from tests.unit.test_metrics_page import LABELS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = documents()
PANELS = [
    pytest.param(panel, id=f"{uid}, {panel['title']}")
    for uid, document in DOCUMENTS.items()
    for panel in panels(document)
]
NUMBERS = [
    pytest.param(panel, id=f"{uid}, {panel['title']}")
    for uid, document in DOCUMENTS.items()
    for panel in panels(document)
    if panel["type"] == "stat"
]
QUERIES = [
    target["expr"] for document in DOCUMENTS.values() for panel in panels(document) for target in panel["targets"]
]
FAMILIES = {family.name: family for several in metrics_reference.families().values() for family in several}
RULES = dict(
    re.findall(
        r"- alert: (\w+)\n\s+expr: (.*?)\n\s+(?:for|labels):",
        (ROOT / "ops/prometheus/passrelay.rules.yml").read_text(),
        re.DOTALL,
    )
)
OF_PROMETHEUS = {"up": {"job"}, "ALERTS": {"alertname", "alertstate"}, "ALERTS_FOR_STATE": {"alertname"}}
OF_RABBITMQ = {
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_process_resident_memory_bytes",
}
"""That they are there is the live test's."""
FROM_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate", "severity"}
_WORDS = {"absent", "abs", "and", "bool", "by", "count", "histogram_quantile", "increase", "max", "min", "offset", "on"}
_WORDS |= {"or", "rate", "sort", "sum", "time", "unless", "vector", "without", "m", "h", "d"}
"""Of PromQL, none a metric."""


def test_the_committed_dashboards_are_current() -> None:
    written = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert written == files(), "run: python -m tests.dashboards"


def test_the_pictures_are_of_the_dashboards_as_they_are() -> None:
    pictures = FOLDER.parents[2] / "docs/pictures"
    for name, text in files().items():
        assert (pictures / name).with_suffix(".svg").read_text().endswith(mark(text)), f"draw {name} anew"


@pytest.mark.parametrize("uid", DOCUMENTS)
def test_a_dashboard_is_what_grafana_reads(uid: str) -> None:
    document = DOCUMENTS[uid]
    again = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert again == document
    assert document["schemaVersion"] == 41
    assert len(uid) <= 40
    numbers = [panel["id"] for panel in everything(document)]
    assert len(set(numbers)) == len(numbers)
    names = {variable["name"] for variable in document["templating"]["list"]}
    used = {name for name in re.findall(r"\$\{?(\w+)", json.dumps(document)) if not name.startswith("__")}
    assert used == names


@pytest.mark.parametrize("uid", DOCUMENTS)
def test_panels_lie_on_the_grid_side_by_side(uid: str) -> None:
    open_, *closed = [DOCUMENTS[uid]["panels"], *(row["panels"] for row in _closed(DOCUMENTS[uid]))]
    for together in (open_, *closed):
        taken: set[tuple[int, int]] = set()
        for panel in together:
            place = panel["gridPos"]
            cells = set(
                itertools.product(
                    range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
                )
            )
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= WIDTH
            taken |= cells


@pytest.mark.parametrize("uid", DOCUMENTS)
def test_rows_that_are_repeated_are_closed(uid: str) -> None:
    """With twenty domain controllers they would ask hundreds of queries every 30 seconds."""
    repeated = [panel for panel in DOCUMENTS[uid]["panels"] if panel.get("repeat")]
    assert repeated == _closed(DOCUMENTS[uid])
    assert all(row["panels"] for row in repeated)
    choices = [each["name"] for each in DOCUMENTS[uid]["templating"]["list"] if each["type"] == "query"]
    assert [row["repeat"] for row in repeated] == choices


@pytest.mark.parametrize("panel", NUMBERS)
def test_a_number_is_of_this_moment_or_not_known(panel: Document) -> None:
    """A range's last value stays for hours, in green, after the service that told it died."""
    assert [(target.get("instant"), target.get("range")) for target in panel["targets"]] == [(True, False)]
    assert panel["options"]["graphMode"] == "none"
    field = panel["fieldConfig"]["defaults"]
    # Grafana gives an empty answer the base colour, unless null is mapped.
    [missing] = [mapping["options"]["result"] for mapping in field["mappings"] if mapping["type"] == "special"]
    assert missing["text"] == field["noValue"]
    assert missing["color"] == ("purple" if missing["text"] == UNKNOWN else "text")


@pytest.mark.parametrize("panel", NUMBERS)
def test_a_number_warns_of_no_user_that_no_alert_warns_of(panel: Document) -> None:
    if len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) == 1:
        return
    for target in panel["targets"]:
        for name, matchers in re.findall(r"(\w+)(?:\{([^}]*)\})?", target["expr"]):
            if name.startswith("passrelay_dead_letters") or 'outcome="dead"' in matchers:
                assert re.search(r'reason(!="user_missing"|="revoked")', matchers), target["expr"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: Document) -> None:
    field = panel["fieldConfig"]["defaults"]
    assert panel["description"].endswith(".")
    assert field["unit"]
    assert field["noValue"]
    assert field["thresholds"]["steps"][0]["value"] is None
    values = [step["value"] for step in field["thresholds"]["steps"][1:]]
    assert values == sorted(values)
    if panel["type"] == "state-timeline":
        assert field["mappings"], "a state is a word"
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_the_links_of_a_panel_lead_somewhere(panel: Document) -> None:
    for link in [*panel.get("links", []), *panel["fieldConfig"]["defaults"].get("links", [])]:
        if link["url"].startswith("/d/"):
            assert link["url"].removeprefix("/d/").partition("?")[0] in DOCUMENTS
        else:
            page = re.fullmatch(r"\$\{docs:raw\}/(.+)", link["url"])
            assert page
            assert (ROOT / "docs" / page[1]).is_file()
            assert link["targetBlank"], "Grafana would look for one of its own pages under this path"


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_is_explained_beside_what_it_is_about(alert: str) -> None:
    about = metrics(RULES[alert])
    beside = {
        metric
        for document in DOCUMENTS.values()
        for panel in panels(document)
        if any(f"/{alert}.md" in link["url"] for link in panel.get("links", []))
        for target in panel["targets"]
        for metric in metrics(target["expr"])
    }
    assert about & beside


def test_every_metric_of_passrelay_is_on_some_dashboard() -> None:
    assert set(FAMILIES) - {metric for query in QUERIES for metric in metrics(query)} == set()


@pytest.mark.parametrize("query", sorted(set(QUERIES)))
def test_a_query_knows_its_metrics_and_labels(query: str) -> None:
    asked = metrics(query)
    assert asked <= set(FAMILIES) | set(OF_PROMETHEUS) | OF_RABBITMQ
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", query):
        own = OF_PROMETHEUS.get(name) or {*family(name).labels, "instance", "job"}
        assert set(re.findall(r"(\w+)(?:=|!)", re.sub(r'"[^"]*"', '""', matchers))) <= own
    for several in re.findall(r"\bby \(([^)]*)\)", query):
        assert set(re.split(r",\s*", several)) <= LABELS | FROM_PROMETHEUS


@pytest.mark.parametrize("panel", PANELS)
def test_no_label_that_is_shown_can_hold_an_account(panel: Document) -> None:
    shown = {
        label for target in panel["targets"] for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
    }
    assert shown <= LABELS | FROM_PROMETHEUS


def test_what_is_provisioned_fits_the_dashboards() -> None:
    source = (ROOT / "ops/grafana/provisioning/datasources/prometheus.yml").read_text()
    assert "uid: prometheus\n" in source
    for document in DOCUMENTS.values():
        [variable] = [each for each in document["templating"]["list"] if each["type"] == "datasource"]
        assert variable["current"]["value"] == "prometheus"


def metrics(promql: str) -> set[str]:
    """The names of metrics in a query, without a histogram's endings."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without) \([^)]*\)', " ", promql)
    names = set(re.findall(r"\b(?!\d)[A-Za-z_]\w*", bare))
    return {family(name).name if name.startswith("passrelay_") else name for name in names - _WORDS}


def family(name: str) -> Family:
    """The family that a sample belongs to; KeyError when there is none."""
    return FAMILIES[name] if name in FAMILIES else FAMILIES[re.sub("_(bucket|count|sum)$", "", name)]


def _closed(document: Document) -> list[Document]:
    return [panel for panel in document["panels"] if panel.get("collapsed")]
