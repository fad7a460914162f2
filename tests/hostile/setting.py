"""What the calls need beside their input: keys, settings, entries, and a folder in memory; all made once."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from passrelay_consumer.directory import Directory
from passrelay_consumer.journal import Journal
from passrelay_ops.notes import Notes
from passrelay_ops.report import printable
from passrelay_producer import supplemental
from passrelay_schemas import event as events
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import write_private, write_public
from passrelay_schemas.logs import Log
from passrelay_schemas.order import Order
from tests.hostile import campaign, samples
from tests.hostile.attributes import parse_entry

FOLDER = Path(tempfile.mkdtemp(prefix="prhostile-", dir=os.environ.get(campaign.FOLDER)))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
KEYS = FOLDER / "keys"
NOW = datetime(2026, 11, 24, 23, tzinfo=UTC)


def _make_keys() -> Keyring:
    KEYS.mkdir(mode=0o700)
    for document, private in (
        (samples.OPS, samples.OPS_PRIVATE),
        (samples.HOOK, samples.HOOK_PRIVATE),
        (samples.PARTY.signing, None),
    ):
        write_public(KEYS, document)
        if private is not None:
            write_private(KEYS, document, private)
    return Keyring(KEYS)


KEYRING = _make_keys()
NOTES = Notes(KEYRING)
JOURNAL = Journal(KEYRING, Log("hostile"))
DOMAIN = DomainSettings(name="lab.example", sid="S-1-5-21-1-2-3", producers=("dc1",), epoch=1, epoch_began_at=NOW)
BY_TIME = DomainSettings(name="flat.example", order=Order.TIME, producers=("dc1",))
DOMAINS = {domain.name: domain for domain in (DOMAIN, BY_TIME)}
IDM = IdmSettings(
    servers=("ldaps://idm1.example",),
    ca_file=Path("/ca"),
    bind_dn="uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
    password_file=Path("/password"),
)
EVENT = events.decode(samples.EVENTS[2])
_OPENPGP = FOLDER / "openpgp.key"
_OPENPGP.touch(mode=0o600)
_OPENPGP.write_bytes(bytes(samples.SECRET_KEY))
KEY_FILE = supplemental.OpenPgpKeyFile(_OPENPGP)


class Remembered:
    """The same, but each message is decrypted once: what surrounds it is what is tried here."""

    open = staticmethod(lru_cache(64)(KEY_FILE.open))


PASSPHRASE = FOLDER / "passphrase"
PASSPHRASE.touch(mode=0o600)
PASSPHRASE.write_text(samples.PASSPHRASE.reveal())


def file(name: str, content: bytes) -> Path:
    path = FOLDER / name
    if not path.exists():
        path.touch(mode=0o600)
    path.write_bytes(content)
    return path


class Opened:
    """Stands for a private key: what was sealed is there already."""

    def __init__(self, plain: bytes) -> None:
        self._plain = plain

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """The plain bytes."""
        return self._plain


DECODED = [events.decode(raw) for raw in samples.EVENTS]
IDM_ENTRY, _OTHER_ENTRY = (
    Directory("ldaps://idm1.example", IDM)._entry("uid=alice", dict(parse_entry(raw)["raw_attributes"].items()))
    for raw in samples.IDM_ENTRIES
)
ENTRIES = (IDM_ENTRY, _OTHER_ENTRY, replace(IDM_ENTRY, marker=None, proof=None))
VALID_SETTINGS = file("valid.toml", samples.CONSUMER_TOML)


def told(text: str) -> None:
    """What a command says aloud."""
    no_canary(printable(text))


def no_canary(text: str) -> None:
    """No password in what is told, and no more than a page of it."""
    assert "Kanarie7" not in text
    assert len(text) < 10_000
