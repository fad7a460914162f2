"""LDAP messages (RFC 4511) of an event's way: search and modify as bytes, and what answers them.

BER with definite lengths (5.1). ldap3 makes these through pyasn1, which was half of a consumer's work
(docs/adr/0019); the rarer operations are left to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import ldap3
from ldap3.core.results import RESULT_CODES

MOST_ID = 2**31 - 1
"""maxInt (4.1.1)."""
MOST_BYTES = 16 * 2**20
"""Of one message: an entry has its memberships in it, of which there can be thousands."""
UNSOLICITED = 0
"""The message id of what nobody has asked for (4.4)."""
UNBIND = b"\x42\x00"
"""UnbindRequest (4.3): nothing answers it."""
EVERY_ENTRY = b"\x87\x0bobjectClass"
"""The filter (objectClass=*)."""

_INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET = 0x02, 0x04, 0x0A, 0x30, 0x31
_SEARCH, _MODIFY = 0x63, 0x66
_MOST_LENGTH_BYTES = 4
_LONG = 0x80
_OPERATIONS = {
    ldap3.MODIFY_ADD: b"\x0a\x01\x00",
    ldap3.MODIFY_DELETE: b"\x0a\x01\x01",
    ldap3.MODIFY_REPLACE: b"\x0a\x01\x02",
}
_NOTHING_IN_RETURN = b"\x02\x01\x00\x01\x01\x00"
"""No time limit but our own, and values with the types."""

Changes = dict[str, list[tuple[str, list[bytes]]]]
"""By attribute, in this order: ldap3's MODIFY_ADD, MODIFY_DELETE or MODIFY_REPLACE, and values."""


class Kind(IntEnum):
    """The operations that answer ours, by their tags."""

    ENTRY = 0x64
    DONE = 0x65
    MODIFIED = 0x67
    REFERENCE = 0x73
    EXTENDED = 0x78


class Scope(IntEnum):
    """Of a search (4.5.1.2)."""

    BASE = 0
    SUBTREE = 2


class UndecodableError(ValueError):
    """Not LDAP, or not as RFC 4511 has it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One message from the server."""

    number: int
    """The id of the request that it answers."""
    kind: int
    """The operation's tag; a Kind, or one that says nothing to us."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """LDAPResult (4.1.9)."""

    code: int
    words: str
    """The server's diagnostic message, or the name of the code."""


# --- requests


def sized(tag: int, content: bytes) -> bytes:
    """One element: tag, length, content."""
    size = len(content)
    if size < _LONG:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG | len(length))) + length + content


