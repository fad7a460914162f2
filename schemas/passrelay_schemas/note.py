"""Notes for the operator: account and diagnostic of a record, which only the ops key's holder may read.

`OPS_KEY_ID.SEALED_KEY.SEALED_TEXT`, the last two as base64url: the text with AES-256-GCM under a note key (nonce, then
ciphertext and tag), the note key with HPKE (RFC 9180) to the ops key. HPKE alone for each note, the form without the
middle part that earlier versions wrote and this one still opens, was a sixth of a consumer's work (docs/adr/0024).
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from passrelay_schemas import limits
from passrelay_schemas.errors import MalformedError
from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener, seal
from passrelay_schemas.strict_json import b64url, from_b64url

_KEY_INFO = b"passrelay.note-key/1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_MOST_NOTES = 10_000
"""Under one note key. Random nonces allow for 2^32 (NIST SP 800-38D 8.3); so few that a memory image opens little."""
_MOST_SECONDS = 3600


@dataclass(frozen=True, slots=True, repr=False)
class _NoteKey:
    """A key of this process, and the same sealed to an ops key."""

    ops_key_id: str
    cipher: AESGCM
    sealed: str
    until: float
    """time.monotonic"""


class NoteSealer:
    """Seals notes. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: _NoteKey | None = None
        self._left = 0

    def seal(self, text: str, *, event_id: UUID, ops_key: KeyDocument) -> str:
        """A note bound to the event, padded to one size; what does not fit is cut."""
        raw = text.encode("utf-8", "replace")[: limits.NOTE_BYTES].decode("utf-8", "ignore").encode("utf-8")
        key, nonce = self._key_for(ops_key), secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + key.cipher.encrypt(nonce, raw.ljust(limits.NOTE_BYTES), _info(event_id))
        return f"{key.ops_key_id}.{key.sealed}.{b64url(sealed)}"

    def _key_for(self, ops_key: KeyDocument) -> _NoteKey:
        now = time.monotonic()
        with self._lock:
            key = self._key
            if key is None or not self._left or now > key.until or key.ops_key_id != ops_key.key_id:
                key = self._key = _made(ops_key, until=now + _MOST_SECONDS)
                self._left = _MOST_NOTES
            self._left -= 1
            return key


def _made(ops_key: KeyDocument, *, until: float) -> _NoteKey:
    key = secrets.token_bytes(_KEY_BYTES)
    return _NoteKey(ops_key.key_id, AESGCM(key), b64url(seal(key, info=_KEY_INFO, recipient=ops_key)), until)


def note_key_id(note: str) -> str:
    """The id of the ops key that a note was sealed to."""
    return note.partition(".")[0]


def open_note(note: str, *, event_id: UUID, opener: Opener) -> str:
    """The text of a note; MalformedError when it is not one or belongs to another event."""
    _, *parts = note.split(".")
    if len(parts) == 1:  # HPKE alone
        raw = opener.open(from_b64url(parts[0], what="note"), info=_info(event_id))
    elif len(parts) == 2:
        raw = _opened(_cipher(opener, parts[0]), from_b64url(parts[1], what="note"), event_id)
    else:
        raise MalformedError("note: not a key's id and one or two sealed parts")
    return raw.decode("utf-8", "replace").rstrip(" ")


@lru_cache(maxsize=64)
def _cipher(opener: Opener, sealed_key: str) -> AESGCM:
    """Most notes that are read one after the other have the same key."""
    key = opener.open(from_b64url(sealed_key, what="note"), info=_KEY_INFO)
    if len(key) != _KEY_BYTES:
        raise MalformedError(f"note: its key has not {_KEY_BYTES} bytes")
    return AESGCM(key)


def _opened(cipher: AESGCM, sealed: bytes, event_id: UUID) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _info(event_id))
    except (InvalidTag, ValueError):
        raise MalformedError("the note cannot be opened: it was changed, or belongs to another event") from None


def _info(event_id: UUID) -> bytes:
    return b"passrelay.note/1 " + str(event_id).encode()
