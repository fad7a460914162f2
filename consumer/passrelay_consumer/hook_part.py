"""The Windows hook's record inside an event, opened here and nowhere else (docs/adr/0018-hook-part.md)."""

from __future__ import annotations

from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ForeignDomainError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.hook_record import HookRecord
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse


def with_password(
    event: PasswordChanged, *, producer: str, domain: DomainSettings, keyring: Keyring
) -> PasswordChanged:
    """The event with the password that its record holds; the event itself when it has none.

    The record must be of the signer's own domain and name, and of the account that the event names, or one producer
    could send another's record, or one account's password under another: ForeignDomainError. MalformedError when it
    cannot be opened; UnknownKeyError while its hook key is not here.
    """
    if event.record is None:
        return event
    record = HookRecord.from_text(event.record)
    if record.header.domain_sid != domain.sid:
        raise ForeignDomainError(f"the hook's record is of another domain than {domain.name} ({domain.sid})")
    if record.header.producer != producer:
        raise ForeignDomainError(f"the hook's record is not of producer {producer}, which sent it")
    captured = record.open(keyring.opener(record.header.key_id, KeyUse.HOOK))
    if event.account.sid != f"{domain.sid}-{captured.rid}":
        raise ForeignDomainError("the hook's record is of another account than the event")
    return event.model_copy(update={"password": captured.password, "record": None})
