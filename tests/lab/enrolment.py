"""Keys and configuration of one lab: what an administrator would have made with `passrelay keys` and an editor."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from passrelay_schemas import keys
from passrelay_schemas.event import Account, PasswordChanged
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyUse
from passrelay_schemas.sealing import seal_event
from passrelay_schemas.secret import Secret
from passrelay_schemas.signing import Signer

DOMAIN = "lab.example"
DOMAIN_SID = "S-1-5-21-1111111111-2222222222-3333333333"


def toml(document: dict[str, Any]) -> str:
    """A TOML text of nested tables, lists of tables and JSON-like values (strings in JSON form are TOML strings)."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in document.items():
        if isinstance(value, dict):
            tables.append(_table(name, value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [_table(name, row, double=True) for row in value]
        else:
            lines.append(f"{name} = {json.dumps(value, default=str)}")
    return "\n".join([*lines, *tables]) + "\n"


def _table(name: str, rows: dict[str, Any], *, double: bool = False) -> str:
    inner = {key: value for key, value in rows.items() if isinstance(value, dict)}
    plain = {key: value for key, value in rows.items() if not isinstance(value, dict)}
    head = f"\n[[{name}]]" if double else f"\n[{name}]"
    text = [head, *(f"{key} = {json.dumps(value, default=str)}" for key, value in plain.items())]
    return "\n".join([*text, *(_table(f"{name}.{key}", value) for key, value in inner.items())])


class Enrolment:
    """One recipient key, one ops key and any number of producers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.consumer_keys = folder / "consumer-keys"
        self.consumer_keys.mkdir(parents=True, mode=0o700)
        self.recipient = self._make(KeyUse.RECIPIENT)
        self.ops = self._make(KeyUse.OPS)
        self.producers: list[str] = []

    def _make(self, use: KeyUse) -> KeyDocument:
        document, private = keys.generate(use)
        keys.write_public(self.consumer_keys, document)
        keys.write_private(self.consumer_keys, document, private)
        return document

    def producer_keys(self, name: str) -> Path:
        """The key directory of a producer."""
        return self.folder / f"{name}-keys"

    def enrol(self, name: str) -> Sender:
        """Make a producer's signing key and make it known to the consumers."""
        directory = self.producer_keys(name)
        directory.mkdir(mode=0o700)
        document, private = keys.generate(KeyUse.SIGNING, producer=name)
        keys.write_public(directory, document)
        keys.write_private(directory, document, private)
        keys.write_public(directory, self.recipient)
        keys.write_public(self.consumer_keys, document)
        self.producers.append(name)
        return Sender(name, Keyring(directory))

    def domain(self, search_base: str, **changes: Any) -> dict[str, Any]:
        """The [[domain]] table of the lab's domain."""
        table = {"name": DOMAIN, "sid": DOMAIN_SID, "producers": self.producers, "search_base": search_base}
        return {**table, **changes}


class Sender:
    """A producer without a directory behind it: makes real envelopes for tests and load."""

    def __init__(self, name: str, keyring: Keyring) -> None:
        self.name = name
        self.signer: Signer = keyring.signer()
        self.recipient = keyring.recipient()

    def envelope(self, event: PasswordChanged, *, event_id: UUID | None = None) -> bytes:
        """The bytes of one sealed and signed event."""
        sealed = seal_event(event, producer=self.name, recipient=self.recipient, event_id=event_id or new_event_id())
        return self.signer.sign(sealed, signed_at=datetime.now(UTC))


def change(
    sam: str,
    password: str | None,
    *,
    guid: UUID,
    kvno: int,
    changed_at: int,
    rid: int = 1105,
    **more: Any,
) -> PasswordChanged:
    """An event of the lab's domain."""
    return PasswordChanged(
        domain=more.pop("domain", DOMAIN),
        account=Account(guid=guid, sid=more.pop("sid", f"{DOMAIN_SID}-{rid}"), sam_account_name=sam),
        password=None if password is None else Secret(password),
        kvno=kvno,
        changed_at=changed_at,
        **more,
    )
