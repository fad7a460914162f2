"""A private key's bytes under a passphrase: scrypt (RFC 7914) makes the key, AES-256-GCM (NIST SP 800-38D) seals.

PKCS #8 has no form for the hybrid key, so there is one form for all. Its parameters are part of its name: whoever can
write a file cannot make a reader spend more, and other parameters get another name. docs/keys.md shows the file.
"""

from __future__ import annotations

import secrets
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import BaseModel, ConfigDict, Field

from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import b64url, from_b64url

CIPHER: Final = "scrypt-n32768-r8-p3+A256GCM"
_N, _R, _P = 2**15, 8, 3
"""32 MB and a fifth of a second or more for each guess; one of the sets that OWASP recommends for passwords."""
_KEY_BYTES = 32
_SALT_BYTES = 16
_NONCE_BYTES = 12
LEAST_CHARACTERS = 16


class EncryptedKey(BaseModel):
    """The encrypted private bytes; all texts are base64url without padding."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    cipher: Literal["scrypt-n32768-r8-p3+A256GCM"] = CIPHER
    salt: str = Field(max_length=64)
    nonce: str = Field(max_length=64)
    sealed: str = Field(max_length=4096)


def encrypt(private: bytes, passphrase: Secret, *, bound_to: bytes) -> EncryptedKey:
    """`private` under the passphrase; `bound_to` says whose it is and is needed again. KeyFileError: too short."""
    if len(passphrase.reveal()) < LEAST_CHARACTERS:
        raise KeyFileError(
            f"passphrase: shorter than {LEAST_CHARACTERS} characters: make one with `openssl rand -base64 32`"
        )
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(_derive(passphrase, salt)).encrypt(nonce, private, bound_to)
    return EncryptedKey(salt=b64url(salt), nonce=b64url(nonce), sealed=b64url(sealed))


def decrypt(encrypted: EncryptedKey, passphrase: Secret, *, bound_to: bytes) -> bytes | None:
    """The private bytes; None when the passphrase is another one or anything was changed. MalformedError."""
    salt, nonce = from_b64url(encrypted.salt, what="salt"), from_b64url(encrypted.nonce, what="nonce")
    sealed = from_b64url(encrypted.sealed, what="sealed")
    if len(salt) != _SALT_BYTES or len(nonce) != _NONCE_BYTES:
        return None
    try:
        return AESGCM(_derive(passphrase, salt)).decrypt(nonce, sealed, bound_to)
    except InvalidTag:
        return None


def _derive(passphrase: Secret, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=_KEY_BYTES, n=_N, r=_R, p=_P).derive(passphrase.reveal().encode())
