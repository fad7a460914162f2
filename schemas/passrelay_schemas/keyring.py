"""The keyring: every key document of one directory, read again when the directory changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from passrelay_schemas import windows_acl
from passrelay_schemas.errors import KeyFileError, UnknownKeyError, UntrustedError
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, has_private, private_path, read_private, read_public
from passrelay_schemas.process_settings import KeysSettings
from passrelay_schemas.sealing import Opener
from passrelay_schemas.signing import Signer


class Keyring:
    """Public documents by id, and the private keys that lie beside them.

    A file that cannot be used stops the start (`KeyFileError`). On a later `refresh` that one key stays as it was and
    the error is raised, again at each look; everything else counts as it lies there, or one slip would keep a
    revocation from being seen. With `private=False` no private file is opened: what is asked of documents alone does
    not fail where a private key can be read by its service only.
    """

    def __init__(self, directory: Path, *, passphrase_file: Path | None = None, private: bool = True) -> None:
        self.directory = directory
        self._passphrase_file = passphrase_file
        self._opens = private
        self._files: dict[Path, KeyDocument] = {}
        self._documents: dict[str, KeyDocument] = {}
        self._newest: dict[KeyUse, KeyDocument] = {}
        self._openers: dict[str, tuple[object, Opener]] = {}
        """Each with what it was made from."""
        self._state: object = None
        self.refresh()

    @classmethod
    def of(cls, settings: KeysSettings, *, private: bool = True) -> Self:
        """The keyring that a configuration names."""
        return cls(settings.directory, passphrase_file=settings.passphrase_file, private=private)

    def refresh(self) -> bool:
        """Read the directory again if a name, size, mode or time in it changed; True when it was read.

        KeyFileError for the first thing that is wrong, after everything else was taken over.
        """
        state = self._look()
        faults = self._directory_faults()
        if not faults and state == self._state:
            return False
        faults += self._read_documents(only_revocations=bool(faults)) + self._read_openers()
        if faults:
            raise faults[0]
        self._state = state
        return True

    def _read_documents(self, *, only_revocations: bool) -> list[KeyFileError]:
        faults = []
        files: dict[Path, KeyDocument] = {}
        for path in sorted(self.directory.glob("[!.]*.pub.json")):
            try:
                files[path] = read_public(path)
            except KeyFileError as error:
                faults.append(error)
                if path in self._files:
                    files[path] = self._files[path]
        if only_revocations:
            revoked = {document.key_id: document for document in files.values() if _revoked(document)}
            files = {path: revoked.get(document.key_id, document) for path, document in self._files.items()}
        documents: dict[str, KeyDocument] = {}
        for path, document in files.items():
            known = documents.get(document.key_id)
            if known is not None:
                # A forgotten copy would decide by its name whether a revoked key is revoked.
                faults.append(
                    KeyFileError(f"key file {path}: key {document.key_id} is in another file too: remove one of them")
                )
            if known is None or document.status.rank > known.status.rank:
                documents[document.key_id] = document
        self._files, self._documents = files, documents
        active = [document for document in self.documents() if document.status is KeyStatus.ACTIVE]
        self._newest = {document.use: document for document in active}  # asked for each event; oldest first
        return faults

    def _read_openers(self) -> list[KeyFileError]:
        faults = []
        openers = {}
        for document in self._documents.values():
            if not self._opens or document.use is KeyUse.SIGNING or not self.has_private(document):
                continue
            known = self._openers.get(document.key_id)
            try:
                made_from = (document, _state(private_path(self.directory, document.key_id)))
                # To decrypt a key takes 0.2 s, and while any file has a fault this is done at every look.
                if known is None or known[0] != made_from:
                    known = (made_from, Opener(document, self._private(document)))
            except FileNotFoundError:  # removed just now
                continue
            except KeyFileError as error:
                faults.append(error)
            if known is not None:
                openers[document.key_id] = known
        self._openers = openers
        return faults

    def _private(self, document: KeyDocument) -> bytes:
        path = private_path(self.directory, document.key_id)
        return read_private(path, document, passphrase_file=self._passphrase_file)

    def has_private(self, document: KeyDocument) -> bool:
        """The key's private file is here."""
        return has_private(self.directory, document.key_id)

    def _directory_faults(self) -> list[KeyFileError]:
        # Whoever may write here enrols keys: as good as the keys themselves.
        mode = self.directory.stat().st_mode & 0o777
        if sys.platform == "win32":
            fault = windows_acl.write_fault(self.directory)
            return [KeyFileError(f"key directory {self.directory}: {fault}")] if fault else []
        if not mode & 0o022:
            return []
        return [
            KeyFileError(
                f"key directory {self.directory}: mode {mode:04o} lets others enroll keys of their own: "
                f"`chmod go-w {self.directory}`, and look with `passrelay keys list` for keys that nobody enrolled"
            )
        ]

    def _look(self) -> object:
        try:
            return sorted(
                (path.name, *_state(path))
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

    def documents(self, use: KeyUse | None = None) -> Sequence[KeyDocument]:
        """All documents, oldest first."""
        chosen = (document for document in self._documents.values() if use in (None, document.use))
        return sorted(chosen, key=lambda document: (document.created_at, document.key_id))

    def newest(self, use: KeyUse) -> KeyDocument | None:
        """The youngest active key of a use: the one that new events or notes are sealed to."""
        return self._newest.get(use)

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
        mine = [
            document
            for document in self.documents(KeyUse.SIGNING)
            if producer in (None, document.producer) and self.has_private(document)
        ]
        for document in reversed(mine):
            if document.status is KeyStatus.ACTIVE:
                return Signer(document, self._private(document))
        whose = f" of producer {producer}" if producer else ""
        # A key that `init` makes is used before any consumer knows it.
        repair = f"keys rotate signing {mine[-1].producer}" if mine else "keys init producer"
        raise KeyFileError(
            f"key directory {self.directory}: no active signing key{whose} with its private file: "
            f"make one with `passrelay {repair}`"
        )

    def signing_key(self, key_id: str) -> KeyDocument:
        """The enrolled signing key of an envelope; UntrustedError when it is not here."""
        document = self._documents.get(key_id)
        if document is None or document.use is not KeyUse.SIGNING:
            raise UntrustedError(f"signing key {key_id} is not in the keyring")
        return document

    def opener(self, key_id: str, use: KeyUse = KeyUse.RECIPIENT) -> Opener:
        """The private key for an envelope or note; UnknownKeyError when it is not here."""
        known, document = self._openers.get(key_id), self._documents.get(key_id)
        if known is None or document is None or document.use is not use or _revoked(document):
            raise UnknownKeyError(f"{use} key {key_id}: its private part is not in the keyring")
        return known[1]


def _revoked(document: KeyDocument) -> bool:
    return document.status is KeyStatus.REVOKED


def _state(path: Path) -> tuple[int, ...]:
    """What changes whenever the file does."""
    # A private file may be a link to a credential, which is there only while its service runs, and for it alone.
    try:
        stat = path.stat()
    except OSError:
        stat = path.lstat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_mode
