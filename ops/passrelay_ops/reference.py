"""docs/configuration.md, written from the settings' own docstrings so that it cannot lie.

`python -m passrelay_ops.reference docs/configuration.md` writes it; it is committed, and a test compares.
"""

from __future__ import annotations

import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from passrelay_schemas.secret import Secret
from passrelay_schemas.settings import ROLES

_HEAD = """\
# Configuration

Each role reads one TOML file: `/etc/passrelay/producer.toml` on a domain controller, `/etc/passrelay/consumer.toml`
near IdM, `/etc/passrelay/ops.toml` where an operator works; `--config PATH` names another. Complete examples are in
[ops/examples](../ops/examples). `passrelay config check` finds every fault: unknown keys, wrong types, missing or
unreadable files, private files that others can read.

An environment variable `PASSRELAY_<SECTION>__<KEY>` wins over the file; lists and tables are given as JSON.

This page is generated from the settings (`python -m passrelay_ops.reference docs/configuration.md`).
"""
_PLAIN = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    Secret: "text",
    datetime: "RFC 3339 time",
}


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, (section, many) in _sections().items():
        roles = [role for role, settings in ROLES.items() if name.partition(".")[0] in settings.model_fields]
        title = f"[[{name}]]" if many and "." not in name else f"[{name}]"
        parts.append(f"## {title}\n\n{_sentence(section.__doc__)} Read by {_and(roles)}.\n")
        parts.append("\n".join(_table(name, section, many=many)) + "\n")
    return "\n".join(parts)


def _sections() -> dict[str, tuple[type[BaseModel], bool]]:
    """Every table by its name in the file, and whether it may stand several times."""
    found: dict[str, tuple[type[BaseModel], bool]] = {}
    for role in ROLES.values():
        for name, field in role.model_fields.items():
            _add(found, name, field, many=False)
    return found


def _add(found: dict[str, tuple[type[BaseModel], bool]], name: str, field: FieldInfo, *, many: bool) -> None:
    model = _model(field.annotation)
    if model is None or name in found:
        return
    # A table of one that may stand several times stands as often.
    many = many or typing.get_origin(field.annotation) is tuple
    found[name] = (model, many)
    for inner, inner_field in model.model_fields.items():
        _add(found, f"{name}.{inner}", inner_field, many=many)
    if all(_model(inner.annotation) for inner in model.model_fields.values()):
        del found[name]  # [source] has no keys of its own, only tables


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model(part))), None)


def _table(name: str, section: type[BaseModel], *, many: bool) -> Iterator[str]:
    yield "| Key | Type | Default | Meaning |" if many else "| Key | Type | Default | Meaning | Environment |"
    yield "|---|---|---|---|" if many else "|---|---|---|---|---|"
    for key, field in section.model_fields.items():
        if _model(field.annotation):
            continue  # it has a table of its own
        cells = [f"`{key}`", _type(field), _default(field), _sentence(field.description)]
        if not many:
            cells.append(f"`PASSRELAY_{name.replace('.', '__').upper()}__{key.upper()}`")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    if many and "." not in name:
        yield ""
        yield f"As a whole: `PASSRELAY_{name.upper()}`, a JSON list of objects."


def _type(field: FieldInfo) -> str:
    text = _name(field.annotation)
    limits: dict[str, float] = {}
    for rule in _rules(field.annotation, field.metadata):
        limits |= {bound: getattr(rule, bound) for bound in ("ge", "gt", "le", "lt") if hasattr(rule, bound)}
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return ", ".join([text, *(f"{words[bound]} {value:,}" for bound, value in limits.items())])


def _rules(annotation: Any, rules: list[Any]) -> Iterator[Any]:
    """The limits of a field; those of an optional one stand inside its union."""
    for rule in rules:
        yield from _rules(None, rule.metadata) if isinstance(rule, FieldInfo) else (rule,)
    for part in typing.get_args(annotation):
        if typing.get_origin(part) is typing.Annotated:
            yield from _rules(None, list(part.__metadata__))


def _name(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _name(inner[0])
    if origin in {typing.Union, types.UnionType}:
        return _name(next(part for part in inner if part is not type(None)))
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if origin is tuple:
        return f"list of {_name(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f'`"{member.value}"`' for member in annotation)
    return _PLAIN[annotation]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**needed**"
    if field.default is None:
        return "unset"
    if field.default == ():
        return "empty"
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, int | float) else f'`"{value}"`'


def _sentence(text: str | None) -> str:
    # A DN's <suffix> and {sam} are text, not HTML.
    plain = " ".join((text or "").split())
    return re.sub(r"<(\w+)>", r"&lt;\1&gt;", plain)


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def main(path: Path) -> None:
    """Write the page."""
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
