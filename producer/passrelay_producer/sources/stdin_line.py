"""One line of standard input as an event; its errors name fields and rules, never a value of the line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

from passrelay_producer.filters import Exclusion, Filter, Subject
from passrelay_schemas import filetime, limits
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ForeignDomainError, MalformedError, ProtectedError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.order import Order
from passrelay_schemas.strict_json import parse_object, validate

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class ExcludedError(ProtectedError):
    """The filter leaves the account out."""

    def __init__(self, exclusion: Exclusion) -> None:
        self.rule = exclusion.rule
        super().__init__(exclusion.words)


def parse_line(
    line: bytes,
    domains: Mapping[str, DomainSettings],
    *,
    now: int,
    next_time: Callable[[], int],
    filters: Filter | None = None,
) -> PasswordChanged:
    """The event of one line; EventError without any value of it, ExcludedError where a filter leaves it out.

    `now` is the FILETIME that "the future" is measured from; `next_time` gives `changed_at` where the line has none.
    In a domain ordered by time an account without guid gets the UUIDv5 of its casefolded sam_account_name, in the
    namespace that is the UUIDv5 (DNS) of the domain's name: the same one in every process.
    """
    document = parse_object(line, what="line")
    name = document.get("domain")
    domain = domains.get(name.lower().rstrip(".")) if isinstance(name, str) else None
    if domain is None:
        raise ForeignDomainError("domain: not one of the [[domain]] tables of producer.toml")
    by_time = domain.order is Order.TIME
    if isinstance(document.get("account"), dict):
        _settle_guid(document["account"], domain.name if by_time else None)
    if by_time:
        document.setdefault("kvno", 0)
    document["changed_at"] = _time(document["changed_at"]) if "changed_at" in document else next_time()
    event = validate(PasswordChanged, document, what="line")
    _check(event, domain, now)
    account = event.account
    exclusion = (filters or Filter()).exclusion(Subject(sam_account_name=account.sam_account_name, sid=account.sid))
    if exclusion is not None:
        raise ExcludedError(exclusion)
    return event


def _settle_guid(account: dict[str, Any], domain: str | None) -> None:
    guid, name = account.get("guid"), account.get("sam_account_name")
    with suppress(ValueError):
        if isinstance(guid, str):
            account["guid"] = UUID(guid)
        elif "guid" not in account and domain is not None and isinstance(name, str):
            account["guid"] = uuid5(uuid5(NAMESPACE_DNS, domain), name.casefold())
        return
    # Raised here, because the errors above hold the text that is wrong.
    raise MalformedError(
        f"line: account.{'guid: not a UUID' if 'guid' in account else 'sam_account_name: not Unicode'}"
    )


def _time(value: Any) -> Any:
    """FILETIME of an RFC 3339 text (to the microsecond); what is no text is checked as a FILETIME later."""
    if not isinstance(value, str):
        return value
    try:
        if _RFC3339.fullmatch(value):
            return filetime.from_datetime(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        pass
    raise MalformedError("line: changed_at: neither a FILETIME number nor an RFC 3339 time with its offset")


def _check(event: PasswordChanged, domain: DomainSettings, now: int) -> None:
    """What the consumer would make a dead letter of, refused while somebody can still repair it."""
    account = event.account
    if domain.order is Order.TIME:
        if event.kvno != 0:
            raise ForeignDomainError('kvno: not in a domain with order = "time"')
        if event.changed_at > now + limits.MAX_AHEAD_SECONDS * filetime.UNITS_PER_SECOND:
            raise MalformedError(
                f"changed_at: more than {limits.MAX_AHEAD_SECONDS} s in the future of this host's clock: set the "
                "clocks right, or give the right changed_at, or none"
            )
    elif event.kvno < 1:
        raise ForeignDomainError('kvno: at least 1 in a domain with order = "kvno"')
    if domain.sid is not None and (account.sid is None or account.sid.rpartition("-")[0] != domain.sid):
        raise ForeignDomainError("account.sid: missing, or not of the domain's own sid")
