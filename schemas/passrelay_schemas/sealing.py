"""Sealing and opening with HPKE (RFC 9180): only the recipient key's holder reads what is inside."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag

from passrelay_schemas.envelope import ProtectedHeader, SealedEvent
from passrelay_schemas.errors import MalformedError
from passrelay_schemas.event import PasswordChanged, encode
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.suites import SUITES


@lru_cache(maxsize=16)
def _public_key(algorithm: str, public: bytes) -> Any:
    return SUITES[algorithm].public_key(public)


def seal(plain: bytes, *, info: bytes, recipient: KeyDocument) -> bytes:
    """`plain` sealed to the recipient and bound to `info`: encapsulated key, ciphertext and tag in one."""
    suite = SUITES[recipient.algorithm]
    return suite.hpke.encrypt(plain, _public_key(recipient.algorithm, recipient.public_bytes), info=info)


def seal_event(
    event: PasswordChanged, *, producer: str, recipient: KeyDocument, event_id: UUID | None = None
) -> SealedEvent:
    """One event, padded and sealed under its protected header. EventError when it breaks a limit."""
    plain = encode(event)
    protected = ProtectedHeader(
        suite=recipient.algorithm,
        recipient_key_id=recipient.key_id,
        producer=producer,
        domain=event.domain,
        event_id=event_id or new_event_id(),
    ).encode()
    return SealedEvent(protected, (seal(plain, info=protected, recipient=recipient),))


class Opener:
    """The private half of a recipient or ops key, ready for use. Its repr shows only the id."""

    def __init__(self, document: KeyDocument, private: bytes) -> None:
        self.document = document
        self._suite = SUITES[document.algorithm]
        self._key = self._suite.private_key(private)

    def __repr__(self) -> str:
        return f"Opener({self.document.key_id})"

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """The plain bytes; MalformedError when the bytes or `info` were changed or were sealed to another key."""
        try:
            return self._suite.hpke.decrypt(sealed, self._key, info=info)
        except (InvalidTag, ValueError, TypeError):
            raise MalformedError("the sealed part cannot be opened: it or its header was changed") from None
