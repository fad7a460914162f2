"""Reading a RabbitMQ stream over AMQP 0-9-1, to its end as it is at the start or on and on; it destroys nothing.

Streams need basic.qos, x-stream-offset and acks (which only give credit), and tell nobody where they end: the end is
found by reading the last chunk first.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError

from passrelay_schemas.errors import UnavailableError

_PREFETCH = 500
_PATIENCE_SECONDS = 30
"""A stream that is known to hold more but delivers nothing for so long is out of order."""
_GRACE_SECONDS = 2
"""How long a broker that answers before it reads its chunk may take where there should be a message."""
_EMPTY_SECONDS = 0.5
"""The same where there should be none: RabbitMQ 4.0 can answer so early that a message of just now is overlooked."""
_OFFSET = "x-stream-offset"


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message of a stream."""

    offset: int
    body: bytes
    properties: pika.BasicProperties


def read(connection: BlockingConnection, name: str, *, since: datetime | int | None = None) -> Iterator[StreamMessage]:
    """Every message from the first to the last one that is there now.

    `since` starts later: at an offset, or at the chunk that holds a moment. Holds some hundred messages at a time; what
    arrives meanwhile is not read. UnavailableError when the broker stops delivering before the end.
    """
    end = last_offset(connection, name)
    if end is None or (isinstance(since, int) and since > end):
        return
    with _Reader(connection, name, "first" if since is None else since) as reader:
        # Nothing may be as young as a moment; after one message, `end` is sure to come.
        moment = isinstance(since, datetime)
        message = reader.next() or reader.wait(_GRACE_SECONDS if moment else _PATIENCE_SECONDS)
        if message is None and moment:
            return
        while message is not None and isinstance(since, int) and message.offset < since:  # a chunk comes whole
            message = reader.wait(_PATIENCE_SECONDS)
        while message is not None:
            if message.offset <= end:
                yield message
            if message.offset >= end:
                return
            message = reader.wait(_PATIENCE_SECONDS)
    raise UnavailableError(f"stream {name}: nothing came for {_PATIENCE_SECONDS} s before its end at offset {end}")


def follow(connection: BlockingConnection, name: str, *, after: int | None, seconds: float) -> Iterator[StreamMessage]:
    """Every message behind offset `after` (None: from the first), also those to come, until `seconds` are over."""
    deadline = time.monotonic() + seconds
    # From `after` itself: not every version knows an offset where nothing is yet.
    with _Reader(connection, name, "first" if after is None else after) as reader:
        while (message := reader.wait(deadline - time.monotonic())) is not None:
            if after is None or message.offset > after:
                yield message


class Tail:
    """What came behind an offset since one last asked, for as long as one likes."""

    def __init__(self, connection: BlockingConnection, name: str, *, after: int | None) -> None:
        # From `after` itself: not every version knows an offset where nothing is yet.
        self._reader = _Reader(connection, name, "first" if after is None else after)
        self._after = after

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def new(self) -> Iterator[StreamMessage]:
        """Each message once; what was published in the last moments may only come the next time."""
        while (message := self._reader.next()) is not None:
            if self._after is None or message.offset > self._after:
                yield message


def last_offset(connection: BlockingConnection, name: str) -> int | None:
    """The offset of the newest message, or None for an empty stream."""
    with _Reader(connection, name, "last") as reader:
        message = reader.next()
        if message is None:
            # The count is up to five seconds old: it may speak of messages that have expired, or not yet of the first.
            message = reader.wait(_GRACE_SECONDS if reader.message_count else _EMPTY_SECONDS)
        newest = None
        while message is not None:
            newest = message.offset
            message = reader.next()
        return newest


class _Reader:
    """One consumer on a channel of its own."""

    def __init__(self, connection: BlockingConnection, name: str, offset: str | int | datetime) -> None:
        self._connection = connection
        self._name = name
        self._waiting: deque[StreamMessage] = deque()
        self._unacked: int | None = None
        self.message_count = 0
        self._channel = connection.channel()
        self._channel.basic_qos(prefetch_count=_PREFETCH)
        self._channel.basic_consume(name, self._received, arguments={_OFFSET: offset})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # BlockingChannel.close() rejects what it still holds, and to a reject on a stream the broker answers by closing
        # the whole connection. The channel below it closes without a reject.
        with contextlib.suppress(AMQPError, OSError):
            if self._channel.is_open:
                self._channel._impl.close()  # noqa: SLF001
                self._channel._flush_output(lambda: bool(self._channel.is_closed))  # noqa: SLF001

    def next(self) -> StreamMessage | None:
        """The next message, or None at the end.

        A broker answers on one channel in order and reads the stream when a consumer or an ack comes: if nothing came
        before the answer to a question that was asked after the ack, there is nothing more.
        """
        if not self._waiting:
            self._acknowledge()
            self.message_count = self._channel.queue_declare(self._name, passive=True).method.message_count
            self._connection.process_data_events(time_limit=0)
        return self._waiting.popleft() if self._waiting else None

    def wait(self, seconds: float) -> StreamMessage | None:
        """The next message, waiting so long for it; None if there was none."""
        if not self._waiting:
            self._acknowledge()
        deadline = time.monotonic() + seconds
        while not self._waiting and (left := deadline - time.monotonic()) > 0:
            self._connection.process_data_events(time_limit=left)
        return self._waiting.popleft() if self._waiting else None

    def _acknowledge(self) -> None:
        # Acks only give credit for more: a stream keeps everything.
        if self._unacked is not None:
            self._channel.basic_ack(self._unacked, multiple=True)
            self._unacked = None

    def _received(self, _: BlockingChannel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self._unacked = method.delivery_tag
        offset = (properties.headers or {}).get(_OFFSET)
        if not isinstance(offset, int):
            raise UnavailableError(f"stream {self._name}: the broker hands out a message without its offset")
        self._waiting.append(StreamMessage(offset, body, properties))
