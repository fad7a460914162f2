"""One connection to an LDAP server for several threads: many requests on their way, each answer to whom it belongs.

Each request has a message id of its own (RFC 4511 4.1.1.1), and a server may answer in any order. Of the threads that
wait, one reads for all; when it has its own answer it hands the reading on to another.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from passrelay_consumer.ldap_messages import (
    MOST_ID,
    UNBIND,
    UNSOLICITED,
    Answer,
    Kind,
    UndecodableError,
    decode,
    message,
    result,
    size_of_first,
)
from passrelay_consumer.result_codes import DirectoryError

_PIECE_BYTES = 16384
"""A whole TLS record (RFC 8446 5.1): the rest of one would wait in OpenSSL, where poll does not see it."""
_MOST_ANSWER_BYTES = 64 * 2**20
"""Of all messages that answer one request: audit asks for fifty users at once, and all their memberships come along."""
_KEPT_BYTES = 128
"""What Python takes for an answer beside its content: empty ones without end are too large too."""
_LAST = frozenset({Kind.DONE, Kind.MODIFIED})
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_Mail = list[Answer] | str
_READ = "to read for all"


@dataclass(slots=True, eq=False)
class _Call:
    """A request on its way. Its mail: its answers, why there are none, or that it is to read from now on."""

    mail: queue.SimpleQueue[_Mail] = field(default_factory=queue.SimpleQueue)
    answers: list[Answer] = field(default_factory=list)
    size: int = 0


class NotSentError(DirectoryError):
    """The connection was over already: nothing of the request was sent."""


class SharedConnection:
    """Safe for any number of threads. It never comes back: what fails below LDAP ends it for all who wait."""

    def __init__(self, connected: socket.socket, timeout_seconds: float) -> None:
        """`connected` is open and bound; it belongs to this object from now on. Each call has its timeout."""
        connected.settimeout(0)
        self._socket = connected
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        """For what follows; never held while waiting."""
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._users = 0
        self._read_by_one = False
        self._over: str | None = None
        """Why nothing new is sent."""
        self._broken = self._closed = False
        self._tls = threading.Lock()
        """OpenSSL's object is not for two threads at once."""
        self._sending = threading.Lock()
        """Held for a whole message."""
        self._piece = bytearray(_PIECE_BYTES)
        self._received = bytearray()
        self._reads_at = select.POLLIN

    @property
    def usable(self) -> bool:
        """It takes requests, as far as is known."""
        return self._over is None

    def ask(self, operation: bytes) -> list[Answer]:
        """What answers this operation, its result last; DirectoryError without a code when nothing does any more."""
        deadline = time.monotonic() + self._timeout
        number, call = self._begin()
        try:
            self._send(message(number, operation), deadline)
            return self._answers(call, deadline)
        except (OSError, UndecodableError) as error:
            raise DirectoryError(None, self._fail(_told(error))) from None
        except DirectoryError:
            raise
        except BaseException:
            self._fail("a call was given up")
            raise
        finally:
            self._leave(users=1)

    def close(self) -> None:
        """Take no more requests; what is on its way is still answered, then it unbinds and closes."""
        with self._lock:
            self._over = self._over or "the connection was closed"
        self._leave(users=0)

    # -- one call -----------------------------------------------------------------------------------------------

    def _begin(self) -> tuple[int, _Call]:
        with self._lock:
            if self._over is not None:
                raise NotSentError(None, self._over)
            self._last_id = self._last_id % MOST_ID + 1
            self._users += 1
            call = self._calls[self._last_id] = _Call()
            return self._last_id, call

    def _send(self, data: bytes, deadline: float) -> None:
        if not self._sending.acquire(timeout=max(0, deadline - time.monotonic())):
            raise self._late()
        try:
            rest = memoryview(data)
            while rest:
                with contextlib.suppress(*_AGAIN):
                    with self._tls:
                        sent = self._socket.send(rest)
                    rest = rest[sent:]
                    continue
                self._wait(select.POLLOUT, deadline)
        finally:
            self._sending.release()

    def _answers(self, call: _Call, deadline: float) -> list[Answer]:
        with self._lock:
            reads, self._read_by_one = not self._read_by_one, True
        if not reads:
            try:
                mail = call.mail.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._late() from None
            if mail is not _READ:
                return _opened(mail)
        while call.mail.empty():
            self._read(deadline)
        self._hand_on()
        return _opened(call.mail.get_nowait())

    def _hand_on(self) -> None:
        """Another one that waits reads; the one that asks next, when there is none."""
        with self._lock:
            heir = next(iter(self._calls.values()), None)
            self._read_by_one = heir is not None
            if heir is not None:
                heir.mail.put(_READ)

    # -- reading ------------------------------------------------------------------------------------------------

    def _read(self, deadline: float) -> None:
        """Wait for what comes; complete messages go to those who asked."""
        self._wait(self._reads_at, deadline)
        self._reads_at = select.POLLIN
        try:
            with self._tls:
                size = self._socket.recv_into(self._piece)
        except ssl.SSLWantWriteError:  # OpenSSL has something to say first
            self._reads_at |= select.POLLOUT
            return
        except _AGAIN:
            return
        if not size:
            raise ConnectionError("closed by the server")
        received = self._received
        received += memoryview(self._piece)[:size]
        while (whole := size_of_first(received)) is not None and whole <= len(received):
            first = bytes(memoryview(received)[:whole])
            del received[:whole]
            self._deliver(decode(first))

    def _deliver(self, answer: Answer) -> None:
        if answer.number == UNSOLICITED:
            if answer.kind != Kind.EXTENDED:
                raise UndecodableError("an unsolicited message that is no notification")
            raise ConnectionError(f"given up by the server: {result(answer).words}")
        with self._lock:
            call = self._calls.get(answer.number)
        if call is None:
            raise UndecodableError("an answer to nothing that was asked")
        call.size += len(answer.content) + _KEPT_BYTES
        if call.size > _MOST_ANSWER_BYTES:
            raise UndecodableError(f"an answer of more than {_MOST_ANSWER_BYTES} bytes")
        call.answers.append(answer)
        if answer.kind in _LAST:
            with self._lock:
                self._calls.pop(answer.number, None)
            call.mail.put(call.answers)

    def _wait(self, events: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise self._late()

    def _late(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._timeout} s")

    # -- the end ------------------------------------------------------------------------------------------------

    def _fail(self, why: str) -> str:
        """End it for all who wait; the first reason, which is every one's."""
        with self._lock:
            first, self._broken = not self._broken, True
            if first:
                self._over = why
            told = self._over or why
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.mail.put(told)
        if first:
            # Wakes whoever reads. Not SSLSocket's own way, which would go on in clear text.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        return told

    def _leave(self, *, users: int) -> None:
        """The last one out closes a connection that is over: until then nobody else may get its file descriptor."""
        with self._lock:
            self._users -= users
            if self._over is None or self._users or self._closed:
                return
            self._closed = True
        if not self._broken:
            with contextlib.suppress(OSError):
                self._send(message(self._last_id % MOST_ID + 1, UNBIND), time.monotonic())
        self._socket.close()


def _opened(mail: _Mail) -> list[Answer]:
    if isinstance(mail, list):
        return mail
    raise DirectoryError(None, mail)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
