"""What many values come to: the quantiles of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed (nearest rank); ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def p50(values: Sequence[float]) -> float:
    """Half of them are not greater."""
    return quantile(values, 0.5)


def p99(values: Sequence[float]) -> float:
    """99 of 100 are not greater; of fewer than 100 it is the greatest."""
    return quantile(values, 0.99)


def pace(moments: Sequence[float], start: float, end: float) -> float:
    """Events per second between two shares of all events in the order of their moments, such as 0 and 0.1.

    ValueError when there are fewer than two events between them.
    """
    ordered = sorted(moments)
    first, last = round(start * (len(ordered) - 1)), round(end * (len(ordered) - 1))
    if last <= first:
        raise ValueError(f"{len(ordered)} moments are too few")
    return (last - first) / max(ordered[last] - ordered[first], 1e-9)
