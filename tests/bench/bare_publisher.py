"""Bodies into the work queue as fast as pika alone can: no spool, no signature, nothing to be kept in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import pika
from pika.channel import Channel

from passrelay_schemas import topology
from tests.lab.process import LabError

WINDOW = 512
"""Published and not yet confirmed, at most: as many as the producer has."""


def publish(parameters: pika.ConnectionParameters, bodies: Sequence[bytes]) -> float:
    """Seconds from the open channel to the last confirm; LabError when the broker refused one or was lost."""
    return _Loop(parameters, bodies).run()


class _Loop:
    def __init__(self, parameters: pika.ConnectionParameters, bodies: Sequence[bytes]) -> None:
        self._waiting = deque(bodies)
        self._published = 0
        self._open: dict[int, None] = {}  # delivery tags in the order of publishing
        self._failure = ""
        self._began = self._ended = 0.0
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
        )

    def run(self) -> float:
        """Serve until all is confirmed."""
        self._connection.ioloop.start()
        if self._failure:
            raise LabError(f"bare publisher: {self._failure}")
        return self._ended - self._began

    def _opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._begin())

    def _begin(self) -> None:
        self._began = time.perf_counter()
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._open) < WINDOW:
            body = self._waiting.popleft()
            self._channel.basic_publish(topology.EVENTS, "", body, pika.BasicProperties(delivery_mode=2))
            self._published += 1
            self._open[self._published] = None

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        if not isinstance(method, pika.spec.Basic.Ack):
            self._failure = "the broker refused a message"
            self._connection.close()
            return
        if method.multiple:
            while self._open and (first := next(iter(self._open))) <= method.delivery_tag:
                del self._open[first]
        else:
            del self._open[method.delivery_tag]
        self._fill()
        if not self._open:
            self._ended = time.perf_counter()
            self._connection.close()

    def _lost(self, connection: pika.SelectConnection, reason: BaseException) -> None:
        if not self._ended and not self._failure:
            self._failure = f"{type(reason).__name__}: {reason}"
        connection.ioloop.stop()
