"""The hook's record: whole or refused, opened only by its key under its own header; and its place in an event."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from passrelay_consumer.hook_part import with_password
from passrelay_schemas import limits
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import (
    EmptyPasswordError,
    ForeignDomainError,
    KeyFileError,
    MalformedError,
    UnknownKeyError,
)
from passrelay_schemas.event import Kind, PasswordChanged, decode, encode
from passrelay_schemas.hook_record import BYTES, HookRecord, TornError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse, generate, write_private, write_public
from passrelay_schemas.sealing import Opener, seal_event
from passrelay_schemas.suites import MLKEM768_X25519, P256
from tests.lab.folder import CANARY
from tests.unit.builders import CHANGED_AT, DOMAIN, DOMAIN_SID, PASSWORD, PRODUCER, Party, event, flipped
from tests.unit.hook_records import RID, hook_record

KEY, PRIVATE = generate(KeyUse.HOOK)
OPENER = Opener(KEY, PRIVATE)
RAW = hook_record(KEY)
ENROLMENT = DomainSettings(name=DOMAIN, sid=DOMAIN_SID)


def with_record(raw: bytes = RAW, **changes: Any) -> PasswordChanged:
    return event(None, record=HookRecord.parse(raw).text, **changes)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    write_public(directory, KEY)
    write_private(directory, KEY, PRIVATE)
    return Keyring(directory)


def opened(found: PasswordChanged, keyring: Keyring, producer: str = PRODUCER) -> PasswordChanged:
    return with_password(found, producer=producer, domain=ENROLMENT, keyring=keyring)


def test_a_record_says_whose_it_is_and_only_its_key_says_the_rest() -> None:
    record = HookRecord.parse(RAW)
    assert (record.header.domain_sid, record.header.producer, record.header.key_id) == (
        DOMAIN_SID,
        PRODUCER,
        KEY.key_id,
    )
    captured = record.open(OPENER)
    assert (captured.rid, captured.filetime, captured.password.reveal()) == (RID, CHANGED_AT, PASSWORD)
    assert CANARY not in repr(captured)
    assert HookRecord.from_text(record.text) == record
    with pytest.raises(MalformedError):
        record.open(Opener(*generate(KeyUse.HOOK)))


@given(st.integers(0, BYTES - 1))
def test_a_record_with_one_changed_byte_is_torn(position: int) -> None:
    with pytest.raises(TornError):
        HookRecord.parse(flipped(RAW, position))


@given(st.binary(max_size=900))
def test_any_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        HookRecord.parse(raw)


@pytest.mark.parametrize(
    "fields", [{"schema": b"passrelay.hook/2"}, {"sid": "S-1"}, {"producer": "d c"}, {"key_id": "short"}]
)
def test_a_whole_file_with_another_header_is_no_record(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        HookRecord.parse(hook_record(KEY, **fields))
    assert not isinstance(caught.value, TornError)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"length": 4}, MalformedError),
        ({"length": 514}, MalformedError),
        ({"password": b""}, EmptyPasswordError),
        ({"password": "a\ud800".encode("utf-16-le", "surrogatepass")}, MalformedError),
        ({"password": b"abc"}, MalformedError),
    ],
)
def test_what_is_inside_is_checked_and_not_told(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        HookRecord.parse(hook_record(KEY, **fields)).open(OPENER)
    assert caught.value.__context__ is None


def test_an_event_with_a_record_has_the_size_of_every_other_and_holds_no_clear_text() -> None:
    found = with_record()
    assert decode(encode(found)) == found
    assert len(encode(found)) == len(encode(event())) == limits.EVENT_BYTES[0]
    longest = with_record(sam_account_name="ä" * 20, user_principal_name="u" * limits.MAX_UPN)
    assert len(encode(longest)) == limits.EVENT_BYTES[1]
    sealed = seal_event(found, producer=PRODUCER, recipient=Party().recipient)
    assert len(sealed.sealed) == 1
    assert sealed.header.suite == MLKEM768_X25519
    for needle in (KEY.key_id.encode(), DOMAIN_SID.encode(), HookRecord.parse(RAW).text[:40].encode()):
        assert needle not in sealed.protected + sealed.sealed[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"password": PASSWORD},
        {"kind": Kind.EXPIRE, "must_change": True},
        {"record": "A" * (limits.HOOK_RECORD_TEXT - 1)},
        {"record": None},
    ],
)
def test_a_record_stands_for_exactly_one_password(changes: dict[str, Any]) -> None:
    document = with_record().model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValidationError):
        PasswordChanged.model_validate(document | changes)


def test_the_consumer_puts_the_password_in_the_records_place(keyring: Keyring) -> None:
    found = opened(with_record(), keyring)
    assert found == event()
    assert opened(event(), keyring) == event()


@pytest.mark.parametrize(
    ("fields", "account"),
    [
        ({"sid": "S-1-5-21-1-2-4"}, {}),
        ({"producer": "dc2"}, {}),
        ({"rid": RID + 1}, {}),
        ({}, {"sid": f"{DOMAIN_SID}-{RID + 1}"}),
        ({}, {"sid": None}),
    ],
)
def test_another_domains_producers_or_accounts_record_is_foreign(
    keyring: Keyring, fields: dict[str, Any], account: dict[str, Any]
) -> None:
    with pytest.raises(ForeignDomainError) as caught:
        opened(with_record(hook_record(KEY, **fields), **account), keyring)
    assert CANARY not in str(caught.value)


def test_a_record_sent_by_another_producer_is_foreign(keyring: Keyring) -> None:
    with pytest.raises(ForeignDomainError):
        opened(with_record(), keyring, producer="dc2")


def test_a_record_under_another_header_cannot_be_opened(keyring: Keyring) -> None:
    """Somebody puts it under his own name and makes the checksum fit."""
    stolen = hook_record(KEY, producer="dc2")
    header = hook_record(KEY)[:160]
    part = header + stolen[160:769]
    forged = part + hashlib.sha256(part).digest()
    with pytest.raises(MalformedError):
        opened(with_record(forged), keyring)


def test_a_text_that_is_no_record_is_malformed(keyring: Keyring) -> None:
    with pytest.raises(MalformedError):
        opened(event(None, record="A" * limits.HOOK_RECORD_TEXT), keyring)


def test_an_unknown_key_waits_and_a_recipient_key_is_no_hook_key(keyring: Keyring) -> None:
    other, private = generate(KeyUse.HOOK)
    with pytest.raises(UnknownKeyError):
        opened(with_record(hook_record(other)), keyring)
    outer, outer_private = generate(KeyUse.RECIPIENT, algorithm=P256)
    write_public(keyring.directory, outer)
    write_private(keyring.directory, outer, outer_private)
    write_public(keyring.directory, other)
    write_private(keyring.directory, other, private)
    keyring.refresh()
    assert opened(with_record(hook_record(other)), keyring) == event()
    with pytest.raises(UnknownKeyError):
        opened(with_record(hook_record(outer)), keyring)


def test_no_new_envelope_is_sealed_to_a_hook_key(keyring: Keyring) -> None:
    with pytest.raises(KeyFileError):
        keyring.recipient()
    with pytest.raises(UnknownKeyError):
        keyring.opener(KEY.key_id)
