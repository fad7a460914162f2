"""LDAP results (RFC 4511 4.1.9), sorted by whose trouble they are. Measured with 389-ds and IPA's plugin."""

from __future__ import annotations

from enum import StrEnum

BUSY_CODES = frozenset({51, 52, 80})


class Trouble(StrEnum):
    """Who is to blame for a failed call."""

    RACE = "race"  # somebody else wrote the marker: read again, decide again
    POLICY = "policy"  # the server's password policy will never take this value
    MISSING = "missing"  # no such entry
    SUSPECT = "suspect"  # server or entry: only a probe can tell
    SERVER = "server"  # the connection itself


class DirectoryError(Exception):
    """One failed LDAP call. `code` is None when no answer came (connection lost, timeout)."""

    def __init__(self, code: int | None, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"LDAP result {code}: {text}" if code is not None else text)

    @property
    def trouble(self) -> Trouble:
        """The class of this failure."""
        return classify(self.code, self.text)


def classify(code: int | None, text: str) -> Trouble:
    """The class of a result code; `text` is the server's diagnostic message."""
    if code is None or code == 49:
        return Trouble.SERVER
    if code in {16, 20}:
        return Trouble.RACE
    if code == 65 and "multiple values" in text:
        # A first-write race: the marker, single-valued, is already there (389-ds gives 65, not 20).
        return Trouble.RACE
    if code == 19:
        return Trouble.POLICY
    if code == 32:
        return Trouble.MISSING
    return Trouble.SUSPECT
