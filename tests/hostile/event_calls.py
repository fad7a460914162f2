"""What is inside an envelope or a hook's record, once it is open."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any, cast

from ldap3.operation.search import compile_filter, parse_filter

from passrelay_consumer.decide import decide as decide_write
from passrelay_consumer.hook_part import with_password
from passrelay_consumer.search_filter import match_filter
from passrelay_producer.sources.hook_folder import RecordName
from passrelay_schemas import event as events
from passrelay_schemas.deny import denied
from passrelay_schemas.enrolment import check_event, order_key
from passrelay_schemas.errors import EventError
from passrelay_schemas.filetime import rfc3339, to_datetime
from passrelay_schemas.hook_record import HookRecord, RecordHeader
from passrelay_schemas.marker import Marker
from tests.hostile import samples
from tests.hostile.setting import DOMAIN, DOMAINS, ENTRIES, EVENT, KEYRING, NOW, Opened
from tests.unit.builders import EVENT_ID, GUID


def event(raw: bytes) -> None:
    event = events.decode(raw.rstrip(b" ").ljust(2048 if len(raw.rstrip(b" ")) <= 2048 else 4096))
    for domain in DOMAINS.values():
        with suppress(EventError):
            check_event(event, domain)
    account = event.account
    denied(sam_account_name=account.sam_account_name, sid=account.sid)
    _look_for(event)
    for entry in ENTRIES:
        key = order_key(event, DOMAIN, EVENT_ID)
        decision = decide_write(
            event, key=key, event_id=EVENT_ID, entry=entry, epoch=1, carry_must_change=True, idm_newer_wins=True
        )
        repr(decision)
    rfc3339(to_datetime(event.changed_at))
    marker = Marker(1, event.kvno, key.changed_at, account.guid, EVENT_ID, rfc3339(NOW))
    assert Marker.parse(str(marker)) == marker


def _look_for(event: events.PasswordChanged) -> None:
    """The filter must ask for exactly one name, whatever that name is."""
    text = match_filter("(uid={sam})", event.account)
    tree = parse_filter(text, None, auto_escape=False, auto_encode=False, validator=None, check_names=False)
    asked = compile_filter(tree.elements[0])["equalityMatch"]["assertionValue"]
    assert bytes(asked) == event.account.sam_account_name.strip().encode() or bytes(asked) == (
        event.account.sam_account_name.encode()
    )


def name(raw: bytes) -> None:
    name = raw.decode("utf-8", "replace")
    with suppress(ValueError):  # pydantic's, which the event's own parser turns into one of ours
        account = events.Account(guid=GUID, sid=None, sam_account_name=name, user_principal_name=name)
        _look_for(EVENT.model_copy(update={"account": account}))


def hook_record(raw: bytes) -> None:
    """The header and part of a record whose checksum is right."""
    whole = raw[:769].ljust(769, b"\0")
    HookRecord.parse(whole + hashlib.sha256(whole).digest())


def hook_plain(raw: bytes) -> None:
    record = HookRecord(samples.HOOK_PART + bytes(32), RecordHeader("S-1-5-21-1-2-3", "dc1", samples.HOOK.key_id))
    captured = record.open(cast("Any", Opened(raw)))
    assert len(captured.password.reveal()) > 0


def hook_text(raw: bytes) -> None:
    event = EVENT.model_copy(update={"password": None, "record": raw.decode("utf-8", "replace")})
    with_password(event, producer="dc1", domain=DOMAIN, keyring=KEYRING)


def hook_name(raw: bytes) -> None:
    RecordName.parse(raw.decode("utf-8", "surrogateescape"))
