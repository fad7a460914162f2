"""`python -m tests.bench.page DOCUMENT.json`: the table of docs/performance.md and its charts, from a document."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.bench.charts import write_charts
from tests.bench.quantity import written

_DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = _DOCS / "performance.md"
_BEGIN, _END = "<!-- bench: made by `python -m tests.bench.page` -->", "<!-- /bench -->"


def table(document: dict[str, Any]) -> str:
    """What the document measured, in Markdown: the machine, each result, each ratio with its bar."""
    machine, servers = document["machine"], document["servers"]
    versions = ", ".join(f"{name} {version}" for name, version in servers.items() if version)
    head = (
        f"Measured {document['started_at'][:10]} with passrelay {document['version']} on {machine['os']}, Python "
        f"{machine['python']}, {machine['cores']} cores ({document['processor']}), "
        f"load {document['load_before']} before the start; {versions}. Medians of {document['repetitions']}."
    )
    lines = [head, "", "| id | median | least | most |", "|---|---|---|---|"]
    for result in document["results"]:
        values = (result["median"], min(result["runs"]), max(result["runs"]))
        lines.append(f"| `{result['id']}` | " + " | ".join(written(value, result["unit"]) for value in values) + " |")
    lines += ["", "| ratio | value | bar | |", "|---|---|---|---|"]
    for ratio in document["ratios"]:
        met = "met" if ratio["met"] else "not met"
        lines.append(f"| `{ratio['id']}` | {ratio['value']} | {ratio['bar']} | {met} |")
    return "\n".join(lines)


def filled(page: str, text: str) -> str:
    """The page with the text between its two marks; ValueError where they are missing."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no {_BEGIN} ... {_END}")
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"


def main(path: Path) -> None:
    """Write the page and the pictures; the document is the last line of what `./run bench --json` printed."""
    document = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    pictures = write_charts(_DOCS / "pictures", document["results"])
    shown = "\n".join(f"![{each.stem}](pictures/{each.name})" for each in pictures)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), f"{table(document)}\n\n{shown}"), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
