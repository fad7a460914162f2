"""The kinds of panels that the dashboards use, drawn from Prometheus' answers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.dashboards.drawing import COLOURS, EDGE, FAINT, GROUNDS, INK, PALETTE, PANEL, Picture, shown, written
from tests.dashboards.questions import Answers, Document, Series, Span, filled

_LINE = 16
_TITLE = 30
_AXIS = 66
_TICKS = 4


@dataclass(frozen=True)
class Box:
    """A place in the picture, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Plot:
    """One panel with its variables filled in."""

    def __init__(self, picture: Picture, panel: Document, answers: Answers, span: Span, chosen: dict[str, str]) -> None:
        self._picture = picture
        self._panel = panel
        self._span = span
        self._field: Document = panel["fieldConfig"]["defaults"]
        self._found: list[list[Series]] = []
        for target in panel["targets"]:
            # A table and a number show the end of the time.
            when = Span(span.end, span.end, 1) if target.get("instant") else span
            self._found.append(answers.series(filled(target["expr"], {**span.variables(), **chosen}), when))

    def draw(self, box: Box) -> None:
        """The frame with its title, and what is in it."""
        self._picture.box(box.x, box.y, box.width, box.height, PANEL, edge=EDGE, round_=2)
        inside = Box(box.x + 10, box.y + _TITLE, box.width - 20, box.height - _TITLE - 8)
        if self._panel["type"] == "stat":
            self._number(box)
        elif not any(self._found):
            self._centred(inside, self._field["noValue"], 14, FAINT)
        else:
            kinds = {"timeseries": self._lines, "state-timeline": self._states, "table": self._table}
            kinds[self._panel["type"]](inside)
        self._picture.text(box.x + 10, box.y + 20, self._panel["title"], size=12.5, room=box.width - 20)

    def _centred(self, box: Box, text: str, size: float, fill: str) -> None:
        self._picture.text(
            box.x + box.width / 2, box.y + box.height / 2 + size / 3, text, size=size, fill=fill, anchor="middle"
        )

    def _named(self) -> Iterator[tuple[str, Series]]:
        for target, several in zip(self._panel["targets"], self._found, strict=True):
            for series in sorted(several, key=lambda one: sorted(one.labels.items())):
                labels = series.labels
                name = re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), target.get("legendFormat", ""))  # noqa: B023
                yield name.strip(), series

    # -- a number

    def _number(self, box: Box) -> None:
        series = [series for several in self._found for series in several]
        if not series:
            self._centred(box, self._field["noValue"], 20, FAINT)
            return
        text, colour = shown(series[0].points[-1][1], self._field)
        self._picture.box(box.x, box.y, box.width, box.height, GROUNDS[colour], edge=EDGE, round_=2)
        size = min(34.0, box.height * 0.3, (box.width - 16) / max(1, len(text)) / 0.56)
        self._centred(Box(box.x, box.y + 10, box.width, box.height - 10), text, size, "#ffffff")

    # -- over time

    def _at(self, box: Box, moment: float) -> float:
        return box.x + box.width * (moment - self._span.start) / (self._span.end - self._span.start)

    def _times(self, box: Box) -> None:
        parts = max(2, min(5, int(box.width / 80)))
        for part in range(1, parts):
            moment = self._span.start + (self._span.end - self._span.start) * part / parts
            x = self._at(box, moment)
            self._picture.line([(x, box.y), (x, box.y + box.height)], "#24272e", width=1)
            text = f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S}"
            self._picture.text(x, box.y + box.height + 13, text, size=10.5, fill=FAINT, anchor="middle")

    def _lines(self, box: Box) -> None:
        custom = self._field["custom"]
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        named = list(self._named())
        legend = self._legend(named, box)
        plot = Box(box.x + _AXIS, box.y, box.width - _AXIS, box.height - legend - 18)
        curves = _stacked([series for _, series in named]) if stacked else [_flat(series) for _, series in named]
        top = max([value for curve in curves for _, _, value in curve], default=0)
        low = min([0.0, *(value for curve in curves for _, _, value in curve)])
        tick, unit = _tick((top - low) or 1, self._field), self._field.get("unit", "short")
        top, low = tick * math.ceil(((top or 1) * 1.02) / tick), tick * math.floor(low / tick + 0.05)

        def height(value: float) -> float:
            return plot.y + plot.height * (1 - (value - low) / (top - low))

        for number in range(round((top - low) / tick) + 1):
            value = low + tick * number
            self._picture.line([(plot.x, height(value)), (plot.x + plot.width, height(value))], "#24272e", width=1)
            self._picture.text(
                plot.x - 6, height(value) + 4, written(value, unit), size=10.5, fill=FAINT, anchor="end", room=_AXIS
            )
        self._times(plot)
        for number, curve in enumerate(curves):
            colour = PALETTE[number % len(PALETTE)]
            for piece in _pieces(curve, self._span.step):
                upper = [(self._at(plot, at), height(value)) for at, _, value in piece]
                if custom["drawStyle"] == "bars":
                    wide = max(1.5, plot.width * self._span.step / (self._span.end - self._span.start) * 0.8)
                    for (x, y), (_, base, _) in zip(upper, piece, strict=True):
                        self._picture.box(x - wide / 2, y, wide, max(0, height(base) - y), colour)
                    continue
                lower = [(self._at(plot, at), height(base)) for at, base, _ in reversed(piece)]
                self._picture.area([*upper, *lower], colour, custom["fillOpacity"] / 100)
                self._picture.line(upper, colour)
        if custom["thresholdsStyle"]["mode"] == "dashed":
            for step in self._field["thresholds"]["steps"]:
                if step["value"] is not None and low <= step["value"] <= top:
                    y = height(step["value"])
                    self._picture.line([(plot.x, y), (plot.x + plot.width, y)], COLOURS[step["color"]], dashes="6 4")

    def _legend(self, named: Sequence[tuple[str, Series]], box: Box) -> float:
        """Its height; it stands at the bottom of the box."""
        unit = self._field.get("unit", "short")
        texts = [f"{name}  {written(series.points[-1][1], unit)}" for name, series in named]
        places, x, row = [], 0.0, 0
        for text in texts:
            wide = len(text) * 11 * 0.56 + 26
            if x and x + wide > box.width:
                x, row = 0.0, row + 1
            places.append((x, row))
            x += wide
        height = (row + 1) * _LINE
        top = box.y + box.height - height
        for number, ((x, row), text) in enumerate(zip(places, texts, strict=True)):
            self._picture.box(box.x + x, top + row * _LINE + 5, 12, 3, PALETTE[number % len(PALETTE)])
            self._picture.text(box.x + x + 16, top + row * _LINE + 11, text, size=11, room=box.width - 16)
        return height

    def _states(self, box: Box) -> None:
        named = list(self._named())
        aside = min(box.width * 0.6, max(len(name) for name, _ in named) * 11 * 0.56 + 8)
        plot = Box(box.x + aside, box.y, box.width - aside, box.height - 18)
        self._times(plot)
        each = plot.height / len(named)
        thick = min(26.0, each * 0.8)
        for number, (name, series) in enumerate(named):
            y = plot.y + number * each + (each - thick) / 2
            self._picture.text(box.x, y + thick / 2 + 4, name, size=11, room=aside - 6)
            for start, end, value in _runs(series, self._span.step):
                text, colour = shown(value, self._field)
                x, until = self._at(plot, start), min(self._at(plot, end), plot.x + plot.width)
                self._picture.box(x, y, until - x, thick, COLOURS[colour])
                if len(text) * 11 * 0.56 + 8 < until - x and thick > 10:
                    self._picture.text((x + until) / 2, y + thick / 2 + 4, text, size=11, fill=PANEL, anchor="middle")

    # -- a table

    def _table(self, box: Box) -> None:
        organize = self._panel["transformations"][-1]["options"]
        heads: dict[str, str] = organize["renameByName"]
        rows = _merged(self._found)
        order: dict[str, int] = organize["indexByName"]
        columns = [field for field in sorted(order, key=order.__getitem__) if any(field in row for row in rows)]
        for first in self._panel.get("options", {}).get("sortBy", []):
            [key] = [field for field, head in heads.items() if head == first["displayName"]]
            rows.sort(key=lambda row: row.get(key, 0), reverse=first["desc"])
        fields = {field: {**self._field, **self._override(heads[field])} for field in columns}
        cells = [
            [shown(row[field], fields[field]) if field in row else ("", "text") for field in columns] for row in rows
        ]
        wides = [
            max(len(heads[field]), *(len(row[number][0]) for row in cells)) + 3 for number, field in enumerate(columns)
        ]
        xs = [box.x + box.width * sum(wides[:number]) / sum(wides) for number in range(len(wides) + 1)]
        for number, field in enumerate(columns):
            self._picture.text(xs[number], box.y + 10, heads[field], size=11, fill="#6e9fff")
        fit = int((box.height - 18) // 22)
        for place, row in enumerate(cells[:fit]):
            y = box.y + 18 + place * 22
            self._picture.line([(box.x, y), (box.x + box.width, y)], EDGE, width=1)
            for number, (text, colour) in enumerate(row):
                room = xs[number + 1] - xs[number] - 4
                self._picture.text(xs[number], y + 15, text, size=11.5, fill=COLOURS.get(colour, INK), room=room)

    def _override(self, head: str) -> Document:
        overrides = self._panel["fieldConfig"]["overrides"]
        return {
            prop["id"]: prop["value"]
            for override in overrides
            if override["matcher"]["options"] == head
            for prop in override["properties"]
        }


def _tick(height: float, field: Document) -> float:
    """The step of an axis: some four of them, each a round number."""
    unit, base = field.get("unit"), 10.0
    if unit == "bytes":
        base = 2.0
    if unit == "s" and height > 120:
        return next((each for each in (60, 300, 600, 1800, 3600, 21600, 86400) if height / each <= 5), 604800.0)
    power = base ** math.floor(math.log(height / _TICKS, base))
    return next(power * each for each in (1, 2, 2.5, 5, 10) if height / (power * each) <= _TICKS + 0.5)


_Curve = list[tuple[float, float, float]]
"""Unix time, base and value of each point."""


def _flat(series: Series) -> _Curve:
    return [(at, 0.0, value) for at, value in series.points]


def _stacked(several: Sequence[Series]) -> list[_Curve]:
    bases: dict[float, float] = {}
    curves = []
    for series in several:
        curves.append([(at, bases.get(at, 0.0), bases.get(at, 0.0) + value) for at, value in series.points])
        bases |= {at: upper for at, _, upper in curves[-1]}
    return curves


def _pieces(curve: _Curve, step: float) -> Iterator[_Curve]:
    """Without the gaps."""
    piece: _Curve = []
    for point in curve:
        if piece and point[0] - piece[-1][0] > 1.5 * step:
            yield piece
            piece = []
        piece.append(point)
    yield piece


def _runs(series: Series, step: float) -> Iterator[tuple[float, float, float]]:
    """Begin, end and value of each time without a change."""
    begin, last, value = series.points[0][0], *series.points[0]
    for at, now in series.points[1:]:
        if now != value or at - last > 1.5 * step:
            yield begin, last + step, value
            begin, value = at, now
        last = at
    yield begin, last + step, value


def _merged(found: Sequence[Sequence[Series]]) -> list[Document]:
    """One row for each set of labels, as Grafana's transformation `merge` makes it."""
    rows: dict[tuple[tuple[str, str], ...], Document] = {}
    for number, several in enumerate(found):
        field = "Value" if len(found) == 1 else f"Value #{chr(ord('A') + number)}"
        for series in several:
            key = tuple(sorted(series.labels.items()))
            rows.setdefault(key, dict(series.labels))[field] = series.points[-1][1]
    return list(rows.values())
