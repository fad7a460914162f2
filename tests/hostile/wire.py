"""Message properties as bytes, and those that pika itself would never write."""

from __future__ import annotations

import struct
from typing import Any

import pika

from passrelay_schemas.amqp_decoding import make_total

make_total()

TOO_LATE = b"T" + struct.pack(">Q", 10**14)
"""A timestamp of the year 3,170,843."""
NOT_A_NUMBER = b"d" + struct.pack(">d", float("nan"))


class RawHeaders(pika.BasicProperties):  # type: ignore[misc]
    """Properties whose headers are these bytes: names and values as they stand on the wire."""

    def __init__(self, fields: dict[bytes, bytes], **properties: Any) -> None:
        super().__init__(headers={}, **properties)
        table = b"".join(bytes([len(name)]) + name + value for name, value in fields.items())
        self._table = struct.pack(">I", len(table)) + table

    def encode(self) -> list[bytes]:
        """What pika sends."""
        empty = struct.pack(">I", 0)
        return [self._table if piece == empty else piece for piece in super().encode()]


def encoded(properties: pika.BasicProperties) -> bytes:
    """The bytes of a content header's properties."""
    return b"".join(properties.encode())


def decoded(raw: bytes) -> pika.BasicProperties:
    """What a receiver sees of them."""
    return pika.BasicProperties().decode(raw)
