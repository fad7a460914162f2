"""A server whose every byte the test decides, at the other end of a shared connection."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from passrelay_consumer.ldap_messages import Answer, Kind, decode, message, size_of_first, sized
from passrelay_consumer.shared_connection import SharedConnection

PATIENCE_SECONDS = 30


def done(kind: Kind = Kind.DONE, code: int = 0, words: str = "") -> bytes:
    """A result (RFC 4511 4.1.9)."""
    return sized(kind, sized(0x0A, bytes([code])) + sized(0x04, b"") + sized(0x04, words.encode()))


def found(dn: str, **attributes: bytes) -> bytes:
    """A found entry with one value for each attribute."""
    pairs = [
        sized(0x30, sized(0x04, name.encode()) + sized(0x31, sized(0x04, value))) for name, value in attributes.items()
    ]
    return sized(Kind.ENTRY, sized(0x04, dn.encode()) + sized(0x30, b"".join(pairs)))


def reference(url: str) -> bytes:
    """A reference to another server (4.5.3)."""
    return sized(Kind.REFERENCE, sized(0x04, url.encode()))


def notice(words: str) -> bytes:
    """A notice of disconnection (4.4.1), as a whole message."""
    name = sized(0x8A, b"1.3.6.1.4.1.1466.20036")
    operation = done(Kind.EXTENDED, 52, words)
    return sized(0x30, sized(0x02, b"\0") + operation + name)


class Script:
    """Both ends; `ask` runs on a thread of its own."""

    def __init__(self, threads: ThreadPoolExecutor, timeout_seconds: float) -> None:
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(PATIENCE_SECONDS)
        self.connection = SharedConnection(ours, timeout_seconds)
        self._threads = threads
        self._received = b""

    def ask(self, operation: bytes) -> Future[list[Answer]]:
        return self._threads.submit(self.connection.ask, operation)

    def request(self) -> Answer:
        """The next message that the connection sent."""
        while (size := size_of_first(self._received)) is None or size > len(self._received):
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError
            self._received += piece
        raw, self._received = self._received[:size], self._received[size:]
        return decode(raw)

    def says_more(self) -> bool:
        """Another request is there already, or half of one."""
        return bool(self._received or select.select([self.socket], [], [], 0)[0])

    def say(self, number: int, *operations: bytes) -> None:
        """Answers to this request, in one piece."""
        self.socket.sendall(b"".join(message(number, operation) for operation in operations))

    def hung_up(self) -> bool:
        """The other end is closed; waits for it."""
        return bool(select.select([self.socket], [], [], PATIENCE_SECONDS)[0]) and not self.socket.recv(65536)


@contextlib.contextmanager
def script(timeout_seconds: float = 2 * PATIENCE_SECONDS) -> Iterator[Script]:
    """One connection; everything is closed afterwards."""
    with ThreadPoolExecutor(16) as threads:
        made = Script(threads, timeout_seconds)
        try:
            yield made
        finally:
            made.socket.close()
            made.connection.close()
