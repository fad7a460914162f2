"""`python -m tests.bench.page DOCUMENT.json ...`: the tables and charts of docs/performance.md, and what they are of.

Several documents where the parts were measured one after the other: together they take more than two hours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.charts import write_charts
from tests.bench.quantity import written

_DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = _DOCS / "performance.md"
_KEPT = _DOCS / "measurements"
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
    lines = [f"### {', '.join(document['parts'])}", "", head, "", "| id | median | least | most |", "|---|---|---|---|"]
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


def main(paths: Sequence[Path]) -> None:
    """Write page, pictures and documents; a document is the last line of what `./run bench --json` printed."""
    documents = [json.loads(path.read_text(encoding="utf-8").splitlines()[-1]) for path in paths]
    pictures = write_charts(_DOCS / "pictures", [result for document in documents for result in document["results"]])
    shown = "\n".join(f"![{each.stem}](pictures/{each.name})" for each in pictures)
    text = "\n\n".join([*map(table, documents), shown])
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    _KEPT.mkdir(exist_ok=True)
    for document in documents:
        kept = _KEPT / f"bench-{'-'.join(document['parts'])}.json"
        kept.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
