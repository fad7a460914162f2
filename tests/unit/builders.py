"""Valid things for unit tests to break: events, keys, envelopes. Every password carries the canary."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from passrelay_schemas.envelope import Envelope, SealedEvent
from passrelay_schemas.event import Account, Kind, PasswordChanged
from passrelay_schemas.keys import KeyDocument, KeyUse, generate
from passrelay_schemas.sealing import Opener, seal_event
from passrelay_schemas.secret import Secret
from passrelay_schemas.signing import Signer
from tests.lab.folder import CANARY

DOMAIN = "lab.example"
DOMAIN_SID = "S-1-5-21-1-2-3"
PRODUCER = "dc1"
PASSWORD = f"{CANARY}-geheim"
GUID = UUID("0b6f0f5e-6a4b-4a4e-9a52-0d4f5a1b2ce1")
EVENT_ID = UUID("01940000-0000-7000-8000-00000000007a")
CHANGED_AT = 134_084_736_001_234_567
SIGNED_AT = datetime(2026, 11, 24, 22, 42, 33, 120_000, UTC)


def event(password: str | None = PASSWORD, **changes: Any) -> PasswordChanged:
    """A change of alice's password; `changes` replace fields of the event, or of its account by their names."""
    account = {"guid": GUID, "sid": f"{DOMAIN_SID}-1105", "sam_account_name": "alice"}
    account |= {name: changes.pop(name) for name in list(changes) if name in Account.model_fields}
    fields: dict[str, Any] = {
        "domain": DOMAIN,
        "account": Account.model_validate(account),
        "password": None if password is None else Secret(password),
        "kvno": 7,
        "changed_at": CHANGED_AT,
        "kind": Kind.CHANGE,
    }
    return PasswordChanged.model_validate(fields | changes)


class Party:
    """One recipient and one producer with fresh keys."""

    def __init__(self, algorithm: str | None = None, producer: str = PRODUCER) -> None:
        self.recipient, private = generate(KeyUse.RECIPIENT, algorithm=algorithm)
        self.opener = Opener(self.recipient, private)
        self.signing: KeyDocument
        self.signing, self.signing_private = generate(KeyUse.SIGNING, producer=producer)
        self.signer = Signer(self.signing, self.signing_private)

    def seal(self, password: str = PASSWORD, event_id: UUID | None = EVENT_ID) -> SealedEvent:
        """An event sealed to this recipient, as the spool keeps it."""
        return seal_event(event(password), producer=PRODUCER, recipient=self.recipient, event_id=event_id)

    def envelope(self, password: str = PASSWORD, event_id: UUID | None = EVENT_ID) -> bytes:
        """The same, signed, as the broker sees it."""
        return self.signer.sign(self.seal(password, event_id), signed_at=SIGNED_AT)

    def open(self, raw: bytes) -> bytes:
        """Parse, verify and open, as a consumer does; EventError where one of them refuses."""
        from passrelay_schemas.signing import verify

        envelope = Envelope.parse(raw)
        verify(envelope, self.signing)
        return self.opener.open(envelope.sealed[0], info=envelope.protected)


def changed(raw: bytes, **fields: Any) -> bytes:
    """A JSON object with some fields replaced, or dropped where the new value is Ellipsis."""
    document = json.loads(raw) | fields
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def flipped(raw: bytes, position: int, mask: int = 0x01) -> bytes:
    """`raw` with one byte changed."""
    return raw[:position] + bytes([raw[position] ^ mask]) + raw[position + 1 :]
