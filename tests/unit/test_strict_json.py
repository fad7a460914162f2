"""JSON and base64url from outside: one meaning, one text, and no content in any error."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from passrelay_schemas.errors import MalformedError
from passrelay_schemas.strict_json import b64url, from_b64url, parse_model, parse_object
from tests.lab.folder import CANARY


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_: str = Field(default="thing/1", alias="schema")
    number: int
    inner: list[int] = []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "\\u0062": 2}}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 01}',
        b'{"a": "\n"}',
        b'{"a": 1} x',
        b'{"a": 1}{"a": 1}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xc0\x80"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a": ' + b"9" * 50_000 + b"}",
    ],
)
def test_what_is_not_one_strict_object_is_malformed_without_a_trace_of_it(raw: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_object(raw, what="thing")
    assert str(caught.value).startswith("thing: ")
    assert len(str(caught.value)) < 80
    # json.JSONDecodeError.doc and UnicodeDecodeError.object hold the document
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_object_is_given_back_as_it_is() -> None:
    assert parse_object(b' {"a": {"b": [1, "\\u00fc"]}} \n', what="x") == {"a": {"b": [1, "ü"]}}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"schema": "thing/1"}, "number"),
        ({"number": 1}, "schema"),
        ({"schema": "thing/1", "number": CANARY}, "number"),
        ({"schema": "thing/1", "number": 1, "inner": [1, CANARY]}, "inner.1"),
        ({"schema": "thing/1", "number": 1, CANARY: 2}, "(unknown field)"),
        ({"schema_": "thing/1", "number": 1}, "schema"),
    ],
)
def test_a_wrong_model_names_the_place_and_not_the_value(document: object, place: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_model(Thing, json.dumps(document).encode(), what="thing")
    assert f"thing: {place}: " in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


@given(raw=st.binary(max_size=100))
def test_base64url_round_trip(raw: bytes) -> None:
    text = b64url(raw)
    assert from_b64url(text, what="x") == raw
    assert not set(text) & set("+/=")


@pytest.mark.parametrize(
    "text",
    [
        "QQ==",
        "QQ=",
        "=",
        "Q",
        "QUJDR",
        "Q Q",
        "QQ\n",
        "\nQQ",
        "Q+",
        "+/+/",
        "-_+/",
        "QR",
        "QUJ",
        "QUJDRF",
        "ÄÄ",
        "Q.Q",
        "\ud800",
        "QQ\x00",
    ],
)
def test_base64url_has_one_text_for_one_value(text: str) -> None:
    with pytest.raises(MalformedError, match="part: not base64url"):
        from_b64url(text, what="part")


@given(text=st.text(st.sampled_from("ABCDEQRSZabcxyz0189-_+/= "), max_size=12))
def test_what_decodes_encodes_to_the_same_text(text: str) -> None:
    try:
        raw = from_b64url(text, what="x")
    except MalformedError:
        return
    assert b64url(raw) == text
    assert base64.urlsafe_b64decode(text + "==") == raw
