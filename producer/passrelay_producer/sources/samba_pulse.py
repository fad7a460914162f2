"""Notices that the controller's database moved, many times a second, for next to nothing.

A search of the rootDSE through ldap3 was measured to take 1 ms of CPU on an idle host, most of it for encoding; to send
the same bytes again and to compare the answer with the last one takes a third of it or less.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Self

import ldap3
from ldap3.operation.search import search_operation
from ldap3.protocol.rfc4511 import LDAPMessage, MessageID, ProtocolOp
from ldap3.strategy.base import BaseStrategy
from ldap3.utils.asn1 import decode_message_fast, encode  # type: ignore[attr-defined]  # types-ldap3 lacks encode

from passrelay_producer.sources.samba_directory import CROWDED_SECONDS
from passrelay_schemas.errors import UnavailableError

_TIMEOUT_SECONDS = 60
_MAX_ANSWER_BYTES = 65536
_SEARCH_RESULT_DONE = 5
"""The application tag that ends the answer to a search (RFC 4511 4.5.2)."""


def _request() -> bytes:
    message = LDAPMessage()
    message["messageID"] = MessageID(1)
    search = search_operation(
        "",
        "(objectClass=*)",
        ldap3.BASE,
        ldap3.DEREF_NEVER,
        ["highestCommittedUSN"],
        size_limit=0,
        time_limit=0,
        types_only=False,
        auto_escape=None,
        auto_encode=None,
    )
    message["protocolOp"] = ProtocolOp().setComponentByName("searchRequest", search)
    return bytes(encode(message))


class Pulse:
    """One connection to the private LDAP socket, used for one question only. Errors: UnavailableError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._request = _request()
        self._last = b""
        self.crowded = False
        """The last answer had to wait, see `SambaDirectory.crowded`."""
        self._socket = _socket()

    def __enter__(self) -> Self:
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            self._socket.close()
            raise self._unavailable(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def move(self) -> None:
        """Go on over another connection, as `SambaDirectory.move`."""
        new = _socket()
        try:
            new.connect(str(self._path))
        except OSError:  # nobody has room: the old one still serves
            new.close()
            return
        self._socket.close()
        self._socket = new

    def moved(self) -> bool:
        """True when highestCommittedUSN differs from the last time, and the first time."""
        answer, asked = b"", time.monotonic()
        try:
            self._socket.sendall(self._request)
            # Mostly it is the last answer again, which needs no decoding.
            while (not answer or answer != self._last) and not _complete(answer):
                part = self._socket.recv(_MAX_ANSWER_BYTES)
                if not part or len(answer) > _MAX_ANSWER_BYTES:
                    raise ConnectionError("closed by the server")
                answer += part
        except OSError as error:
            raise self._unavailable(error) from None
        except (KeyError, IndexError, ValueError, TypeError):  # of ldap3's decoder
            raise UnavailableError(f"{self._path}: its answer is no LDAP message: is it samba's socket?") from None
        self.crowded = time.monotonic() - asked > CROWDED_SECONDS
        moved = answer != self._last
        self._last = answer
        return moved

    def _unavailable(self, error: OSError) -> UnavailableError:
        return UnavailableError(f"{self._path}: {error}: is samba running, and is this process root?")


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)  # type: ignore[attr-defined, unused-ignore] # not on Windows
    made.settimeout(_TIMEOUT_SECONDS)
    return made


def _complete(answer: bytes) -> bool:
    """True when the last message of a search's answer is there, whatever its result."""
    while answer:
        size = BaseStrategy.compute_ldap_message_size(answer)
        if size == -1 or size > len(answer):
            return False
        if decode_message_fast(answer[:size])["protocolOp"] == _SEARCH_RESULT_DONE:
            return True
        answer = answer[size:]
    return False
