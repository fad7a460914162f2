"""Which passwords stand in a process's memory, in any of the forms that they pass through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)")
_PIECE = 16 * 2**20
_OVERLAP = 2048


def _pieces(pid: int) -> Iterator[bytes]:
    """Everything that the process can write to, a piece at a time."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = _LINE.fullmatch(line)
            if match is None or not match[3].startswith("rw"):
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            for at in range(start, end, _PIECE):
                try:
                    memory.seek(at)
                    yield memory.read(min(_PIECE + _OVERLAP, end - at))
                except (OSError, ValueError):  # unmapped meanwhile, or never to be read
                    continue


def found_in(pid: int, passwords: set[str]) -> dict[str, int]:
    """How often each of these passwords stands there, as UTF-8 or UTF-16; those that do not are left out."""
    forms = {form: text for text in passwords for form in (text.encode(), text.encode("utf-16-le"))}
    first = {form[:8] for form in forms}
    prefixes = re.compile(b"|".join(re.escape(one) for one in first))
    counts: dict[str, int] = {}
    lengths = sorted({len(form) for form in forms})
    for piece in _pieces(pid):
        for hit in prefixes.finditer(piece):
            for length in lengths:
                text = forms.get(piece[hit.start() : hit.start() + length])
                if text is not None:
                    counts[text] = counts.get(text, 0) + 1
    return counts
