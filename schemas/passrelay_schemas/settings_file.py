"""The file of a role: read, merged with the environment, and every fault told with its key and repair."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.settings import ROLES, RoleSettings

_LONGEST_NAME = 100
"""More of a wrong name is not told."""
_LONGEST_MESSAGE = 1000
"""Some quote a value: a wrong one of a megabyte must not fill the log."""
Settings = TypeVar("Settings", bound=RoleSettings)


def load(role: type[Settings], path: Path) -> Settings:
    """The settings of a role from file and environment; ConfigurationError lists every fault with key and repair."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"configuration {path}: missing: write it, or name another with --config") from None
    except OSError as error:
        raise ConfigurationError(f"configuration {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # tomllib lets some of int's and of the interpreter's own through
        raise ConfigurationError(f"configuration {path}: not TOML: {error}") from None
    _check_environment()
    _check_names(role, path, document)
    try:
        return role(**document)
    except ValidationError as error:
        faults = "\n".join(f"  {line}" for line in _faults(error, role))
        raise ConfigurationError(f"configuration {path}:\n{faults}") from None
    except (SettingsError, RecursionError) as error:
        raise ConfigurationError(f"environment: {error}: a whole section or list is written as JSON") from None


def _check_names(role: type[RoleSettings], path: Path, document: dict[str, Any]) -> None:
    # pydantic-settings would take these for options of its own (_env_file reads another file) instead of refusing them.
    hidden = [name for name in document if name.startswith("_")]
    if hidden:
        known = ", ".join(sorted(role.model_fields))
        raise ConfigurationError(f"configuration {path}:\n  {hidden[0]}: unknown key: known here: {known}")


def _check_environment() -> None:
    sections = {name for role in ROLES.values() for name in role.model_fields}
    for name, value in os.environ.items():
        if not name.upper().startswith("PASSRELAY_"):
            continue
        if name[10:].partition("__")[0].lower() not in sections:
            raise ConfigurationError(f"environment {_cut(name)}: no such section; known: {', '.join(sorted(sections))}")
        # Python keeps such bytes as lone surrogates, which pydantic cannot read.
        if any("\ud800" <= sign <= "\udfff" for sign in name + value):
            raise ConfigurationError(f"environment {_cut(name)}: not UTF-8: set it again in this encoding")


def _cut(text: str, most: int = _LONGEST_NAME) -> str:
    return text if len(text) <= most else text[:most] + "…"


def _faults(error: ValidationError, role: type[RoleSettings]) -> Iterator[str]:
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(_cut(str(part)) for part in item["loc"])
        message = _cut(str(item["msg"]).removeprefix("Value error, "), _LONGEST_MESSAGE)
        if item["type"] == "extra_forbidden":
            known = sorted(_keys_at(role, item["loc"][:-1]))
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            message = f"unknown key: {hint}"
        elif item["type"] == "missing":
            message = "is needed and missing"
        yield f"{place or 'file'}: {message}"


def _keys_at(model: type[BaseModel], place: tuple[Any, ...]) -> set[str]:
    for part in place:
        if isinstance(part, int):
            continue
        inner = _section_of(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return set()
        model = inner
    return set(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_of(inner)
        if found is not None:
            return found
    return None
