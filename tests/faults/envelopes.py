"""What somebody publishes who is no producer of ours, or is one and does it again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import last_offset, read
from passrelay_schemas import filetime, record, topology
from passrelay_schemas.envelope import SignedHeader, assemble, signing_input
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keys import ED25519, KeyUse, generate
from passrelay_schemas.sealing import seal_event
from passrelay_schemas.signing import Signer
from tests.faults.plan import PRODUCERS
from tests.faults.site import Site
from tests.faults.traffic import Traffic
from tests.lab.enrolment import change
from tests.lab.folder import CANARY

_RECENT = 300
_COPIES = 60
_HIGH = 10_000
"""A version that would shut out every true change."""


@contextmanager
def repeated(site: Site, dice: random.Random) -> Iterator[None]:
    """Copies of recent envelopes, shuffled."""
    found = recent(site)
    site.publish_raw(dice.choices(found, k=_COPIES) if found else [])
    yield


def recent(site: Site) -> list[bytes]:
    """The last envelopes in the journal."""
    return site.ask(_envelopes)


def _envelopes(connection: BlockingConnection) -> list[bytes]:
    end = last_offset(connection, topology.JOURNAL)
    if end is None:
        return []
    messages = read(connection, topology.JOURNAL, since=max(0, end - _RECENT))
    records = [record.decode(message.body) for message in messages]
    return [raw for found in records if (raw := found.envelope_bytes) is not None]


@contextmanager
def strangers(site: Site, traffic: Traffic, dice: random.Random) -> Iterator[None]:
    """Forged for a user of ours with a version above all others; of a foreign domain; broken; altered on the way."""
    producer = dice.choice(PRODUCERS)
    sender = site.senders[producer]
    victim = dice.choice(traffic.people)
    password = f"{CANARY}-forged-{dice.getrandbits(32)}"
    forged = change(victim.name, password, guid=victim.guid, kvno=_HIGH, changed_at=filetime.now())
    sealed = seal_event(forged, producer=producer, recipient=sender.recipient, event_id=new_event_id())
    stranger = Signer(*generate(KeyUse.SIGNING, producer=producer))
    now = datetime.now(UTC)
    claimed = SignedHeader(signing_key_id=sender.signer.document.key_id, alg=ED25519, signed_at=now).encode()
    foreign = change(victim.name, password, guid=victim.guid, kvno=_HIGH, changed_at=1, sid="S-1-5-21-9-9-9-1105")
    site.publish_raw(
        [
            stranger.sign(sealed, signed_at=now),
            assemble(sealed, claimed, stranger.signature(signing_input(sealed, claimed))),
            sender.envelope(foreign),
            b"\0no envelope",
            *(_altered(found, dice) for found in dice.choices(recent(site) or [b"{}"], k=3)),
        ]
    )
    yield


def _altered(raw: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
