"""Draw the committed dashboards with the data of a lab run: `python -m tests.dashboards.pictures docs/pictures`.

Grafana is not needed and did not make these: they show definition and data, not Grafana's own look.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.dashboards.drawing import FAINT, INK, Picture
from tests.dashboards.generated import files, mark
from tests.dashboards.plots import Box, Plot
from tests.dashboards.questions import Answers, Document, Span, documents, everything, filled
from tests.dashboards.story import Story
from tests.integration.test_watch import Site
from tests.lab.lab import Lab

_COLUMN = 50
_CELL = 36
_GAP = 8
_HEAD = 54
_NOTE = "drawn from the dashboard's definition and the data of a test run by tests/dashboards, not by Grafana"
_CHANGES = 30
"""Two seconds apart, a minute between one trouble and the next."""


def drawn(document: Document, answers: Answers, span: Span) -> str:
    """The SVG of one dashboard, all its rows."""
    places = list(_places(document, answers.choices(document)))
    height = _HEAD + _CELL * max(top + panel["gridPos"]["h"] for panel, top, _ in places) + _GAP
    picture = Picture(24 * _COLUMN + 2 * _GAP, height)
    picture.text(16, 26, document["title"], size=18)
    picture.text(16, 44, document["description"].replace("`", ""), size=12, fill=FAINT)
    picture.text(24 * _COLUMN, 20, _NOTE, size=10.5, fill=FAINT, anchor="end")
    for panel, top, chosen in places:
        size = panel["gridPos"]
        x, y = _GAP + size["x"] * _COLUMN, _HEAD + top * _CELL
        if panel["type"] == "row":
            picture.text(x + 6, y + 24, "⌄  " + filled(panel["title"], chosen).replace("`", ""), size=14, fill=INK)
            continue
        box = Box(x, y, size["w"] * _COLUMN - _GAP, size["h"] * _CELL - _GAP)
        Plot(picture, panel, answers, span, chosen).draw(box)
    return str(picture)


def _places(document: Document, choices: dict[str, list[str]]) -> Iterator[tuple[Document, int, dict[str, str]]]:
    """Each panel, its first row of the grid, and the value that its row is repeated for."""
    down = 0
    for row in _rows(document):
        head = row[0]
        first, last = head["gridPos"]["y"], max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in row)
        values: list[dict[str, str]] = [{name: "|".join(several) for name, several in choices.items()}]
        if repeat := head.get("repeat"):
            values = [{repeat: value} for value in choices[repeat]]
        for chosen in values:
            yield from ((panel, panel["gridPos"]["y"] + down, chosen) for panel in row)
            down += last - first
        down -= 1 if head.get("collapsed") else last - first  # drawn open all the same


def _rows(document: Document) -> list[list[Document]]:
    rows: list[list[Document]] = []
    for panel in everything(document):
        if panel["type"] == "row":
            rows.append([])
        rows[-1].append(panel)
    return rows


def main(folder: Path, changes: int) -> None:
    """Run the story, then draw."""
    folder.mkdir(parents=True, exist_ok=True)
    with Lab(samba=False) as lab:
        site = Site(lab.folder.path / "site", lab.broker, lab.directory)
        story = Story(site, lab.reservations, changes=changes, factor=20)
        with story.told(interval_seconds=2):
            answers = Answers(story.prometheus.address)
            # As if Prometheus scraped more seldom: rates over four seconds are too ragged to be read.
            span = dataclasses.replace(story.span, scrape=4)
            for uid, document in documents().items():
                picture = drawn(document, answers, span) + mark(files()[f"{uid}.json"])
                (folder / f"{uid}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else _CHANGES)