def message(number: int, operation: bytes) -> bytes:
    """LDAPMessage (4.1.1) without controls; `number` is above 0."""
    return sized(_SEQUENCE, sized(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big")) + operation)


def search(base: str, scope: Scope, search_filter: bytes, attributes: tuple[str, ...], *, most: int) -> bytes:
    """SearchRequest (4.5.1) for at most so many entries; `search_filter` as search_filter.py makes it."""
    how = sized(_OCTETS, base.encode()) + bytes((_ENUMERATED, 1, scope, _ENUMERATED, 1, 0))
    limit = sized(_INTEGER, most.to_bytes(most.bit_length() // 8 + 1, "big"))
    return sized(_SEARCH, how + limit + _NOTHING_IN_RETURN + search_filter + _names(attributes))


@lru_cache(maxsize=64)
def _names(attributes: tuple[str, ...]) -> bytes:
    return sized(_SEQUENCE, b"".join(sized(_OCTETS, name.encode()) for name in attributes))


def modify(dn: str, changes: Mapping[str, Sequence[tuple[str, Sequence[bytes]]]]) -> bytes:
    """ModifyRequest (4.6)."""
    parts = [
        sized(_SEQUENCE, _OPERATIONS[kind] + sized(_SEQUENCE, sized(_OCTETS, name.encode()) + _values(values)))
        for name, steps in changes.items()
        for kind, values in steps
    ]
    return sized(_MODIFY, sized(_OCTETS, dn.encode()) + sized(_SEQUENCE, b"".join(parts)))


def _values(values: Sequence[bytes]) -> bytes:
    return sized(_SET, b"".join([sized(_OCTETS, value) for value in values]))


# --- answers


def size_of_first(data: bytes | bytearray) -> int | None:
    """How many bytes the message at the beginning has; None while that is not known. UndecodableError: it is none."""
    if len(data) < 2:
        return None
    if data[0] != _SEQUENCE:
        raise UndecodableError("no LDAP message")
    size, begin = data[1], 2
    if size >= _LONG:
        begin += size - _LONG
        if not 2 < begin <= 2 + _MOST_LENGTH_BYTES:
            raise UndecodableError("no length that LDAP has")
        if len(data) < begin:
            return None
        size = int.from_bytes(data[2:begin], "big")
    if size > MOST_BYTES:
        raise UndecodableError(f"a message of {size} bytes, the most is {MOST_BYTES}")
    return begin + size


def decode(data: bytes) -> Answer:
    """One whole message. UndecodableError."""
    at, end = _expect(_SEQUENCE, data, 0, len(data))
    if end != len(data):
        raise UndecodableError("bytes behind the message")
    begin, at = _expect(_INTEGER, data, at, end)
    if not 0 < at - begin <= _MOST_LENGTH_BYTES:
        raise UndecodableError("a message id of no or too many bytes")
    number = int.from_bytes(data[begin:at], "big", signed=True)
    kind, begin, at = _element(data, at, end)
    return Answer(number, kind, data[begin:at])


def result(answer: Answer) -> Result:
    """The result in an answer's last message. UndecodableError."""
    data = answer.content
    begin, at = _expect(_ENUMERATED, data, 0, len(data))
    if not 0 < at - begin <= _MOST_LENGTH_BYTES:
        raise UndecodableError("a result code of no or too many bytes")
    code = int.from_bytes(data[begin:at], "big", signed=True)
    _, at = _expect(_OCTETS, data, at, len(data))
    begin, at = _expect(_OCTETS, data, at, len(data))
    words = data[begin:at].decode("utf-8", "replace") or str(RESULT_CODES.get(code, ""))
    return Result(code, words[:500])


def entry(answer: Answer) -> tuple[str, dict[str, list[bytes]]]:
    """DN and attributes of a found entry (4.5.2). UndecodableError."""
    data = answer.content
    begin, at = _expect(_OCTETS, data, 0, len(data))
    dn = data[begin:at].decode("utf-8", "replace")
    at, end = _expect(_SEQUENCE, data, at, len(data))
    attributes: dict[str, list[bytes]] = {}
    while at < end:
        inside, at = _expect(_SEQUENCE, data, at, end)
        begin, behind = _expect(_OCTETS, data, inside, at)
        values = attributes[data[begin:behind].decode("ascii", "replace")] = []
        inside, behind = _expect(_SET, data, behind, at)
        while inside < behind:
            begin, inside = _expect(_OCTETS, data, inside, behind)
            values.append(data[begin:inside])
    return dn, attributes


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element, one after the other. UndecodableError."""
    at = 0
    while at < len(data):
        tag, begin, at = _element(data, at, len(data))
        yield tag, data[begin:at]


def _expect(tag: int, data: bytes, at: int, end: int) -> tuple[int, int]:
    found, begin, behind = _element(data, at, end)
    if found != tag:
        raise UndecodableError("an element of another type than belongs there")
    return begin, behind


def _element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, and where the content of the element that begins here begins and ends: no later than `end`."""
    begin = at + 2
    if begin > end:
        raise UndecodableError("an element that is cut off")
    size = data[at + 1]
    if size >= _LONG:
        length, begin = begin, begin + size - _LONG
        if not length < begin <= length + _MOST_LENGTH_BYTES or begin > end:
            raise UndecodableError("no length that LDAP has")
        size = int.from_bytes(data[length:begin], "big")
    if begin + size > end:
        raise UndecodableError("an element longer than what it is in")
    return data[at], begin, begin + size
