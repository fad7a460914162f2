"""An SVG picture as a list of shapes, and values written as Grafana writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tests.dashboards.questions import Document

INK = "#ccccdc"
FAINT = "#8e8e9c"
PAGE = "#111217"
PANEL = "#181b1f"
EDGE = "#2c3038"
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "purple": "#b877d9", "text": INK}
"""Grafana's names for the colours of thresholds and words, on its dark page."""
GROUNDS = {"green": "#2f7d32", "orange": "#b85c0a", "red": "#b3162a", "purple": "#6d2c96", "text": PANEL}
"""The same as the ground of a number."""
PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#5195ce", "#ba43a9", "#8f7ad1", "#a8c66c", "#f9934e")
_TIMES = ((31536000, "years"), (604800, "weeks"), (86400, "days"), (3600, "hours"), (60, "mins"), (1, "s"))
_WIDE = 0.56
"""Of a letter, as a part of its height, in the usual sans-serif fonts."""


class Picture:
    """Shapes in the order in which they are painted; all lengths in pixels."""

    def __init__(self, width: float, height: float) -> None:
        size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        fonts = "Inter, Helvetica, Arial, sans-serif"
        self._shapes = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{fonts}">']
        self.box(0, 0, width, height, PAGE)

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, edge: str = "", round_: int = 0
    ) -> None:
        """A filled rectangle."""
        stroke = f' stroke="{edge}"' if edge else ""
        corner = f' rx="{round_}"' if round_ else ""
        self._shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"{stroke}{corner}/>'
        )

    def line(self, points: Sequence[tuple[float, float]], stroke: str, *, width: float = 1.2, dashes: str = "") -> None:
        """A line through points; a single point is a dot."""
        if len(points) == 1:
            (x, y) = points[0]
            self.box(x - 1, y - 1, 2, 2, stroke)
            return
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self._shapes.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{dashed}/>')

    def area(self, points: Sequence[tuple[float, float]], fill: str, opacity: float) -> None:
        """A closed shape."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polygon points="{path}" fill="{fill}" fill-opacity="{opacity}"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        fill: str = INK,
        room: float = 0,
        anchor: str = "start",
    ) -> float:
        """A text on the line y, cut to `room`; how wide it is, about."""
        if room and len(text) * size * _WIDE > room:
            text = text[: max(1, int(room / size / _WIDE) - 1)] + "…"
        look = f'font-size="{size:g}" fill="{fill}" text-anchor="{anchor}"'
        self._shapes.append(f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>')
        return len(text) * size * _WIDE

    def __str__(self) -> str:
        return "\n".join([*self._shapes, "</svg>", ""])


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit."""
    if unit == "s":
        return _duration(value)
    if unit == "bytes":
        power = min(4, int(math.log(abs(value), 1024))) if abs(value) >= 1 else 0
        return f"{_short(value / 1024**power)} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    text = _short(value) if decimals is None else f"{value:.{decimals}f}"
    return f"{text} {unit.removeprefix('suffix:')}" if unit.startswith("suffix:") else text


def _duration(value: float) -> str:
    if value == 0:
        return "0 s"
    if abs(value) < 1:
        return f"{_short(value * 1000)} ms"
    seconds, name = next(each for each in _TIMES if abs(value) >= each[0])
    return f"{_short(value / seconds)} {name}"


def _short(value: float) -> str:
    for power, letter in ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K")):
        if abs(value) >= power:
            return f"{value / power:.3g}{letter}"
    return f"{value:.3g}"


def shown(value: float | str, field: Document) -> tuple[str, str]:
    """What stands for a value by a field's words, thresholds and unit, and the name of its colour."""
    key = value if isinstance(value, str) else f"{value:g}"
    for mapping in field.get("mappings", []):
        if word := mapping["options"].get(key):
            return word["text"], word["color"]
    if isinstance(value, str):
        return value, "text"
    steps = field.get("thresholds", {}).get("steps", [])
    colour = "text"
    for step in steps:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return written(value, field.get("unit", "short"), field.get("decimals")), colour
