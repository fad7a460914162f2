"""Making and listing keys: the two files of each, and what is to be done with them next."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from passrelay_schemas.errors import ConfigurationError, KeyFileError, SafetyError
from passrelay_schemas.filetime import later, rfc3339
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import (
    KeyDocument,
    KeyStatus,
    KeyUse,
    generate,
    has_private,
    private_path,
    public_path,
    read_private,
    write_private,
    write_public,
)
from passrelay_schemas.process_settings import KeysSettings
from passrelay_schemas.secret_file import read_secret_file

KEPT = timedelta(days=90)
"""How long letters and outcomes keep what is sealed to a key: x-max-age of their streams (topology)."""


@dataclass(frozen=True)
class MadeKey:
    """A key that was just made, where its files are, and what to do with them next."""

    document: KeyDocument
    public: Path
    private: Path
    next_step: str


def make(
    settings: KeysSettings, uses: Iterable[KeyUse], *, producer: str | None, algorithm: str | None, again: bool
) -> list[MadeKey]:
    """New keys in the key directory, which is created with mode 0700.

    SafetyError when an active key of a use (and producer) is there already, unless `again`: nothing is made then.
    """
    wanted = list(uses)
    create_directory(settings.directory)
    keyring = Keyring.of(settings)
    if not again:
        _refuse_second(keyring, wanted, producer)
    made = []
    for use in wanted:
        owner = producer if use is KeyUse.SIGNING else None
        before = [key.created_at for key in keyring.documents(use) if key.producer == owner]
        chosen = algorithm if use is KeyUse.RECIPIENT else None
        document = create(settings, use, owner, algorithm=chosen, after=max(before, default=None))
        public = public_path(settings.directory, document.key_id)
        private = private_path(settings.directory, document.key_id)
        made.append(MadeKey(document, public, private, _next_step(document, public)))
    return made


def create(
    settings: KeysSettings,
    use: KeyUse,
    producer: str | None,
    *,
    algorithm: str | None = None,
    status: KeyStatus = KeyStatus.ACTIVE,
    after: datetime | None = None,
) -> KeyDocument:
    """One new key's two files, the private one encrypted where there is a passphrase; younger than `after`."""
    named = settings.passphrase_file
    passphrase = None if named is None else read_secret_file(named, what="[keys] passphrase_file")
    document, private = generate(use, producer=producer, algorithm=algorithm)
    # Times are in whole seconds, and the youngest key is the one in use.
    created_at = document.created_at if after is None else max(document.created_at, after + timedelta(seconds=1))
    document = document.model_copy(update={"status": status, "created_at": created_at})
    # The private file first: a document without it would be taken for somebody else's key.
    write_private(settings.directory, document, private, passphrase=passphrase)
    write_public(settings.directory, document)
    return document


def create_directory(directory: Path) -> None:
    """Make the key directory, mode 0700, unless it is there."""
    if directory.is_dir():
        return
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise KeyFileError(f"key directory {directory}: cannot be made ({error.strerror}): make it by hand") from None


def _refuse_second(keyring: Keyring, uses: list[KeyUse], producer: str | None) -> None:
    for use in uses:
        owner = producer if use is KeyUse.SIGNING else None
        for document in keyring.documents(use):
            if document.status is KeyStatus.ACTIVE and document.producer == owner:
                whose = f" of producer {owner}" if owner else ""
                raise SafetyError(
                    f"key directory {keyring.directory}: there is an active {use} key{whose} already "
                    f"({document.key_id}): `passrelay keys rotate {use}` replaces it without a late event; with --yes "
                    "a second one is made here, and the newest is used from then on"
                )


def _next_step(document: KeyDocument, public: Path) -> str:
    where = {
        KeyUse.RECIPIENT: "every producer",
        KeyUse.HOOK: "every other consumer and operator's host",
        KeyUse.SIGNING: "every consumer",
        KeyUse.OPS: "every consumer and operator's host",
    }[document.use]
    step = f"carry {public} to {where} and run there: passrelay keys enroll {public.name}"
    if document.use is KeyUse.HOOK:
        step += f"; {_hook_readers(document)}; then: {hook_registry(document)}"
    if document.use is KeyUse.RECIPIENT:
        step += f"; every consumer also needs {document.key_id}.key in its key directory (mode 0600, by a safe way)"
    if document.use is KeyUse.OPS:
        step += f"; {document.key_id}.key belongs on operators' hosts only: move it there, and back it up"
    return step


def _hook_readers(document: KeyDocument) -> str:
    return f"every consumer also needs {document.key_id}.key in its key directory (mode 0600, by a safe way)"


def hook_registry(document: KeyDocument) -> str:
    """What puts a hook key to use: the hook reads it from the registry, not from a key file."""
    return (
        "on every Windows domain controller set, in HKEY_LOCAL_MACHINE\\SOFTWARE\\passrelay\\hook, RecipientKey to "
        f"{document.public_bytes.hex()} and RecipientKeyId to {document.key_id}"
    )


def private_fault(settings: KeysSettings, document: KeyDocument) -> str | None:
    """Why a private file that is here cannot be used by this account, with these settings."""
    path = private_path(settings.directory, document.key_id)
    if not has_private(settings.directory, document.key_id):
        return None
    try:
        read_private(path, document, passphrase_file=settings.passphrase_file)
    except KeyFileError as error:
        return str(error).removeprefix(f"key file {path}: ")
    return None


def describe(directory: Path, document: KeyDocument) -> dict[str, Any]:
    """One key for a table or document."""
    private_here = has_private(directory, document.key_id)
    since, kept_until = document.status_since, None
    if document.status is KeyStatus.RETIRED and document.use is not KeyUse.SIGNING and private_here and since:
        kept_until = rfc3339(later(since, KEPT))
    return {
        "key_id": document.key_id,
        "use": document.use.value,
        "algorithm": document.algorithm,
        "producer": document.producer,
        "status": document.status.value,
        "created_at": rfc3339(document.created_at),
        "expires_at": None if document.expires_at is None else rfc3339(document.expires_at),
        "status_since": None if since is None else rfc3339(since),
        "private_here": private_here,
        "private_kept_until": kept_until,
        "fingerprint": document.fingerprint,
    }


def known(keyring: Keyring, key_id: str) -> KeyDocument:
    """The document of a key by its id; ConfigurationError names the directory."""
    document = keyring.get(key_id)
    if document is None:
        raise ConfigurationError(f"key {key_id}: not in {keyring.directory}: `passrelay keys list` shows what is")
    return document


def uses_of(role: str, *, recipient_only: bool) -> list[KeyUse]:
    """Which keys `keys init ROLE` makes."""
    if role == "producer":
        return [KeyUse.SIGNING]
    if role == "ops":
        return [KeyUse.OPS]
    if role == "hook":
        return [KeyUse.HOOK]
    if role == "consumer":
        return [KeyUse.RECIPIENT] if recipient_only else [KeyUse.RECIPIENT, KeyUse.OPS]
    raise ConfigurationError(f"role {role!r}: keys are made for consumer, producer, ops and hook")


def owner_hint(directory: Path) -> str | None:
    """What to do when root made keys that a service's own account must read, in a directory of root's own."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and directory.stat().st_uid == 0:
        return (
            f"made by root: the shipped producer runs as root; for a service with an account of its own (the shipped "
            f"consumer's is passrelay) `chown -R ACCOUNT {directory}`"
        )
    return None
