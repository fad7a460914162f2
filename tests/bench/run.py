"""What one benchmark collects: values of repeated runs, and ratios that are held against their bars."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, Literal

Unit = Literal["per_second", "ms", "bytes", "ratio"]


class Run:
    """Given to every part's `measure(run)`; parts interleave what they compare and call `add` once for each run.

    `runs` is how often each thing is measured, `quick` asks for tiny sizes that prove only that it works. A part that
    cannot run raises a PassrelayError, MissingServerError when a Debian package is missing; what it added stays.
    """

    def __init__(self, runs: int, *, quick: bool = False, progress: Callable[[str], None] = print) -> None:
        self.runs = runs
        self.quick = quick
        self._progress = progress
        self._results: dict[str, tuple[Unit, list[float]]] = {}
        self._ratios: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, str | None] = {}

    def progress(self, text: str) -> None:
        """A line for whoever watches."""
        self._progress(text)

    def add(self, id: str, unit: Unit, value: float) -> None:  # noqa: A002 - the document's own name
        """One run's value under a dotted id."""
        known, values = self._results.setdefault(id, (unit, []))
        if known != unit:
            raise ValueError(f"{id} is in {known}, not in {unit}")
        values.append(value)

    def median(self, id: str) -> float:  # noqa: A002
        """The median of what was added so far; KeyError when nothing was."""
        return statistics.median(self._results[id][1])

    def has(self, id: str) -> bool:  # noqa: A002
        """Whether anything was added under this id, by this part or an earlier one."""
        return id in self._results

    def ratio(self, id: str, value: float, bar: float, met: bool) -> None:  # noqa: A002
        """A ratio of medians, its bar, and whether it is met (some bars are a least, some a most)."""
        self._ratios[id] = {"id": id, "value": round(value, 3), "bar": bar, "met": bool(met)}

    def servers(self, versions: Mapping[str, str | None]) -> None:
        """Versions of the servers that were measured; None leaves what an earlier part said."""
        self.versions.update({name: version for name, version in versions.items() if version is not None})

    @property
    def results(self) -> list[dict[str, Any]]:
        """The document's `results`, in the order in which they were first added."""
        return [
            {
                "id": name,
                "unit": unit,
                "median": _short(statistics.median(values)),
                "runs": [_short(value) for value in values],
            }
            for name, (unit, values) in self._results.items()
        ]

    @property
    def ratios(self) -> list[dict[str, Any]]:
        """The document's `ratios`."""
        return list(self._ratios.values())


def _short(value: float) -> float:
    """Four digits are more than a run is exact to."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value)
