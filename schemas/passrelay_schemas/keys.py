"""Key files: a public document that may travel, and a private file that only its owner may read.

`<key_id>.pub.json` (passrelay.key/1) is enrolled on the other side; `<key_id>.key` (passrelay.private-key/1) is for its
holders alone: in clear, under a passphrase, or a signing key on Windows under DPAPI. A key's id is the SHA-256 of its
algorithm and public part, so two different keys never share one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from passrelay_schemas import dpapi, limits
from passrelay_schemas.envelope import KeyId, ProducerName
from passrelay_schemas.errors import ConfigurationError, KeyFileError, MalformedError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.key_encryption import EncryptedKey, decrypt, encrypt
from passrelay_schemas.secret import Secret
from passrelay_schemas.secret_file import mode_fault, read_secret_file
from passrelay_schemas.strict_json import b64url, from_b64url, parse_model
from passrelay_schemas.suites import MLKEM768_X25519, P256, SUITES

ED25519 = "Ed25519"
"""RFC 8032; the only signature algorithm so far."""
_ROOT = 0


class KeyUse(StrEnum):
    """What a key is for."""

    RECIPIENT = "recipient"  # events are sealed to it; its private part is on the consumers
    HOOK = "hook"  # the Windows hook seals passwords to it (P-256); its private part is on the consumers
    SIGNING = "signing"  # a producer signs with it; its private part is on one domain controller
    OPS = "ops"  # notes are sealed to it; its private part is with the operators


class KeyStatus(StrEnum):
    """A key's life. NEXT: made and carried to its readers, not used yet; it opens and verifies.

    ACTIVE: used for new events, notes and signatures. RETIRED: only opens and verifies. REVOKED: never used again.
    """

    NEXT = "next"
    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"

    @property
    def rank(self) -> int:
        """How far in its life: a key goes forward only."""
        return list(KeyStatus).index(self)


class KeyDocument(BaseModel):
    """The public half of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["passrelay.key/1"] = Field(default="passrelay.key/1", alias="schema")
    key_id: KeyId
    use: KeyUse
    algorithm: Annotated[str, Field(max_length=limits.MAX_SUITE)]
    public: str
    producer: ProducerName | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    status: KeyStatus = KeyStatus.ACTIVE
    status_since: AwareDatetime | None = None
    """Since when it has this status; None: since it was made."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key_id != key_id_of(self.algorithm, self.public_bytes):
            raise ValueError("key_id is not the hash of algorithm and public: the document was changed or damaged")
        if (self.use is KeyUse.SIGNING) != (self.producer is not None):
            raise ValueError("a signing key names its producer, every other key has none")
        known = {KeyUse.SIGNING: {ED25519}, KeyUse.HOOK: {P256}}.get(self.use, set(SUITES))
        if self.algorithm not in known:
            raise ValueError(f"algorithm of a {self.use} key must be one of {', '.join(sorted(known))}")
        try:
            if self.use is KeyUse.SIGNING:
                ed25519.Ed25519PublicKey.from_public_bytes(self.public_bytes)
            else:
                SUITES[self.algorithm].public_key(self.public_bytes)
        except ValueError:
            raise ValueError(f"public is not a public key of {self.algorithm}") from None
        return self

    @property
    def public_bytes(self) -> bytes:
        """The public key's raw bytes."""
        try:
            return from_b64url(self.public, what="public")
        except MalformedError as error:
            raise ValueError(str(error)) from None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the public part in groups of four, to be compared by voice."""
        digest = hashlib.sha256(self.public_bytes).hexdigest()[:32]
        return " ".join(digest[start : start + 4] for start in range(0, 32, 4))

    def with_status(self, status: KeyStatus) -> Self:
        """The document with another status, from now on."""
        return self.model_copy(update={"status": status, "status_since": utc_now().replace(microsecond=0)})

    def encode(self) -> bytes:
        """The document's bytes."""
        return (self.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n").encode()


class _PrivateDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    schema_: Literal["passrelay.private-key/1"] = Field(default="passrelay.private-key/1", alias="schema")
    key_id: KeyId
    use: KeyUse
    algorithm: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=limits.MAX_SUITE)]
    private: Secret | None = None
    encrypted: EncryptedKey | None = None
    protected: dpapi.ProtectedKey | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if [self.private, self.encrypted, self.protected].count(None) != 2:
            raise ValueError("must have exactly one of private, encrypted and protected")
        return self

    @property
    def bound_to(self) -> bytes:
        """What `encrypted` or `protected` belongs to: it opens under no other name."""
        return _bound_to(self.use, self.algorithm, self.key_id)


