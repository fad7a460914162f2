"""One dashboard: its variables, links and rows, and where each panel lies on the grid."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from tests.dashboards.panels import SOURCE

TAG = "passrelay"
WIDTH = 24
"""Columns of Grafana's grid."""
OVERVIEW = "passrelay-overview"
PIPELINE = "passrelay-pipeline"
PRODUCERS = "passrelay-producers"
DIRECTORY = "passrelay-directory"
DEAD_LETTERS = "passrelay-dead-letters"
DOCUMENTS = "/public/passrelay-docs"
"""Where docs/ is mounted into Grafana's own folder of static files, unless the variable says another URL."""


@dataclass(frozen=True)
class Row:
    """A heading and its panels, from left to right; with `repeat` once for each value of that variable, and closed.

    Grafana asks nothing for the panels of a closed row: with many producers they would be some hundred.
    """

    title: str
    panels: Sequence[models.Panel]
    repeat: str = ""


@dataclass(frozen=True)
class Choice:
    """A variable whose values a label has."""

    name: str
    label: str
    query: str


@dataclass(frozen=True)
class Board:
    """A dashboard before it is laid out."""

    uid: str
    title: str
    purpose: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = ()

    def text(self) -> str:
        """The JSON file, the same for the same content."""
        return json.dumps(self._model(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def _model(self) -> models.Dashboard:
        frame = builders.Dashboard(f"passrelay: {self.title}").uid(self.uid).description(self.purpose).tags([TAG])
        frame.time("now-6h", "now").refresh("30s").timezone("browser").editable()
        frame.tooltip(models.DashboardCursorSync.CROSSHAIR)
        frame.link(
            builders.DashboardLink("passrelay")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(keep_time=True)
            .include_vars(include_vars=True)
        )
        frame.with_variable(
            builders.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(models.VariableOption(selected=True, text="Prometheus", value="prometheus"))
        )
        for choice in self.choices:
            frame.with_variable(_query_variable(choice))
        frame.with_variable(
            builders.TextBoxVariable("docs")
            .label("Documents at")
            .description("URL of the project's folder docs/, as your browser reaches it")
            .default_value(DOCUMENTS)
            .current(models.VariableOption(selected=True, text=DOCUMENTS, value=DOCUMENTS))
        )
        model = frame.build()
        model.panels = _laid_out(self.rows)
        return model


def _query_variable(choice: Choice) -> builders.QueryVariable:
    return (
        builders.QueryVariable(choice.name)
        .label(choice.label)
        .datasource(SOURCE)
        .query({"query": choice.query, "refId": choice.name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _laid_out(rows: Sequence[Row]) -> list[models.Panel | models.RowPanel]:
    placed: list[models.Panel | models.RowPanel] = []
    top, number = 0, itertools.count(1)
    for row in rows:
        head = models.RowPanel(title=row.title, grid_pos=models.GridPos(h=1, w=WIDTH, x=0, y=top))
        head.id_val = next(number)
        placed.append(head)
        top += 1
        height = _side_by_side(row.panels, top)
        for panel in row.panels:
            panel.id_val = next(number)
        if row.repeat:
            head.repeat, head.collapsed, head.panels = row.repeat, True, list(row.panels)
        else:
            placed += row.panels
            top += height
    return placed


def _side_by_side(panels: Sequence[models.Panel], top: int) -> int:
    """Place panels from this line of the grid on; the lines that they take."""
    first, left, height = top, 0, 0
    for panel in panels:
        size = panel.grid_pos
        assert size is not None
        if left + size.w > WIDTH:
            top, left, height = top + height, 0, 0
        panel.grid_pos = models.GridPos(h=size.h, w=size.w, x=left, y=top)
        left, height = left + size.w, max(height, size.h)
    return top + height - first
