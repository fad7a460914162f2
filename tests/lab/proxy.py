"""A TCP proxy on loopback that can be cut, healed and made to hold: the network between two servers."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tests.lab.network import Reservations

_HOST = "127.0.0.1"
_ROUNDS = 5
_TIMEOUT_SECONDS = 10
_PIECE = 65536
_NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds (socket(7)): closing sends RST, so that each end knows at once that the other is gone."""


class Proxy:
    """Forwards its own port to another one until `cut`, and again from `heal`; `close` ends it for good."""

    def __init__(self, reservations: Reservations, target: int) -> None:
        self.port = reservations.port(_HOST)
        self._target = target
        self._connections: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._passing: int | None = None
        self.holding = threading.Event()
        """Something is held back, after `hold_after`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self.heal()

    def cut(self) -> None:
        """Reset every connection and refuse new ones; when it returns, nothing passes any more."""
        self._run(self._cut())

    def heal(self) -> None:
        """Take connections again. What was cut stays cut: both ends must connect anew."""
        self._run(self._heal())

    def hold_after(self, requests: int) -> None:
        """Let so many more requests pass to the server, and hold the next ones; answers pass. `cut` drops what is held.

        A client that waits for each answer sends a request in one piece, so pieces are counted.
        """
        self.holding.clear()
        self._passing = requests

    def close(self) -> None:
        """Cut, and end the proxy's thread. Harmless when it is closed."""
        if self._loop.is_closed():
            return
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_SECONDS)
        self._loop.close()

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(_TIMEOUT_SECONDS)

    # -- on the proxy's own thread

    async def _heal(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, _HOST, self.port)

    async def _cut(self) -> None:
        server, self._server = self._server, None
        self._passing = None
        if server is not None:
            # What was accepted just now becomes a task within some rounds of the loop. A server that is closed before
            # that would leave it open, and unknown.
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # the sockets are closed here

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._loop.create_task(self._forward(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        # A task that is cancelled before its first step never closes what it was given.
        connection.add_done_callback(lambda _: writer.close())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        pumps: list[asyncio.Task[None]] = []
        try:
            far_reader, far_writer = await asyncio.open_connection(_HOST, self._target)
            writers.append(far_writer)
            pumps = [
                self._loop.create_task(_pump(reader, far_writer, self._pass)),
                self._loop.create_task(_pump(far_reader, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):  # nobody listens there, or cut
            for each in writers:
                _reset(each)
        finally:
            for pump in pumps:
                pump.cancel()
            for each in writers:
                each.close()

    async def _pass(self) -> None:
        if self._passing is None:
            return
        self._passing -= 1
        if self._passing < 0:
            self.holding.set()
            await asyncio.Event().wait()  # until the connection is cut


async def _at_once() -> None:
    """Nothing is held."""


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_pass: Callable[[], Awaitable[None]] = _at_once
) -> None:
    try:
        while piece := await reader.read(_PIECE):
            await may_pass()
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # one of the ends is gone


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
