"""The producer's own keys as they are now: the recipient to seal to, and its signing keys."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from passrelay_schemas.key_watch import KeyWatch
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyUse
from passrelay_schemas.logs import Log
from passrelay_schemas.signing import Signer

_REFRESH_SECONDS = 2.0


def wait_until_read(directory: Path) -> None:
    """Until a running service has read what lies in the key directory: what was just activated signs from then on."""
    youngest = 0.0
    with suppress(OSError):  # without a directory nothing is published; a key may be a link that leads nowhere now
        youngest = max(path.lstat().st_mtime for path in (directory, *directory.iterdir()))
    time.sleep(min(max(0.0, youngest + _REFRESH_SECONDS + 1 - time.time()), _REFRESH_SECONDS + 1))


class Identity:
    """The keyring behind a lock, read again at most every two seconds; callable from any thread.

    A key file with a fault is told every ten minutes and that key counts as it was read before; every other one counts
    as it lies there. KeyFileError at the start when a recipient key or an own signing key is missing.
    """

    def __init__(self, directory: Path, *, log: Log, passphrase_file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self.keyring = Keyring(directory, passphrase_file=passphrase_file)
        self._watch = KeyWatch(self.keyring, log)
        self._signers: dict[str, Signer] = {}
        self._looked_at = time.monotonic()
        signer = self.keyring.signer()
        assert signer.document.producer is not None  # noqa: S101 - KeyDocument's own rule, for mypy
        self.producer: str = signer.document.producer
        self.recipient()

    def current(self) -> Keyring:
        """The keyring as it is now."""
        with self._lock:
            self._refresh()
            return self.keyring

    def recipient(self) -> KeyDocument:
        """The key that new events are sealed to; KeyFileError when there is none any more."""
        with self._lock:
            self._refresh()
            return self.keyring.recipient()

    def seals_to(self) -> str | None:
        """The id of that key; None when there is none any more."""
        with self._lock:
            self._refresh()
            document = self.keyring.newest(KeyUse.RECIPIENT)
        return None if document is None else document.key_id

    def signer(self, producer: str) -> Signer:
        """The signing key of the producer that an event names (an older name after a renaming); KeyFileError.

        A key of another name would do, but consumers reject an envelope whose header and key name two producers.
        """
        with self._lock:
            self._refresh()
            if producer not in self._signers:
                self._signers[producer] = self.keyring.signer(producer)
            return self._signers[producer]

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _REFRESH_SECONDS:
            return
        self._looked_at = now
        if self._watch.look():
            self._signers = {}
