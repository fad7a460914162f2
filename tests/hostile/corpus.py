"""One broken input for each way in which a parser fails: files under `corpus/<parser>/<error>.<its words>[~<what>]`.

`python -m tests.hostile.corpus PARSER...` finds them anew, the shortest of each, and keeps those that are there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.hostile.campaign import inputs
from tests.hostile.parsers import PARSERS, Parser

FOLDER = Path(__file__).parent / "corpus"
_BLOCKS = 3
_WHATEVER_IT_IS = ("unknown key", "no such section", "not TOML", "not a DN (RFC 4514)", "it does not belong to")
"""Said of any name or text: one way of failing each, not one for each text."""
_LETTERS = 40
TAKEN = "taken"
"""The mode of inputs that once raised what they may not, and are taken now."""


def mode(parser: Parser, raw: bytes) -> str:
    """The error's name and what it says is wrong where: not how, which is often pydantic's or Python's own wording."""
    try:
        parser.call(raw)
    except parser.errors as error:
        text = next((words for words in _WHATEVER_IT_IS if words in str(error)), str(error))
        place = ": ".join(text.strip().split("\n")[-1].split(": ")[:2])
        place = re.sub(r": (Input|String|Tuple|Value|List) should .*", "", place)
        words = re.sub(r"/\S+|'[^']*'|\"[^\"]*\"|\d+", "", place).lower()
        return f"{type(error).__name__}.{re.sub(r'[^a-z]+', '-', words).strip('-')[:_LETTERS].strip('-')}"
    return TAKEN


def files(parser: str) -> list[Path]:
    """The committed inputs of a parser."""
    folder = FOLDER / parser
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _collect(name: str) -> None:
    found: dict[str, bytes] = {}
    for block in range(_BLOCKS):
        for raw in inputs(name, block):
            seen = mode(PARSERS[name], raw)
            if seen != TAKEN and (seen not in found or len(raw) < len(found[seen])):
                found[seen] = raw
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for seen, raw in found.items():
        path = folder / seen
        if not path.exists():
            path.write_bytes(raw)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        _collect(wanted)
