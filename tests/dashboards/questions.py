"""What the committed dashboards ask of Prometheus: each query with Grafana's variables filled in."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dashboards.generated import FOLDER

Document = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """The labels of one series, and its finite values by Unix time."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Span:
    """A time range as a browser would choose it, in Unix seconds, and the step between its points."""

    start: float
    end: float
    step: float
    scrape: float = 1

    def variables(self) -> dict[str, str]:
        """Grafana's own, by its rules for the data source's scrape interval."""
        return {
            "__rate_interval": f"{math.ceil(max(self.step + self.scrape, 4 * self.scrape))}s",
            "__range": f"{math.ceil(self.end - self.start)}s",
        }


def documents(folder: Path = FOLDER) -> dict[str, Document]:
    """The committed dashboards by their uid."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {document["uid"]: document for document in found}


def panels(document: Document) -> list[Document]:
    """All panels that ask something, those of closed rows too."""
    return [panel for panel in everything(document) if panel["type"] != "row"]


def everything(document: Document) -> list[Document]:
    """Rows and panels, in their order."""
    return [each for panel in document["panels"] for each in (panel, *panel.get("panels", []))]


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Each `$name` and `${name}` replaced; KeyError when one is not known."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables[match[1] or match[2]], text)


class Answers:
    """A Prometheus server as Grafana's data source."""

    def __init__(self, address: str) -> None:
        self._address = address

    def choices(self, document: Document) -> dict[str, list[str]]:
        """The values that each query variable of a dashboard offers."""
        return {
            variable["name"]: self._label_values(variable["query"]["query"])
            for variable in document["templating"]["list"]
            if variable["type"] == "query"
        }

    def series(self, promql: str, span: Span) -> list[Series]:
        """A range query; NaN and infinite values are left out, and series without any other."""
        asked = {"query": promql, "start": f"{span.start}", "end": f"{span.end}", "step": f"{span.step}"}
        found = self.get("query_range", **asked)["result"]
        return list(_finite(found))

    def get(self, path: str, **arguments: str) -> Any:
        """One call of the HTTP API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def _label_values(self, query: str) -> list[str]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        assert match, query
        values: list[str] = self.get(f"label/{match[2]}/values", **{"match[]": match[1]})
        return sorted(values)


def _finite(found: list[dict[str, Any]]) -> Iterator[Series]:
    for one in found:
        values = ((float(at), float(value)) for at, value in one["values"])
        if points := tuple((at, value) for at, value in values if math.isfinite(value)):
            yield Series(one["metric"], points)
