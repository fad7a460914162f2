"""PasswordChanged, the one event, and its padded bytes: what is sealed."""

from __future__ import annotations

import json
import re
import unicodedata
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from passrelay_schemas import limits
from passrelay_schemas.errors import EmptyPasswordError, MalformedError, TooLargeError
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import parse_object, validate

_SID = re.compile(r"S-1-[0-9]{1,14}(-[0-9]{1,10}){1,15}")
_DNS_NAME = re.compile(r"(?=.{1,255}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def _sid(text: str) -> str:
    if not _SID.fullmatch(text):
        raise ValueError("not a SID such as S-1-5-21-1-2-3-1105 ([MS-DTYP] 2.4.2.1)")
    return text


def _dns_name(text: str) -> str:
    lowered = text.lower().rstrip(".")
    if not _DNS_NAME.fullmatch(lowered):
        raise ValueError("not a DNS name such as lab.example")
    return lowered


def _no_control(text: str) -> str:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise ValueError("control characters and lone surrogates are not allowed in a name")
    return text


Sid = Annotated[str, Field(max_length=limits.MAX_SID), AfterValidator(_sid)]
"""A security identifier in its text form."""
DomainName = Annotated[str, Field(min_length=1, max_length=limits.MAX_DOMAIN + 1), AfterValidator(_dns_name)]
"""An AD domain's DNS name, lower case, without the final dot."""
Filetime = Annotated[int, Field(ge=0, le=limits.MAX_FILETIME, strict=True)]
"""100-nanosecond units since 1601."""


class Kind(StrEnum):
    """How the password came to be; `expire` carries no password, only must_change."""

    CHANGE = "change"
    RESET = "reset"
    CREATE = "create"
    EXPIRE = "expire"
    UNKNOWN = "unknown"


class Account(BaseModel):
    """The AD account: guid and sid never change, the names do."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    guid: UUID
    sid: Sid | None = None
    sam_account_name: Annotated[str, Field(min_length=1, max_length=limits.MAX_NAME), AfterValidator(_no_control)]
    user_principal_name: Annotated[
        str | None, Field(max_length=limits.MAX_UPN), AfterValidator(lambda text: text and _no_control(text))
    ] = None


class PasswordChanged(BaseModel):
    """One password that a domain controller has committed (or a must-change tick without a password)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    domain: DomainName
    account: Account
    password: Secret | None = None
    record: Annotated[
        str | None, Field(min_length=limits.HOOK_RECORD_TEXT, max_length=limits.HOOK_RECORD_TEXT, repr=False)
    ] = None
    """Instead of the password: the Windows hook's record (base64url), which only the consumer opens."""
    kvno: Annotated[int, Field(ge=0, le=limits.MAX_KVNO, strict=True)]
    """Replication version of unicodePwd = msDS-KeyVersionNumber; 0 in a domain that is ordered by time."""
    changed_at: Filetime
    """pwdLastSet, or the originating time of unicodePwd where pwdLastSet does not belong to this change."""
    origin: UUID | None = None
    """invocationId of the controller that made the change: of two in one second the greater wins, as in AD."""
    must_change: Annotated[bool, Field(strict=True)] = False
    kind: Kind = Kind.UNKNOWN

    @model_validator(mode="after")
    def _password_fits_kind(self) -> Self:
        if (self.kind is Kind.EXPIRE) != (self.password is None and self.record is None):
            raise ValueError("kind expire has no password, every other kind has one")
        if self.password is not None and self.record is not None:
            raise ValueError("a record stands in the place of the password: never both")
        if self.kind is Kind.EXPIRE and not self.must_change:
            raise ValueError("kind expire means must_change")
        if self.kind is Kind.EXPIRE and self.kvno == 0:
            raise ValueError("kind expire needs a kvno: it belongs to one password")
        return self


def encode(event: PasswordChanged) -> bytes:
    """The event as UTF-8 JSON, padded with blanks to one of the fixed sizes.

    Raises TooLargeError beyond the largest size, EmptyPasswordError, and MalformedError for a lone surrogate.
    """
    if event.password is not None:
        check_password(event.password)
    document = event.model_dump(mode="json", exclude={"password"}, exclude_none=True)
    if event.password is not None:
        document["password"] = event.password.reveal()
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    for size in limits.EVENT_BYTES:
        if len(raw) <= size:
            return raw.ljust(size)
    raise TooLargeError(f"the event has {len(raw)} bytes, the most is {limits.EVENT_BYTES[-1]}")


def decode(raw: bytes) -> PasswordChanged:
    """The event in opened bytes; EventError without any of its content."""
    if len(raw) not in limits.EVENT_BYTES:
        raise MalformedError(f"event: {len(raw)} bytes are not one of the fixed sizes {limits.EVENT_BYTES}")
    event = validate(PasswordChanged, parse_object(raw, what="event"), what="event")
    if event.password is not None:
        check_password(event.password)
    return event


def check_password(password: Secret) -> None:
    """AD's own limits: EmptyPasswordError, MalformedError for a lone surrogate, TooLargeError."""
    text = password.reveal()
    if not text:
        raise EmptyPasswordError("the password is empty: a directory would take it and mean an anonymous bind")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise MalformedError("the password has a lone UTF-16 surrogate and cannot be written as UTF-8")
    if len(text) > limits.MAX_PASSWORD_UTF16 or len(text.encode("utf-16-le")) // 2 > limits.MAX_PASSWORD_UTF16:
        raise TooLargeError(f"the password has more than AD's {limits.MAX_PASSWORD_UTF16} UTF-16 units")
