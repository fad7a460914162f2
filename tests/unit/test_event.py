"""The event's bytes: every password survives them, their length tells nothing, no error shows their content."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from passrelay_schemas import limits
from passrelay_schemas.errors import EmptyPasswordError, EventError, MalformedError, TooLargeError
from passrelay_schemas.event import Kind, PasswordChanged, decode, encode
from passrelay_schemas.verdict import Reason
from tests.lab.folder import CANARY
from tests.unit.builders import GUID, PASSWORD, event

SMALL, LARGE = limits.EVENT_BYTES


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256).filter(
    lambda text: utf16_units(text) <= limits.MAX_PASSWORD_UTF16
)


def padded(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass").ljust(SMALL)


def document(**fields: Any) -> dict[str, Any]:
    """A valid event's JSON object with some fields replaced, or dropped where the new value is Ellipsis."""
    replaced: dict[str, Any] = json.loads(encode(event())) | fields
    return {name: value for name, value in replaced.items() if value is not ...}


def shown(error: BaseException) -> str:
    """All that a log or a traceback could print of an error, the hidden context included."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        parts.append("".join(traceback.format_exception(current)) + repr(current) + repr(vars(current)))
        parts.append(repr(getattr(current, "doc", "")) + repr(getattr(current, "object", "")))
        current = current.__cause__ or current.__context__
    return "".join(parts)


def refusal(raw: bytes) -> str:
    """What is shown when these bytes are refused; empty when they are taken."""
    try:
        decode(raw)
    except EventError as error:
        return shown(error)
    return ""


# -- round trip ----------------------------------------------------------------------------------------------------


@given(password=passwords)
def test_every_password_survives_and_the_size_is_fixed(password: str) -> None:
    raw = encode(event(password))
    assert len(raw) in limits.EVENT_BYTES
    assert decode(raw) == event(password)


@pytest.mark.parametrize("plane", range(17))
def test_passwords_from_every_unicode_plane_survive(plane: int) -> None:
    step = 1 if plane == 0 else 4099
    points = [point for point in range(plane << 16, (plane + 1) << 16, step) if not 0xD800 <= point <= 0xDFFF]
    most = 256 if plane == 0 else 128
    for start in range(0, len(points), most):
        password = "".join(map(chr, points[start : start + most]))
        opened = decode(encode(event(password))).password
        assert opened is not None
        assert opened.reveal() == password


@pytest.mark.parametrize(
    "password",
    [
        "x",
        " ",
        "x" * 256,
        "\U0001f511" * 128,
        " \t both ends \t ",
        " " * 256,
        "\n",
        "trailing\u00a0",
        "{SSHA}0123456789abcdef0123456789abcdef0123456789abcdef",
        "{CLEAR}x",
        '"',
        '\\" \\\\ \\u0041 \\',
        '","kind":"expire","x":"',
        "}" * 10,
        "\x00",
        "a\x00b",
        "".join(map(chr, range(32))) + "\x7f\x80\x9f",
        "\ufeffbom",
        "\u2028\u2029",
        "e\u0301 is not \u00e9",
        "null",
        "Secret(***)",
    ],
)
def test_passwords_that_trip_naive_code_survive(password: str) -> None:
    opened = decode(encode(event(password))).password
    assert opened is not None
    assert opened.reveal() == password


@given(
    kvno=st.integers(0, limits.MAX_KVNO),
    changed_at=st.integers(0, limits.MAX_FILETIME),
    must_change=st.booleans(),
    kind=st.sampled_from([kind for kind in Kind if kind is not Kind.EXPIRE]),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=limits.MAX_NAME),
    upn=st.none() | st.just("alice@lab.example"),
)
def test_every_other_field_survives(**fields: Any) -> None:
    upn, name = fields.pop("upn"), fields.pop("name")
    change = event(sam_account_name=name, user_principal_name=upn, **fields)
    assert decode(encode(change)) == change


def test_expire_carries_no_password() -> None:
    tick = event(None, kind=Kind.EXPIRE, must_change=True)
    assert decode(encode(tick)) == tick
    assert b"password" not in encode(tick)


def test_text_is_utf8_and_not_ascii_escaped() -> None:
    assert "Schlüssel🔑".encode() in encode(event("Schlüssel🔑"))


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_all_usual_passwords_give_one_size() -> None:
    assert {len(encode(event("x" * length))) for length in range(1, 257)} == {SMALL}
    assert len(encode(event(None, kind=Kind.EXPIRE, must_change=True))) == SMALL


@pytest.mark.parametrize(("password", "size"), [("x", SMALL), ("x" * 256, SMALL), ("\x01" * 256, LARGE)])
def test_the_next_size_is_taken_only_when_the_first_is_full(password: str, size: int) -> None:
    change = event(password, user_principal_name="u" * 400)
    assert len(encode(change)) == size


def test_the_edge_between_the_sizes_is_exact() -> None:
    def long(upn: int) -> bytes:
        return encode(event("x", sam_account_name="\U0001f511" * 200, user_principal_name="u" * upn))

    room = SMALL - len(long(1).rstrip())
    assert (len(long(1 + room)), len(long(2 + room))) == (SMALL, LARGE)


def test_an_event_beyond_the_largest_size_is_refused() -> None:
    change = event("\x01" * 256, user_principal_name="\U0001f511" * limits.MAX_UPN)
    with pytest.raises(TooLargeError, match="4096"):
        encode(change)


# -- passwords that are refused --------------------------------------------------------------------------------------


def test_an_empty_password_is_refused_on_both_sides() -> None:
    with pytest.raises(EmptyPasswordError) as caught:
        encode(event(""))
    assert caught.value.reason is Reason.EMPTY_PASSWORD
    with pytest.raises(EmptyPasswordError):
        decode(padded(document(password="")))


@pytest.mark.parametrize("password", ["x" * 257, "\U0001f511" * 128 + "x", "\U0001f511" * 129, "x" * 100_000])
def test_more_than_256_utf16_units_are_refused_on_both_sides(password: str) -> None:
    with pytest.raises(TooLargeError):
        encode(event(password))
    if len(password.encode()) < 1500:
        with pytest.raises(TooLargeError):
            decode(padded(document(password=password)))


@pytest.mark.parametrize("password", ["\ud800", f"{CANARY}\udfff", f"\udc00\ud800{CANARY}"])
def test_lone_surrogates_are_refused_on_both_sides(password: str) -> None:
    from passrelay_schemas.secret import Secret

    change = event().model_copy(update={"password": Secret(password)})
    with pytest.raises(MalformedError) as caught:
        encode(change)
    assert CANARY not in shown(caught.value)
    for raw in (padded(document(password=password)), json.dumps(document(password=password)).encode().ljust(SMALL)):
        with pytest.raises(MalformedError) as caught:
            decode(raw)
        assert CANARY not in shown(caught.value)


# -- malformed events ----------------------------------------------------------------------------------------------

ACCOUNT = {"guid": str(GUID), "sid": "S-1-5-21-1-2-3-1105", "sam_account_name": "alice"}
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "blanks": b" " * SMALL,
    "no padding": encode(event()).rstrip(),
    "one byte more": encode(event()) + b" ",
    "one byte less": encode(event())[:-1],
    "cut in the middle": encode(event())[:200].ljust(SMALL),
    "two documents": (encode(event()).rstrip() * 2).ljust(SMALL),
    "not UTF-8": encode(event()).replace(CANARY.encode(), CANARY.encode() + b"\xff")[:SMALL],
    "utf-16": encode(event()).rstrip().decode().encode("utf-16-le").ljust(SMALL)[:SMALL],
    "byte order mark": (b"\xef\xbb\xbf" + encode(event()))[:SMALL],
    "list": padded([PASSWORD]),
    "text": padded(PASSWORD),
    "null": padded(None),
    "NaN": padded(document()).replace(b'"kvno": 7', b'"kvno": NaN')[:SMALL],
    "huge number": (json.dumps(document()).replace('"kvno": 7', '"kvno": 1' + "0" * 900)).encode().ljust(SMALL),
    "number beyond int": padded(document()).replace(b'"kvno": 7', b'"kvno": ' + b"9" * 1000).rstrip().ljust(SMALL),
    "infinite float": padded(document()).replace(b'"kvno": 7', b'"kvno": 1e999').rstrip().ljust(SMALL),
    "nesting": (b"[" * 4000).ljust(LARGE),
    "nesting in a field": (b'{"x":' * 800).ljust(LARGE),
    "closed nesting": b'{"account":' + (b"[" * 1000 + b"]" * 1000 + b"}").ljust(SMALL - 11),
    "doubled field": padded(document()).replace(b'"kvno": 7', b'"kvno": 7, "password": "' + CANARY.encode() + b'"')[
        :SMALL
    ],
    "doubled deeper": padded(document()).replace(b'"sid"', b'"sam_account_name": "eve", "sid"')[:SMALL],
    "unknown field": padded(document(surprise=PASSWORD)),
    "password as a key": padded(document() | {PASSWORD: PASSWORD}),
    "password as a key of the account": padded(document(account=ACCOUNT | {PASSWORD: 1})),
    "no account": padded(document(account=...)),
    "no domain": padded(document(domain=...)),
    "no kvno": padded(document(kvno=...)),
    "no changed_at": padded(document(changed_at=...)),
    "no guid": padded(document(account={"sam_account_name": "alice"})),
    "no password": padded(document(password=...)),
    "password null": padded(document(password=None)),
    "password list": padded(document(password=[PASSWORD])),
    "password number": padded(document(password=12345)),
    "expire with a password": padded(document(kind="expire", must_change=True)),
    "expire without must_change": padded(document(kind="expire", password=...)),
    "kind is the password": padded(document(kind=PASSWORD)),
    "kvno true": padded(document(kvno=True)),
    "kvno text": padded(document(kvno="7")),
    "kvno float": padded(document(kvno=7.0)),
    "kvno negative": padded(document(kvno=-1)),
    "kvno too large": padded(document(kvno=2**32)),
    "changed_at beyond 9999": padded(document(changed_at=limits.MAX_FILETIME + 1)),
    "changed_at true": padded(document(changed_at=True)),
    "changed_at is the password": padded(document(changed_at=PASSWORD)),
    "must_change number": padded(document(must_change=1)),
    "must_change text": padded(document(must_change="yes")),
    "guid is the password": padded(document(account=ACCOUNT | {"guid": PASSWORD})),
    "sid is the password": padded(document(account=ACCOUNT | {"sid": PASSWORD})),
    "sid with a newline": padded(document(account=ACCOUNT | {"sid": "S-1-5-21-1-2-3-1105\n"})),
    "sid in foreign digits": padded(document(account=ACCOUNT | {"sid": "S-1-5-21-1-2-3-\u0661105"})),
    "sid too long": padded(document(account=ACCOUNT | {"sid": "S-1-5" + "-4294967295" * 17})),
    "name empty": padded(document(account=ACCOUNT | {"sam_account_name": ""})),
    "name too long": padded(document(account=ACCOUNT | {"sam_account_name": "a" * 257})),
    "name with a newline": padded(document(account=ACCOUNT | {"sam_account_name": f"{CANARY}\n"})),
    "name with an escape sequence": padded(document(account=ACCOUNT | {"sam_account_name": "a\x9b31m"})),
    "name with a surrogate": json.dumps(document(account=ACCOUNT | {"sam_account_name": "a\ud800"}))
    .encode()
    .ljust(SMALL),
    "upn too long": padded(document(account=ACCOUNT | {"user_principal_name": "u" * 1025})),
    "domain is the password": padded(document(domain=f"{PASSWORD}!")),
    "domain empty": padded(document(domain="")),
    "domain with a newline": padded(document(domain="lab.example\n")),
    "account is the password": padded(document(account=PASSWORD)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_event_is_malformed_and_no_error_shows_its_content(case: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decode(BROKEN[case])
    assert CANARY not in shown(caught.value)
    assert caught.value.__context__ is None
    assert str(caught.value).startswith("event: ")


@given(data=st.data())
def test_no_mutation_of_an_event_raises_anything_else_or_shows_the_password(data: st.DataObject) -> None:
    raw = bytearray(encode(event(f'{CANARY}":"{CANARY}\\","{CANARY}')))
    content = len(raw.rstrip())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, content - 1))] = data.draw(
            st.integers(0, 255) | st.sampled_from(list(b'":,{}[]\\0'))
        )
    assert CANARY not in refusal(bytes(raw))


@given(raw=st.binary(min_size=0, max_size=200), size=st.sampled_from(limits.EVENT_BYTES))
def test_no_bytes_raise_anything_but_event_errors(raw: bytes, size: int) -> None:
    with pytest.raises(EventError):
        decode(raw.ljust(size))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(PASSWORD),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(PASSWORD), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    name=st.sampled_from(["domain", "account", "password", "kvno", "changed_at", "must_change", "kind"]),
    value=json_values,
)
def test_no_value_of_a_field_raises_anything_else_or_is_shown(name: str, value: object) -> None:
    assert CANARY not in refusal(padded(document(**{name: value})))


def test_building_a_wrong_event_does_not_show_the_password() -> None:
    with pytest.raises(ValidationError) as caught:
        event(kind=Kind.EXPIRE)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValidationError) as caught:
        PasswordChanged.model_validate({"password": PASSWORD, "account": PASSWORD})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_domain_is_kept_in_lower_case_without_its_final_dot() -> None:
    assert event(domain="LAB.Example.").domain == "lab.example"
