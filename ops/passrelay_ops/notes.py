"""Opening notes: the account and the diagnostic of a record, which only the ops key's holder may read."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from passrelay_schemas.errors import EventError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse
from passrelay_schemas.note import note_key_id, open_note
from passrelay_schemas.record import parse_note


@dataclass(frozen=True, slots=True)
class Note:
    """An opened note, or `closed`: why it could not be opened."""

    account: str | None = None
    guid: UUID | None = None
    diagnostic: str = ""
    closed: str | None = None

    def speaks_of(self, user: str) -> bool:
        """The account's name or guid is `user`."""
        name = user.casefold()
        return (self.account is not None and self.account.casefold() == name) or (
            self.guid is not None and str(self.guid) == name
        )


class Notes:
    """Opens notes with the ops keys of a keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    @property
    def readable(self) -> bool:
        """At least one ops key's private file is here."""
        return any(
            (self._keyring.directory / f"{key.key_id}.key").exists() for key in self._keyring.documents(KeyUse.OPS)
        )

    def open(self, note: str | None, event_id: UUID) -> Note:
        """The note of an event; never raises for what somebody else wrote."""
        if note is None:
            return Note(closed="none was written: the consumer had no ops key")
        try:
            opener = self._keyring.opener(note_key_id(note), KeyUse.OPS)
            return Note(*parse_note(open_note(note, event_id=event_id, opener=opener)))
        except EventError as error:
            return Note(closed=str(error))
        except ValueError:
            return Note(closed="it holds no account, guid and diagnostic")
