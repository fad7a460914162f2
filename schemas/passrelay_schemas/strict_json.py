"""JSON from outside: UTF-8, one object, no doubled keys, no NaN; a failure says where, never what was there."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from passrelay_schemas.errors import MalformedError

Model = TypeVar("Model", bound=BaseModel)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedError("a field stands twice in one JSON object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON (RFC 8259)")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_doubles, parse_constant=_no_constant)
"""Made once: json.loads would make one for each document."""


def parse_object(raw: bytes, *, what: str) -> dict[str, Any]:
    """The JSON object in `raw`; MalformedError without any of its content."""
    # The errors of json and bytes.decode carry the whole document, so ours is raised outside the except blocks: even
    # __context__, which `from None` would keep, has nothing to show.
    document: Any = None
    fault = "not a JSON object"
    try:
        document = _DECODER.decode(raw.decode("utf-8"))
        if b"\\u" in raw:  # only an escape can make half a character, which nothing that is written later could hold
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except MalformedError as error:
        fault = str(error)
    except UnicodeEncodeError:
        document, fault = None, "a lone UTF-16 surrogate (RFC 7493 2.1)"
    except (ValueError, RecursionError):
        fault = "not UTF-8 JSON"
    if not isinstance(document, dict):
        raise MalformedError(f"{what}: {fault}")
    return document


def parse_model(model: type[Model], raw: bytes, *, what: str) -> Model:
    """`raw` as a validated model; MalformedError names the fields that are wrong, not their values."""
    return validate(model, parse_object(raw, what=what), what=what)


def validate(model: type[Model], document: dict[str, Any], *, what: str) -> Model:
    """A parsed object as a model; MalformedError names the fields that are wrong, not their values.

    A document that has a schema must say so: the default of the field is for writing, never for reading.
    """
    if "schema_" in model.model_fields and "schema" not in document:
        raise MalformedError(f"{what}: schema: Field required")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fault = describe(error)
    raise MalformedError(f"{what}: {fault}")  # outside the except block: the ValidationError holds the input


def describe(error: ValidationError) -> str:
    """Field names and rules of a validation error, without the values that broke them.

    The name of an unknown field is content too (a torn document can make a key of a password): only its place is told.
    """
    parts = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        names = (*item["loc"][:-1], "(unknown field)") if item["type"] == "extra_forbidden" else item["loc"]
        place = ".".join(str(part) for part in names) or "document"
        parts.append(f"{place}: {item['msg']}")
    return "; ".join(parts)


def b64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 2)."""
    return b64url_bytes(raw).decode("ascii")


def b64url_bytes(raw: bytes) -> bytes:
    """The same as ASCII bytes."""
    # Not urlsafe_b64encode(), whose translate() takes longer than all of this.
    return binascii.b2a_base64(raw, newline=False).replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")


def from_b64url(text: str, *, what: str) -> bytes:
    """Strict decoding: only the URL alphabet, no padding, no other characters, no spare bits set (RFC 4648 3.5)."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if b64url(raw) != text:  # b64decode lets + and / and spare bits pass: one value would have many texts
        raise MalformedError(f"{what}: not base64url without padding")
    return raw
