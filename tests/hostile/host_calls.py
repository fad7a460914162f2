"""What IdM answers, and the files of this host."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from unittest import mock

from passrelay_consumer.decide import decide as decide_write
from passrelay_consumer.decide import own_write
from passrelay_consumer.directory import Directory, clock_offset, finish_changes, write_changes
from passrelay_consumer.directory import parse_generalized_time as parse_time
from passrelay_consumer.lifetime import expires_at, password_life
from passrelay_consumer.protection import out_of_use, protection
from passrelay_consumer.settle import may_begin, unsettled
from passrelay_consumer.shared_connection import SharedConnection
from passrelay_producer import supplemental
from passrelay_schemas import distinguished_name, key_encryption
from passrelay_schemas.enrolment import order_key
from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.filetime import rfc3339, to_datetime
from passrelay_schemas.keys import KeyStatus, is_encrypted, read_private, read_public
from passrelay_schemas.marker import Marker
from passrelay_schemas.secret_file import read_secret_file
from passrelay_schemas.settings import ConsumerSettings, ProducerSettings
from passrelay_schemas.settings_file import load
from tests.hostile import samples
from tests.hostile.attributes import parse_entry
from tests.hostile.setting import DECODED, DOMAIN, IDM, IDM_ENTRY, NOW, PASSPHRASE, VALID_SETTINGS, file
from tests.unit.builders import EVENT_ID, GUID

MOST_SAID = 65536
"""Bytes that a socket takes before anybody reads."""


def marker(raw: bytes) -> None:
    marker = Marker.parse(raw.decode("utf-8", "replace"))
    assert str(marker).encode() == raw
    rfc3339(to_datetime(marker.changed_at))


def idm_entry(raw: bytes) -> None:
    answer = parse_entry(raw)
    attributes = dict(answer["raw_attributes"].items())
    entry = Directory("ldaps://idm1.example", IDM)._entry(answer["dn"], attributes)
    for number, event in enumerate(DECODED):
        key = order_key(event, DOMAIN, EVENT_ID)
        for times_kept in (True, False):
            decide_write(
                event,
                key=key,
                event_id=EVENT_ID,
                entry=entry,
                epoch=1,
                carry_must_change=True,
                idm_newer_wins=number > 0,
                times_kept=times_kept,
                ours_within=own_write(10),
            )
    new = Marker(1, 8, 1, GUID, EVENT_ID, rfc3339(NOW))
    write_changes(password=samples.PASSPHRASE, new=new, entry=entry, idm=IDM, unlock_at=NOW)
    if entry.marker is not None:
        finish_changes(old=entry.marker, new=new, attribute="x", expired_at=NOW)
    protection(entry, ("admins",))
    out_of_use(entry.dn)
    unsettled(entry, {"other": IDM_ENTRY, "another": None})
    may_begin(entry, NOW)
    if entry.last_change is not None:
        expires_at(entry.last_change, password_life(entry, probe=entry.life))
    for stamp in attributes.get("modifyTimestamp", ())[:1]:
        if (moment := parse_time(stamp)) is not None:
            clock_offset(moment, before=NOW, after=NOW)


def idm_answers(raw: bytes) -> None:
    """All that a server says to one search, then it hangs up."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(raw[:MOST_SAID])
        theirs.shutdown(socket.SHUT_WR)
        directory = Directory("ldaps://idm1.example", IDM)
        directory._connection = SharedConnection(ours, 10)
        try:
            entry = directory.read("uid=alice")
        finally:
            directory.close()
    if entry is not None:
        protection(entry, ("admins",))
        out_of_use(entry.dn)


def public_key(raw: bytes) -> None:
    document = read_public(file("a.pub.json", raw))
    document.encode()
    repr(document.fingerprint)
    document.with_status(KeyStatus.RETIRED)


def private_key(raw: bytes) -> None:
    path = file("a.key", raw)
    with suppress(KeyFileError):
        is_encrypted(path)
    with mock.patch.object(key_encryption, "_derive", samples.derived):
        for document in (samples.PARTY.signing, samples.OPS, samples.HOOK):
            if document.key_id.encode() in raw:
                read_private(path, document, passphrase_file=PASSPHRASE)


def secret_file(raw: bytes) -> None:
    assert read_secret_file(file("secret", raw), what="[idm] password_file").reveal()


def openpgp_key(raw: bytes) -> None:
    supplemental.OpenPgpKeyFile(file("openpgp", raw)).check()


def consumer_settings(raw: bytes) -> None:
    load(ConsumerSettings, file("consumer.toml", raw))


def producer_settings(raw: bytes) -> None:
    load(ProducerSettings, file("producer.toml", raw))


def environment(raw: bytes) -> None:
    variables = {}
    for line in raw.decode("utf-8", "surrogateescape").replace("\0", "").split("\n"):
        name, _, value = line.partition("=")
        if name.startswith("PASSRELAY_"):
            variables[name] = value
    with mock.patch.dict(os.environ, variables):
        load(ConsumerSettings, VALID_SETTINGS)


def dn(raw: bytes) -> None:
    text = raw.decode("utf-8", "replace")
    distinguished_name.folded(text)
    distinguished_name.canonical(text)
