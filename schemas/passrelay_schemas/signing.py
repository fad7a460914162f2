"""Ed25519 signatures (RFC 8032) over envelopes and news: made when one is published, not when an event is spooled."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from passrelay_schemas.envelope import Envelope, SealedEvent, SignedHeader, finish
from passrelay_schemas.errors import BadSignatureError, RevokedError
from passrelay_schemas.keys import ED25519, KeyDocument, KeyStatus


class Signer:
    """A producer's private signing key. Its repr shows only the id."""

    def __init__(self, document: KeyDocument, private: bytes) -> None:
        self.document = document
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(private)
        self._latest: tuple[datetime, bytes] | None = None

    def __repr__(self) -> str:
        return f"Signer({self.document.key_id})"

    def sign(self, event: SealedEvent, *, signed_at: datetime) -> bytes:
        """The finished envelope for the broker."""
        latest = self._latest  # many events are signed at one moment
        if latest is None or latest[0] != signed_at:
            header = SignedHeader(signing_key_id=self.document.key_id, alg=ED25519, signed_at=signed_at)
            latest = self._latest = (signed_at, header.encode())
        return finish(event, latest[1], self.signature)

    def signature(self, message: bytes) -> bytes:
        """Over these bytes, which must say by their form what they are."""
        return self._key.sign(message)


def verify(envelope: Envelope, key: KeyDocument) -> None:
    """Check an envelope's signature with the keyring's entry: its algorithm counts, never the header's.

    Raises RevokedError for a revoked key and BadSignatureError when header, key and bytes do not belong together.
    """
    if envelope.signer.alg != key.algorithm:
        raise BadSignatureError("the header names another algorithm than the keyring does for this key")
    check(key, producer=envelope.header.producer, signature=envelope.signature, message=envelope.signing_input)


@lru_cache(maxsize=1024)
def _public_key(public: bytes) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(public)


def check(key: KeyDocument, *, producer: str, signature: bytes, message: bytes) -> None:
    """The message is signed with this key, and `producer`, whom it names, is the key's; errors as in `verify`."""
    if key.status is KeyStatus.REVOKED:
        raise RevokedError(f"signing key {key.key_id} of producer {key.producer} was revoked")
    if producer != key.producer:
        raise BadSignatureError("the header names another producer than the keyring does for this key")
    try:
        _public_key(key.public_bytes).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise BadSignatureError(f"the signature does not fit signing key {key.key_id}") from None
