"""What the benchmark says of its runs: medians, ratios with their bars, one exit code, a page and charts from them."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.bench import __main__ as bench
from tests.bench.charts import drawn, write_charts
from tests.bench.page import PAGE, filled, table
from tests.bench.quantity import written
from tests.bench.run import Run
from tests.lab.process import MissingServerError


class _Part:
    """A part that was measured already: relay is three quarters of the limit."""

    def __init__(self, *, bar: float = 0.5, error: Exception | None = None) -> None:
        self._bar = bar
        self._error = error

    def measure(self, run: Run) -> None:
        for value in (10, 1000, 30, 20, 40):
            run.add("limit.default.8", "per_second", value)
            run.add("relay.default.8", "per_second", value * 0.75)
        ratio = run.median("relay.default.8") / run.median("limit.default.8")
        run.ratio("relay.default.8", ratio, self._bar, ratio >= self._bar)
        run.servers({"rabbitmq": "3.10.8", "samba": None})
        if self._error:
            raise self._error


def _bench(monkeypatch: pytest.MonkeyPatch, part: _Part, *options: str) -> tuple[int, dict[str, Any]]:
    module = ModuleType("relay")
    module.__dict__["measure"] = part.measure
    monkeypatch.setitem(sys.modules, "tests.bench.relay", module)
    app = typer.Typer()
    app.command()(bench.main)
    done = CliRunner().invoke(app, ["--json", "--only", "relay", *options])
    return done.exit_code, json.loads(done.stdout.splitlines()[-1]) if done.exit_code != 2 else {}


def test_the_median_counts_and_every_run_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    code, document = _bench(monkeypatch, _Part())
    assert (code, document["schema"], document["ok"]) == (0, "passrelay.bench/1", True)
    assert document["results"][0] == {
        "id": "limit.default.8",
        "unit": "per_second",
        "median": 30,
        "runs": [10, 1000, 30, 20, 40],
    }
    assert document["ratios"] == [{"id": "relay.default.8", "value": 0.75, "bar": 0.5, "met": True}]
    assert document["servers"] == {"rabbitmq": "3.10.8", "directory": None, "samba": None}
    assert document["repetitions"] == 5


def test_a_bar_that_is_not_met_is_exit_code_1_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code, document = _bench(monkeypatch, _Part(bar=0.95))
    assert (code, document["ok"]) == (1, False)
    assert document["failures"] == [
        {"check": "bar", "subject": "relay.default.8", "detail": "is 0.75, the bar is 0.95"},
    ]


def test_the_short_form_judges_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    code, document = _bench(monkeypatch, _Part(bar=0.95), "--quick")
    assert (code, document["quick"], document["repetitions"]) == (0, True, 1)
    assert not document["ratios"][0]["met"]


def test_a_part_without_its_package_is_exit_code_3_and_what_was_measured_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    code, document = _bench(monkeypatch, _Part(error=MissingServerError("Debian package gcc is not installed")))
    assert code == 3
    assert document["failures"] == [
        {"check": "relay", "subject": "", "detail": "Debian package gcc is not installed"},
    ]
    assert len(document["results"]) == 2


def test_an_unknown_part_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bench(monkeypatch, _Part(), "--only", "nonsense")[0] == 2


def test_one_id_has_one_unit() -> None:
    run = Run(1)
    run.add("scale.x", "ms", 1)
    with pytest.raises(ValueError, match=r"scale\.x"):
        run.add("scale.x", "bytes", 1)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234.5, "per_second", "1,230/s"),
        (303.6, "per_second", "304/s"),
        (12.345, "ms", "12.3 ms"),
        (0.0123, "ms", "0.0123 ms"),
        (0, "ms", "0 ms"),
        (63_100_000, "bytes", "63.1 MB"),
        (999, "bytes", "999 B"),
        (2_500_000_000_000, "bytes", "2,500 GB"),
        (0.953, "ratio", "0.953"),
    ],
)
def test_a_value_is_written_with_three_digits_and_its_unit(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


def _results() -> list[dict[str, Any]]:
    run = Run(2)
    for value in (100.0, 300.0):
        run.add("limit.default.8", "per_second", value)
        run.add("relay.default.8", "per_second", value / 2)
        run.add("scale.spool", "bytes", value)
    return run.results


def test_there_is_one_chart_for_each_group_and_unit_and_a_bar_is_as_long_as_its_median(tmp_path: Path) -> None:
    names = {path.name for path in write_charts(tmp_path, _results())}
    assert names == {"bench-relay-per-second.svg", "bench-scale-bytes.svg"}
    picture = ET.fromstring((tmp_path / "bench-relay-per-second.svg").read_text())  # noqa: S314 - our own
    bars = [float(box.get("width", 0)) for box in picture.iter("{http://www.w3.org/2000/svg}rect")][2:]
    assert len(bars) == 2
    assert bars[1] == pytest.approx(bars[0] / 2, abs=0.1)
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["relay: per second, medians", "limit.default.8", "200/s", "relay.default.8", "100/s"]


def test_a_chart_of_nothing_but_noughts_can_be_drawn() -> None:
    assert "scale.idle" in drawn("x", [{"id": "scale.idle", "unit": "ms", "median": 0, "runs": [0]}])


def test_the_page_takes_its_table_from_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    _, document = _bench(monkeypatch, _Part(bar=0.95))
    page = filled(PAGE.read_text(encoding="utf-8"), table(document))
    assert "| `limit.default.8` | 30.0/s | 10.0/s | 1,000/s |" in page
    assert "| `relay.default.8` | 0.75 | 0.95 | not met |" in page
    assert "Medians of 5." in page
    assert filled(page, table(document)) == page
    with pytest.raises(ValueError, match="the page has no"):
        filled("nothing", "text")
