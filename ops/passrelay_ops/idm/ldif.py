"""Change records of LDIF (RFC 2849): what ldapmodify reads, as values that can be compared, printed and applied."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from passrelay_schemas.errors import ConfigurationError

_WIDTH = 78
_SAFE = re.compile(r"(?![ :<])[ -~]*(?<! )")
"""SAFE-STRING, without the final blank that a reader could lose."""
_LINE = re.compile(r"([A-Za-z][A-Za-z0-9;-]*):([:<]?) *(.*)")

Operation = Literal["add", "delete", "replace"]
_OPERATIONS: dict[str, Operation] = {"add": "add", "delete": "delete", "replace": "replace"}
Kind = Literal["add", "modify", "delete"]


@dataclass(frozen=True)
class FromFile:
    """A value that stands in a file, so that it is never printed."""

    path: Path


Value = str | FromFile


@dataclass(frozen=True)
class Change:
    """Values of one attribute. `delete` without values means all of them."""

    operation: Operation
    attribute: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Record:
    """One entry to be added, modified or deleted; the changes of an addition are all `add`."""

    dn: str
    kind: Kind
    changes: tuple[Change, ...] = ()
    comment: str = ""
    """What a reader should know, without the number signs."""


class LdifError(ConfigurationError):
    """The text is not a change record of LDIF."""


def parse(text: str) -> list[Record]:
    """The records of an LDIF text; LdifError names the line that is none."""
    records: list[Record] = []
    comments: list[str] = []
    lines: list[str] = []
    for line in [*_unfolded(text), ""]:
        if line.startswith("#"):
            comments.append(line.removeprefix("#").removeprefix(" "))
        elif line:
            lines.append(line)
        elif lines:
            records.append(_record(lines, "\n".join(comments)))
            comments, lines = [], []
    return records


def _unfolded(text: str) -> Iterator[str]:
    pending: str | None = None
    for line in text.splitlines():
        if line.startswith(" ") and pending is not None:
            pending += line[1:]
            continue
        if pending is not None:
            yield pending
        pending = line
    if pending is not None:
        yield pending


def _record(lines: list[str], comment: str) -> Record:
    name, dn = _attribute(lines[0])
    if name.lower() != "dn" or not isinstance(dn, str) or len(lines) < 2:
        raise LdifError(f"LDIF line {lines[0]!r:.100}: a record begins with dn: and changetype:")
    name, kind = _attribute(lines[1])
    rest = lines[2:]
    if name.lower() == "changetype" and kind == "add":
        return Record(dn, "add", tuple(_grouped("add", [_attribute(line) for line in rest])), comment)
    if name.lower() == "changetype" and kind == "modify":
        return Record(dn, "modify", tuple(_modifications(rest)), comment)
    if name.lower() == "changetype" and kind == "delete" and not rest:
        return Record(dn, "delete", (), comment)
    raise LdifError(f"LDIF line {lines[1]!r:.100}: must be changetype: add, modify or delete")


def _grouped(operation: Operation, pairs: Iterable[tuple[str, Value]]) -> Iterator[Change]:
    values: dict[str, list[Value]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return (Change(operation, name, tuple(found)) for name, found in values.items())


def _modifications(lines: list[str]) -> Iterator[Change]:
    block: list[str] = []
    for line in [*lines, "-"]:
        if line != "-":
            block.append(line)
        elif block:
            name, attribute = _attribute(block[0])
            operation = _OPERATIONS.get(name)
            if operation is None or not isinstance(attribute, str):
                raise LdifError(f"LDIF line {block[0]!r:.100}: must be add:, delete: or replace: with an attribute")
            pairs = [_attribute(line) for line in block[1:]]
            for name, _ in pairs:
                if name.lower() != attribute.lower():
                    raise LdifError(f"LDIF: {name} stands below {operation}: {attribute}: write the same attribute")
            yield Change(operation, attribute, tuple(value for _, value in pairs))
            block = []


def _attribute(line: str) -> tuple[str, Value]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise LdifError(f"LDIF line {line!r:.100}: must be ATTRIBUTE: VALUE")
    name, form, text = found.groups()
    if form == ":":
        return name, base64.b64decode(text).decode("utf-8")
    if form == "<":
        return name, FromFile(Path(unquote(urlsplit(text).path)))
    return name, text


def render(records: Iterable[Record]) -> str:
    """The records as LDIF text that ldapmodify takes."""
    return "\n".join("\n".join(_rendered(record)) + "\n" for record in records)


def _rendered(record: Record) -> Iterator[str]:
    yield from (f"# {line}".rstrip() for line in record.comment.splitlines())
    yield from _folded("dn", record.dn)
    yield f"changetype: {record.kind}"
    for position, change in enumerate(record.changes):
        if record.kind == "modify":
            if position:
                yield "-"
            yield f"{change.operation}: {change.attribute}"
        for value in change.values:
            yield from _folded(change.attribute, value)


def _folded(name: str, value: Value) -> Iterator[str]:
    if isinstance(value, FromFile):
        line = f"{name}:< file://{quote(str(value.path))}"
    elif _SAFE.fullmatch(value):
        line = f"{name}: {value}"
    else:
        line = f"{name}:: {base64.b64encode(value.encode('utf-8')).decode('ascii')}"
    while len(line) > _WIDTH:
        # Before a blank where there is one, for whoever reads it; the blank itself belongs to the value.
        cut = line.rfind(" ", len(name) + 3, _WIDTH)
        cut = cut if cut > 0 else _WIDTH
        yield line[:cut]
        line = " " + line[cut:]
    yield line
