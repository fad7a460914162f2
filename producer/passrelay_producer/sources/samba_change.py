"""What one account's reading means: an event, a reason to wait, or nothing. Pure, but for the key file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from passrelay_producer.filters import Exclusion, Filter
from passrelay_producer.metadata import PWD_LAST_SET, UNICODE_PWD, MetadataError, Stamp, parse
from passrelay_producer.sources import AccountState, Pending, PendingReason
from passrelay_producer.sources.samba_account import Reading
from passrelay_producer.supplemental import ClearTextError, OpenPgpKeyFile, clear_text
from passrelay_schemas.errors import EventError, TooLargeError
from passrelay_schemas.event import Account, Kind, PasswordChanged, encode
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.secret import Secret

_NEVER_EXPIRES = 0x10000 | 0x40000
"""DONT_EXPIRE_PASSWORD and SMARTCARD_REQUIRED: AD never asks these for a new password ([MS-ADTS] 3.1.1.4.5.26)."""


@dataclass(frozen=True)
class Decision:
    """At most one event, one reason to wait or one exclusion, and what is known of the account afterwards."""

    event: PasswordChanged | None = None
    state: AccountState | None = None
    pending: Pending | None = None
    exclusion: Exclusion | None = None


def decide(
    reading: Reading,
    *,
    filters: Filter,
    domain: str,
    password: bool,
    known: AccountState | None,
    key: OpenPgpKeyFile,
) -> Decision:
    """The decision for an account; `password` is True when its password may be new, False for a tick of pwdLastSet.

    Samba writes a reset and its must-change as two commits, so the second often arrives alone: it becomes kind expire.
    For an account that was never captured the tick brings its password along, or nobody would know whose tick it is.
    """
    exclusion = filters.exclusion(reading)
    if exclusion is not None:
        return Decision(exclusion=exclusion)
    try:
        stamps = parse(reading.metadata)
    except MetadataError:
        return _wait(reading, PendingReason.UNREADABLE)
    stamp = stamps.get(UNICODE_PWD)
    if stamp is None or (reading.unicode_pwd is None and reading.supplemental is None):
        return Decision()  # the account has no password yet
    must_change = must_change_of(reading)
    state = AccountState(guid=reading.guid, kvno=stamp.version, must_change=must_change)
    try:
        if password or (must_change if known is None else known.kvno != stamp.version):
            secret = clear_text(blob=reading.supplemental, unicode_pwd=reading.unicode_pwd, key=key)
            return Decision(_password_event(reading, domain, state, secret, stamps), state)
        if must_change and known is not None and not known.must_change:
            return Decision(_expire_event(reading, domain, state, stamps), state)
    except ClearTextError as error:
        return _wait(reading, error.reason)
    except TooLargeError:
        return _wait(reading, PendingReason.TOO_LARGE)
    except ValidationError:
        return _wait(reading, PendingReason.UNREADABLE)
    return Decision(state=state if known is not None and known != state else None)


def _wait(reading: Reading, reason: PendingReason) -> Decision:
    return Decision(pending=Pending(reading.guid, reason))


def _password_event(
    reading: Reading, domain: str, state: AccountState, secret: Secret, stamps: Mapping[int, Stamp]
) -> PasswordChanged:
    event = PasswordChanged(
        domain=domain,
        account=account_of(reading),
        password=secret,
        kvno=state.kvno,
        changed_at=changed_at(reading.pwd_last_set, stamps),
        origin=stamps[UNICODE_PWD].invocation_id,
        must_change=state.must_change,
        kind=Kind.CREATE if state.kvno == 1 else Kind.UNKNOWN,
    )
    return _fitting(event)


def _expire_event(reading: Reading, domain: str, state: AccountState, stamps: Mapping[int, Stamp]) -> PasswordChanged:
    return _fitting(
        PasswordChanged(
            domain=domain,
            account=account_of(reading),
            kvno=state.kvno,
            changed_at=stamps.get(PWD_LAST_SET, stamps[UNICODE_PWD]).changed_at,
            origin=stamps[UNICODE_PWD].invocation_id,
            must_change=True,
            kind=Kind.EXPIRE,
        )
    )


def must_change_of(reading: Reading) -> bool:
    """AD asks the user for a new password at the next logon."""
    return reading.pwd_last_set == 0 and not reading.user_account_control & _NEVER_EXPIRES


def account_of(reading: Reading) -> Account:
    """The account as events name it; ValidationError for names that no event takes."""
    return Account(
        guid=reading.guid,
        sid=reading.sid,
        sam_account_name=reading.sam_account_name,
        user_principal_name=reading.user_principal_name,
    )


def _fitting(event: PasswordChanged) -> PasswordChanged:
    """The event if its names fit; other faults are the loop's to record, with their own reasons."""
    try:
        encode(event)
    except TooLargeError:
        raise
    except EventError:
        pass
    return event


def changed_at(pwd_last_set: int, stamps: Mapping[int, Stamp]) -> int:
    """The time of the password as FILETIME, which is AD's originating time to the second on every controller.

    pwdLastSet is finer, but counts only when the same transaction wrote it and it lies in that second: a later tick of
    must-change moves it without a new password.
    """
    password, last = stamps[UNICODE_PWD], stamps.get(PWD_LAST_SET)
    if last is None or not last.same_write(password):
        return password.changed_at
    if pwd_last_set - pwd_last_set % UNITS_PER_SECOND != password.changed_at:
        return password.changed_at
    return pwd_last_set
