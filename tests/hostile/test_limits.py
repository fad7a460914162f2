"""No input makes a parser take more than its size deserves: memory is counted, not time, and patterns are looked at."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tracemalloc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import passrelay_consumer
import passrelay_ops
import passrelay_producer
import passrelay_schemas
from passrelay_producer.sources.stdin import LineSplitter
from passrelay_schemas import limits
from tests.hostile.parsers import PARSERS, run

_parser: Any = importlib.import_module("re._parser")
_constants: Any = importlib.import_module("re._constants")
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)

_FACTOR = 64
"""Bytes of Python objects for each byte of JSON: an empty object takes 64 and is written with three."""
_BASE = 1_000_000
_LIMITS = {
    "envelope": limits.MAX_ENVELOPE_BYTES,
    "journal_record": limits.MAX_RECORD_BYTES,
    "news": limits.MAX_NEWS_BYTES,
    "event": limits.EVENT_BYTES[-1],
    "stdin_line": limits.MAX_LINE_BYTES,
    "public_key": limits.MAX_KEY_FILE_BYTES,
    "private_key": limits.MAX_KEY_FILE_BYTES,
}
_SHAPES = {
    "nested lists": b"[",
    "nested objects": b'{"a":',
    "lists side by side": b"[],",
    "objects side by side": b'{"":{}},',
    "one number": b"9",
    "one exponent": b"1e",
    "one text": b"x",
    "escapes": b"\\u00e9",
    "blanks": b" ",
}


def _shaped(shape: str, most: int) -> bytes:
    piece = _SHAPES[shape]
    head, tail = (b'{"protected":[', b"]}") if shape.endswith("side by side") else (b'{"protected":', b"}")
    if shape in ("one text", "escapes"):
        head, tail = head + b'"', b'"' + tail
    body = piece * ((most - len(head) - len(tail)) // len(piece))
    return head + body.rstrip(b",") + tail


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("name", _LIMITS)
def test_at_the_limit_no_shape_takes_much_more_memory_than_its_bytes(name: str, shape: str) -> None:
    raw = _shaped(shape, _LIMITS[name])
    run(PARSERS[name], raw)  # what is made once
    tracemalloc.start()
    try:
        run(PARSERS[name], raw)
        assert tracemalloc.get_traced_memory()[1] < _FACTOR * len(raw) + _BASE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["envelope", "journal_record", "news", "public_key", "private_key", "secret_file"])
def test_beyond_its_limit_nothing_is_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b'{"a":"' + b"x" * 10_000_000 + b'"}'
    monkeypatch.setattr("passrelay_schemas.strict_json.json.loads", lambda *_, **__: pytest.fail("parsed"))
    tracemalloc.start()
    try:
        run(PARSERS[name], raw)
        assert tracemalloc.get_traced_memory()[1] < _BASE
    finally:
        tracemalloc.stop()


def test_a_line_without_an_end_is_not_kept() -> None:
    splitter, chunk = LineSplitter(), b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert splitter.feed(chunk) == []
        assert tracemalloc.get_traced_memory()[1] < _BASE
    finally:
        tracemalloc.stop()
    assert splitter.feed(b"\n{}\n") == [None, b"{}"]


# --- patterns: pydantic's are of a library that never goes back (Rust's regex); Python's own can


def _modules() -> Iterator[ModuleType]:
    for room in (passrelay_schemas, passrelay_consumer, passrelay_producer, passrelay_ops):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if ".windows" not in found.name:
                yield importlib.import_module(found.name)


def _explodes(tree: Any, *, inside: bool = False) -> bool:
    """An endless repetition of something that is itself an endless repetition."""
    for operator, value in tree:
        endless = operator in _REPEATS and value[1] is _constants.MAXREPEAT
        if endless and inside:
            return True
        parts = value if isinstance(value, tuple | list) else ()
        for part in parts:
            trees = part if isinstance(part, list) else [part]
            if any(isinstance(one, _parser.SubPattern) and _explodes(one, inside=inside or endless) for one in trees):
                return True
    return False


@pytest.mark.parametrize(("pattern", "explodes"), [(r"(a+)+b", True), (r"(a|b*)*", True), (r"a+b+[c]{2,9}", False)])
def test_the_look_at_patterns_sees_the_classic(pattern: str, explodes: bool) -> None:
    assert _explodes(_parser.parse(pattern)) is explodes


def test_no_pattern_can_go_back_without_end() -> None:
    patterns = {
        (module.__name__, name): value
        for module in _modules()
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }
    assert len(patterns) > 8
    for place, pattern in patterns.items():
        assert not _explodes(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)), place