def _bound_to(use: KeyUse, algorithm: str, key_id: str) -> bytes:
    return f"passrelay.private-key/1 {use.value} {algorithm} {key_id}".encode()


def key_id_of(algorithm: str, public: bytes) -> str:
    """The id of a key: 24 base64url characters of SHA-256(algorithm NUL public)."""
    return b64url(hashlib.sha256(algorithm.encode() + b"\0" + public).digest()[:18])


def generate(use: KeyUse, *, producer: str | None = None, algorithm: str | None = None) -> tuple[KeyDocument, bytes]:
    """A new key: its public document and its private bytes."""
    if use is KeyUse.SIGNING:
        algorithm = algorithm or ED25519
    elif use is KeyUse.HOOK:
        algorithm = P256
    else:
        algorithm = algorithm or MLKEM768_X25519
        if algorithm not in SUITES:
            raise KeyFileError(f"algorithm {algorithm!r} is not one of {', '.join(SUITES)}")
    while True:
        private, public = _signing_pair() if use is KeyUse.SIGNING else SUITES[algorithm].generate()
        key_id = key_id_of(algorithm, public)
        if not key_id.startswith("-"):  # one in 64 would look like an option of a command
            break
    document = KeyDocument(
        key_id=key_id,
        use=use,
        algorithm=algorithm,
        public=b64url(public),
        producer=producer,
        created_at=utc_now().replace(microsecond=0),
    )
    return document, private


def _signing_pair() -> tuple[bytes, bytes]:
    signing = ed25519.Ed25519PrivateKey.generate()
    return signing.private_bytes_raw(), signing.public_key().public_bytes_raw()


def public_path(directory: Path, key_id: str) -> Path:
    """Where a key's public document lies."""
    return directory / f"{key_id}.pub.json"


def private_path(directory: Path, key_id: str) -> Path:
    """Where a key's private file lies."""
    return directory / f"{key_id}.key"


def has_private(directory: Path, key_id: str) -> bool:
    """A key's private file is here, whether this account can read it or not; a link to nothing is none."""
    try:
        return private_path(directory, key_id).exists()
    except PermissionError:
        return True


def write_public(directory: Path, document: KeyDocument) -> Path:
    """Write a public document atomically."""
    return _write(public_path(directory, document.key_id), document.encode(), 0o644)


def write_private(directory: Path, document: KeyDocument, private: bytes, *, passphrase: Secret | None = None) -> Path:
    """Write a private file atomically, readable by its owner alone, and encrypted where there is a passphrase.

    Its owner is the directory's, also when root writes it: it is for the account of the service. On Windows the
    folder's access list is the file's, and a signing key, which never leaves its host, is protected by DPAPI.
    """
    content: dict[str, Any] = {
        "schema": "passrelay.private-key/1",
        "key_id": document.key_id,
        "use": document.use.value,
        "algorithm": document.algorithm,
    }
    bound_to = _bound_to(document.use, document.algorithm, document.key_id)
    if passphrase is None and dpapi.available() and document.use is KeyUse.SIGNING:
        content["protected"] = dpapi.protect(private, bound_to=bound_to).model_dump()
    elif passphrase is None:
        content["private"] = b64url(private)
    else:
        content["encrypted"] = encrypt(private, passphrase, bound_to=bound_to).model_dump()
    return _write(private_path(directory, document.key_id), json.dumps(content).encode(), 0o600)


