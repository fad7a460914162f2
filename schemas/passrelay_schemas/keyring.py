"""The keyring: every key document of one directory, read again when the directory changes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from passrelay_schemas.errors import KeyFileError, UnknownKeyError, UntrustedError
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, private_path, read_private, read_public
from passrelay_schemas.sealing import Opener
from passrelay_schemas.settings import KeysSettings
from passrelay_schemas.signing import Signer


class Keyring:
    """Public documents by id, and the private keys that lie beside them.

    A file that cannot be used stops the start (`KeyFileError`); on a later `refresh` the old state stays and the error
    is raised.
    """

    def __init__(self, directory: Path, *, passphrase_file: Path | None = None) -> None:
        self.directory = directory
        self._passphrase_file = passphrase_file
        self._documents: dict[str, KeyDocument] = {}
        self._openers: dict[str, Opener] = {}
        self._state: object = None
        self.refresh()

    @classmethod
    def of(cls, settings: KeysSettings) -> Self:
        """The keyring that a configuration names."""
        return cls(settings.directory, passphrase_file=settings.passphrase_file)

    def refresh(self) -> bool:
        """Read the directory again if a name, size, mode or time in it changed; True when it was read."""
        state = self._look()
        self._check_directory()
        if state == self._state:
            return False
        documents: dict[str, KeyDocument] = {}
        for path in sorted(self.directory.glob("[!.]*.pub.json")):
            document = read_public(path)
            if document.key_id in documents:
                # A forgotten copy would decide by its name whether a revoked key is revoked.
                raise KeyFileError(f"key file {path}: key {document.key_id} is in another file too: remove one of them")
            documents[document.key_id] = document
        openers = {}
        for document in documents.values():
            path = private_path(self.directory, document.key_id)
            if document.use is not KeyUse.SIGNING and path.exists():
                openers[document.key_id] = Opener(document, self._private(document))
        self._documents, self._openers, self._state = documents, openers, state
        return True

    def _private(self, document: KeyDocument) -> bytes:
        path = private_path(self.directory, document.key_id)
        return read_private(path, document, passphrase_file=self._passphrase_file)

    def has_private(self, document: KeyDocument) -> bool:
        """The key's private file is here."""
        return private_path(self.directory, document.key_id).exists()

    def _check_directory(self) -> None:
        # Whoever may write here enrols keys: as good as the keys themselves.
        mode = self.directory.stat().st_mode & 0o777
        if os.name == "posix" and mode & 0o022:
            raise KeyFileError(
                f"key directory {self.directory}: mode {mode:04o} lets others enroll keys of their own: "
                f"`chmod go-w {self.directory}`, and look with `passrelay keys list` for keys that nobody enrolled"
            )

    def _look(self) -> object:
        try:
            return sorted(
                (
                    path.name,
                    (stat := _stat(path)).st_size,
                    stat.st_mtime_ns,
                    stat.st_ctime_ns,
                    stat.st_ino,
                    stat.st_mode,
                )
                for path in self.directory.iterdir()
                if path.name.endswith((".pub.json", ".key")) and not path.name.startswith(".")
            )
        except FileNotFoundError:
            raise KeyFileError(
                f"key directory {self.directory}: missing: `passrelay keys init ROLE` makes it"
            ) from None
        except OSError as error:
            raise KeyFileError(f"key directory {self.directory}: cannot be read ({error.strerror})") from None

    def get(self, key_id: str) -> KeyDocument | None:
        """The document of this key."""
        return self._documents.get(key_id)

    def documents(self, use: KeyUse | None = None) -> Iterable[KeyDocument]:
        """All documents, oldest first."""
        chosen = (document for document in self._documents.values() if use in (None, document.use))
        return sorted(chosen, key=lambda document: (document.created_at, document.key_id))

    def newest(self, use: KeyUse) -> KeyDocument | None:
        """The youngest active key of a use: the one that new events or notes are sealed to."""
        active = [document for document in self.documents(use) if document.status is KeyStatus.ACTIVE]
        return active[-1] if active else None

    def recipient(self) -> KeyDocument:
        """The key that new events are sealed to; KeyFileError when none is enrolled."""
        document = self.newest(KeyUse.RECIPIENT)
        if document is None:
            raise KeyFileError(
                f"key directory {self.directory}: no active recipient key: "
                "copy the consumers' public document here with `passrelay keys enroll FILE`"
            )
        return document

    def signer(self, producer: str | None = None) -> Signer:
        """This host's own signing key; KeyFileError when there is none."""
        for document in reversed(list(self.documents(KeyUse.SIGNING))):
            path = private_path(self.directory, document.key_id)
            if document.status is KeyStatus.ACTIVE and path.exists() and producer in (None, document.producer):
                return Signer(document, self._private(document))
        whose = f" of producer {producer}" if producer else ""
        raise KeyFileError(
            f"key directory {self.directory}: no active signing key{whose} with its private file: "
            "make one with `passrelay keys init producer`"
        )

    def signing_key(self, key_id: str) -> KeyDocument:
        """The enrolled signing key of an envelope; UntrustedError when it is not here."""
        document = self._documents.get(key_id)
        if document is None or document.use is not KeyUse.SIGNING:
            raise UntrustedError(f"signing key {key_id} is not in the keyring")
        return document

    def opener(self, key_id: str, use: KeyUse = KeyUse.RECIPIENT) -> Opener:
        """The private key for an envelope or note; UnknownKeyError when it is not here."""
        opener = self._openers.get(key_id)
        if opener is None or opener.document.use is not use or opener.document.status is KeyStatus.REVOKED:
            raise UnknownKeyError(f"{use} key {key_id}: its private part is not in the keyring")
        return opener


def _stat(path: Path) -> os.stat_result:
    # A private file may be a link to a credential, which is there only while its service runs.
    try:
        return path.stat()
    except FileNotFoundError:
        return path.lstat()
