"""Enrolling public documents: what it would do is a value first, and done only after it was accepted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from passrelay_ops.key_files import create_directory
from passrelay_schemas.errors import KeyFileError, SafetyError
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, has_private, public_path, read_public, write_public


@dataclass(frozen=True)
class Enrolment:
    """What enrolling one document means for this keyring."""

    source: Path
    document: KeyDocument
    change: str
    """"new", "unchanged", or "status: <old> -> <new>"."""

    @property
    def changes(self) -> bool:
        """Something is to be written."""
        return self.change != "unchanged"


def plan(directory: Path, files: Iterable[Path]) -> list[Enrolment]:
    """What enrolling these documents would do.

    KeyFileError for a file that is no public document; SafetyError for one that would bring a key back to what it was.
    """
    return [_enrolment(directory, path) for path in files]


def _enrolment(directory: Path, path: Path) -> Enrolment:
    if path.suffix == ".key":
        raise KeyFileError(f"key file {path}: a private key never travels for enrolment: take its .pub.json")
    document = read_public(path)
    target = public_path(directory, document.key_id)
    if (
        document.use is KeyUse.SIGNING
        and document.status is KeyStatus.NEXT
        and not has_private(directory, document.key_id)
    ):
        # For whoever only verifies there is nothing to wait for.
        document = document.model_copy(update={"status": KeyStatus.ACTIVE})
    if not target.exists():
        return Enrolment(path, document, "new")
    known = read_public(target)
    if known == document or known.status is document.status is KeyStatus.REVOKED:  # by two people, at two times
        return Enrolment(path, document, "unchanged")
    if known.status is KeyStatus.REVOKED:
        raise SafetyError(
            f"key {document.key_id}: it was revoked here, and {path} would bring it back: make a new key instead"
        )
    if (known.use, known.producer) != (document.use, document.producer):
        before, after = _role(known), _role(document)
        raise SafetyError(f"key {document.key_id}: it is enrolled here as {before}, {path} says {after}: find out why")
    if document.status.rank < known.status.rank:
        raise SafetyError(
            f"key {document.key_id}: it is {known.status} here, and {path} says {document.status}, so it is older: "
            "take the document as it is now from where the key was made"
        )
    if known.status is not document.status:
        return Enrolment(path, document, f"status: {known.status} -> {document.status}")
    return Enrolment(path, document, "dates: another created_at or expires_at")


def left_without(directory: Path, enrolments: Iterable[Enrolment]) -> list[str]:
    """What these documents leave without an active key on this host, and what it then needs."""
    before: dict[str, KeyDocument] = {}
    for path in directory.glob("[!.]*.pub.json"):
        with contextlib.suppress(KeyFileError):  # a damaged one is told by whoever needs it
            document = read_public(path)
            before[document.key_id] = document
    after = before | {enrolment.document.key_id: enrolment.document for enrolment in enrolments}
    lost = _active(before.values()) - _active(after.values())
    return [
        f"no active {use} key{f' of {producer}' if producer else ''} is left on this host: enroll the one that is in "
        "use now (its document as it is where it was put to use)"
        for use, producer in sorted(lost)
    ]


def _active(documents: Iterable[KeyDocument]) -> set[tuple[KeyUse, str]]:
    return {(key.use, key.producer or "") for key in documents if key.status is KeyStatus.ACTIVE}


def _role(document: KeyDocument) -> str:
    return f"{document.use} key of {document.producer}" if document.producer else f"{document.use} key"


def enroll(directory: Path, enrolments: Iterable[Enrolment]) -> None:
    """Write the documents into the keyring."""
    create_directory(directory)
    for enrolment in enrolments:
        if enrolment.changes:
            write_public(directory, enrolment.document)
