"""Bars drawn from the document's results, as SVG: one picture for each group of ids and unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.quantity import written
from tests.dashboards.drawing import EDGE, FAINT, PALETTE, PANEL, Picture

_GROUPS = {
    "limit": "relay",
    "relay": "relay",
    "stage": "stages",
    "passsync": "peers",
    "syncpasswords": "peers",
    "latency": "latency",
    "scale": "scale",
}
"""The picture of an id's first word."""
_UNITS = {"per_second": "per second", "ms": "milliseconds", "bytes": "bytes", "ratio": "ratio"}
_WIDTH, _ASIDE, _ROW, _HEAD = 760, 250, 20, 44


def write_charts(folder: Path, results: Sequence[dict[str, Any]]) -> list[Path]:
    """The pictures of a document's `results`; their paths."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        word = result["id"].partition(".")[0]
        found[_GROUPS.get(word, word), result["unit"]].append(result)
    paths = []
    for (group, unit), some in found.items():
        path = folder / f"bench-{group}-{unit.replace('_', '-')}.svg"
        path.write_text(drawn(f"{group}: {_UNITS[unit]}, medians", some), encoding="utf-8")
        paths.append(path)
    return paths


def drawn(title: str, results: Sequence[dict[str, Any]]) -> str:
    """One bar for each result, a thin line from its least to its most run; a colour for each of whom they are."""
    height = _HEAD + _ROW * len(results) + 16
    picture = Picture(_WIDTH, height)
    picture.box(8, 8, _WIDTH - 16, height - 16, PANEL, edge=EDGE, round_=2)
    picture.text(20, 30, title, size=13)
    most = max((max(result["runs"]) for result in results), default=0) or 1
    owners = list(dict.fromkeys(_owner(result["id"]) for result in results))
    scale = (_WIDTH - _ASIDE - 110) / most
    for place, result in enumerate(results):
        y = _HEAD + place * _ROW
        colour = PALETTE[owners.index(_owner(result["id"])) % len(PALETTE)]
        picture.text(_ASIDE - 8, y + 12, result["id"], size=11, anchor="end", room=_ASIDE - 24)
        picture.box(_ASIDE, y + 2, max(1.0, result["median"] * scale), _ROW - 6, colour)
        least, top = (_ASIDE + edge(result["runs"]) * scale for edge in (min, max))
        picture.line([(least, y + _ROW / 2 - 1), (top, y + _ROW / 2 - 1)], FAINT)
        picture.text(top + 8, y + 12, written(result["median"], result["unit"]), size=11)
    return str(picture)


def _owner(name: str) -> str:
    """passrelay, or the id's first word."""
    words = name.split(".")
    return "relay" if "relay" in words else words[0]