def _write(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as sink:
            if sys.platform != "win32" and os.geteuid() == _ROOT:
                owner = path.parent.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KeyFileError(
            f"key file {path}: cannot be written ({error.strerror}): check the directory and its owner"
        ) from error
    return path


def read_public(path: Path) -> KeyDocument:
    """A public document; KeyFileError names the file and what is wrong."""
    try:
        return parse_model(KeyDocument, _read(path), what=f"key file {path}")
    except MalformedError as error:
        raise KeyFileError(f"{error}: get the document again from where the key was made") from None


def is_encrypted(path: Path) -> bool:
    """The private file is under a passphrase; KeyFileError when it cannot be read or is none."""
    try:
        return parse_model(_PrivateDocument, _read(path), what=f"key file {path}").encrypted is not None
    except MalformedError as error:
        raise KeyFileError(f"{error}: restore the key from its backup") from None


def read_private(path: Path, document: KeyDocument, *, passphrase_file: Path | None = None) -> bytes:
    """The private bytes that belong to `document`; the passphrase's file is read only for an encrypted one.

    KeyFileError when the file is missing, readable by others, damaged, of another key, or cannot be decrypted.
    """
    raw = _read(path)
    fault = mode_fault(path)
    if fault is not None:
        raise KeyFileError(f"key file {path}: {fault}")
    try:
        content = parse_model(_PrivateDocument, raw, what=f"key file {path}")
        private = _private_bytes(path, content, passphrase_file)
    except MalformedError as error:
        raise KeyFileError(f"{error}: restore the key from its backup") from None
    if content.key_id != document.key_id or content.algorithm != document.algorithm or not _fits(document, private):
        raise KeyFileError(f"key file {path}: it does not belong to {document.key_id}: restore the right one")
    return private


def _private_bytes(path: Path, content: _PrivateDocument, passphrase_file: Path | None) -> bytes:
    if content.protected is not None:
        unprotected = dpapi.unprotect(content.protected, bound_to=content.bound_to)
        if unprotected is None:
            raise KeyFileError(
                f"key file {path}: only the Windows machine where it was made can open it: make a new key here with "
                "`passrelay keys init producer NAME --yes`, and enroll that on every consumer"
            )
        return unprotected
    if content.encrypted is None:
        return from_b64url(content.private.reveal() if content.private else "", what=f"key file {path}")
    if passphrase_file is None:
        raise KeyFileError(f"key file {path}: it is encrypted: name its passphrase's file in [keys] passphrase_file")
    try:
        passphrase = read_secret_file(passphrase_file, what="[keys] passphrase_file")
    except ConfigurationError as error:
        raise KeyFileError(str(error)) from None
    private = decrypt(content.encrypted, passphrase, bound_to=content.bound_to)
    if private is None:
        raise KeyFileError(
            f"key file {path}: the passphrase in {passphrase_file} does not open it: put the right one there, or "
            "restore the key from its backup"
        )
    return private


def _fits(document: KeyDocument, private: bytes) -> bool:
    try:
        if document.use is KeyUse.SIGNING:
            public = ed25519.Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        else:
            public = SUITES[document.algorithm].public_of(private)
    except ValueError:
        return False
    return public == document.public_bytes


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a FIFO would wait for ever for its other end.
            raise KeyFileError(f"key file {path}: not a regular file: remove it")
        with path.open("rb") as source:
            raw = source.read(limits.MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyFileError(f"key file {path}: missing: make it with `passrelay keys init` or copy it there") from None
    except OSError as error:
        raise KeyFileError(f"key file {path}: cannot be read ({error.strerror}): check its owner and mode") from None
    if len(raw) > limits.MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"key file {path}: larger than {limits.MAX_KEY_FILE_BYTES} bytes, not a key file")
    return raw
