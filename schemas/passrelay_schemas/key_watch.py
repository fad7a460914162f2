"""The key directory of a running service: read again when it changes, and its faults told as long as they last."""

from __future__ import annotations

import time

from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Action, Log

_AGAIN_SECONDS = 600
"""How often a fault that lasts is logged."""
_UNTIL_THEN = (
    "until then a key with a fault counts as it was read before, and where others may write to the directory only "
    "revocations count"
)


class KeyWatch:
    """Whoever calls `look` every other second has the keys as they are on the disk."""

    def __init__(self, keyring: Keyring, log: Log) -> None:
        self._keyring = keyring
        self._log = log
        self._fault = ""
        self._told_at = 0.0

    def look(self) -> bool:
        """Take over what changed; True when anything was, also beside a fault: then forget what was made of the keys.

        A key with a fault stays as it was; all others count, a revocation above all.
        """
        before = self._keyring.documents()
        try:
            changed = self._keyring.refresh()
            self._fault = ""
        except KeyFileError as error:
            changed = self._keyring.documents() != before
            self._tell(str(error))
        if changed:
            self._log.info(Action.KEYRING_READ, directory=str(self._keyring.directory))
        return changed

    def _tell(self, fault: str) -> None:
        now = time.monotonic()
        if fault != self._fault or now - self._told_at >= _AGAIN_SECONDS:
            self._fault, self._told_at = fault, now
            self._log.error(Action.KEYRING_FAULT, why=fault, repair=_UNTIL_THEN)
