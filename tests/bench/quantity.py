"""A measured value as people read it."""

from __future__ import annotations

import math


def written(value: float, unit: str) -> str:
    """Three digits and the unit: `1,230/s`, `12.3 ms`, `63.1 MB`, `0.95`."""
    if unit == "bytes":
        power = min(3, int(math.log(value, 1000))) if value >= 1 else 0
        return f"{_digits(value / 1000**power)} {('B', 'kB', 'MB', 'GB')[power]}"
    return _digits(value) + {"per_second": "/s", "ms": " ms"}.get(unit, "")


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, places):,.{places}f}" if abs(value) < 1000 else f"{float(f'{value:.3g}'):,.0f}"
