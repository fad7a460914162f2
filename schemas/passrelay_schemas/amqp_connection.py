"""pika's connection with frames joined: what is sent in one turn of its loop goes out in few TLS records.

pika 1.4 writes each frame by itself. A published message is three: over TLS three records, which the broker decrypts
and passes on one by one, and an acknowledgement is one more.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pika

RECORD_BYTES = 16384
"""The most in one TLS record (RFC 8446 5.1)."""

SSL_OP_ENABLE_KTLS = 0x8
"""OpenSSL's option, which a system's openssl.cnf can set (Python's ssl names it from 3.12 on). With it an interrupted
write goes on from the very memory that it was given, which a piece that grew no longer has."""


class FrameQueue(deque[bytes]):
    """What waits to be sent, in pieces of at most a record, but for frames that are larger by themselves.

    A piece whose sending was interrupted may grow: OpenSSL takes the same bytes, and more, from another place
    (SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, which Python's ssl sets). Not where the kernel encrypts: SSL_OP_ENABLE_KTLS.
    """

    def append(self, data: bytes) -> None:
        """At the end; to the last piece where both fit into one record."""
        if self and len(self[-1]) + len(data) <= RECORD_BYTES:
            data = self.pop() + data
        super().append(data)


class JoiningConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types
    """Used like pika's own."""

    def _proto_connection_made(self, transport: Any) -> None:
        # Neither has a public way; where a later pika has other names, it only goes back to a write for each frame.
        waiting = getattr(transport, "_tx_buffers", None)
        if waiting is not None:
            transport._tx_buffers = FrameQueue(waiting)  # noqa: SLF001
        transport._MAX_RECV_BYTES = RECORD_BYTES  # noqa: SLF001 - it reads 4096 at a time otherwise
        super()._proto_connection_made(transport)
