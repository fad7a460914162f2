"""Message properties that pika cannot decode cost their own header only, not the connection and not the other headers.

Otherwise one message with, say, a timestamp of the year 10^11 among its headers makes pika close the connection of
every consumer that it is handed to, again and again; and a stream's reader would not see the offset that the broker has
written beside it.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pika
import pika.data

_LENGTHS = {
    **dict.fromkeys((b"t", b"b", b"B"), 1),
    **dict.fromkeys((b"U", b"u", b"s"), 2),
    **dict.fromkeys((b"I", b"i", b"f"), 4),
    **dict.fromkeys((b"L", b"l", b"d", b"T"), 8),
    b"D": 5,
    b"V": 0,
}
"""Bytes of a field value by its type (AMQP 0-9-1, 4.2.5.5, with RabbitMQ's errata)."""
_COUNTED = frozenset({b"S", b"x", b"A", b"F"})
"""Types that begin with their length, 4 bytes."""
_LENGTH = struct.Struct(">I")


def decode_table(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    """A table's fields that can be decoded, and where it ends. KeyError, struct.error: nobody can say where it ends."""
    (size,) = _LENGTH.unpack_from(encoded, offset)
    offset += _LENGTH.size
    end = offset + size
    fields: dict[Any, Any] = {}
    while offset < end:
        name, offset = pika.data.decode_short_string(encoded, offset)
        after = _after(encoded, offset)
        with contextlib.suppress(Exception):  # whatever a stranger's bytes make pika raise, RecursionError included
            fields[name] = pika.data.decode_value(encoded, offset)[0]
        offset = after
    return fields, end


def _after(encoded: bytes, offset: int) -> int:
    """Where a field value ends."""
    kind = encoded[offset : offset + 1]
    if kind in _COUNTED:
        return int(offset + 1 + _LENGTH.size + _LENGTH.unpack_from(encoded, offset + 1)[0])
    return offset + 1 + _LENGTHS[kind]


def make_total() -> None:
    """From now on pika decodes tables like this, and properties that are broken beyond that count as absent."""
    decode = pika.BasicProperties.decode

    def decode_or_none(self: pika.BasicProperties, *args: Any, **kwargs: Any) -> pika.BasicProperties:
        try:
            return decode(self, *args, **kwargs)
        except Exception:  # noqa: BLE001 - as above
            self.__init__()
            return self

    pika.BasicProperties.decode = decode_or_none
    pika.data.decode_table = decode_table
