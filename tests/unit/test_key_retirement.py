"""When a key may be retired: not while anything can still need it as it is, and every reason is named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pika
import pytest

from passrelay_ops import key_evidence, key_retirement
from passrelay_ops.key_evidence import Heard, Spoken
from passrelay_ops.key_files import KEPT
from passrelay_ops.key_retirement import Objection
from passrelay_ops.stream import StreamMessage
from passrelay_schemas import news as documents
from passrelay_schemas import topology
from passrelay_schemas.errors import ConfigurationError, SafetyError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, generate, write_public
from passrelay_schemas.message import record_properties
from passrelay_schemas.news import News, SpooledFor
from passrelay_schemas.record import Record, envelope_text
from passrelay_schemas.verdict import Reason, Verdict
from tests.unit.builders import EVENT_ID, PRODUCER, SIGNED_AT, Party

PARTY = Party()
STRANGER = Party(producer="dc7")
OLD = PARTY.recipient
NEW, _ = generate(KeyUse.RECIPIENT)
LONGEST = key_retirement.window(24)
EMPTY = {topology.EVENTS: 0, **{tier.queue: 0 for tier in topology.TIERS}}


def news(party: Party = PARTY, **changes: Any) -> News:
    fields: dict[str, Any] = {
        "signing_key_id": party.signing.key_id,
        "producer": party.signing.producer,
        "source": "samba",
        "version": "1.0",
        "seals_to": NEW.key_id,
        "sent_at": SIGNED_AT,
        "started_at": SIGNED_AT,
    }
    return News.model_validate(fields | changes)


def spooled(queued: int = 0, retained: int = 0) -> tuple[SpooledFor, ...]:
    oldest = SIGNED_AT if queued else None
    return (SpooledFor(recipient_key_id=OLD.key_id, queued=queued, oldest_at=oldest, retained=retained),)


def heard(*messages: News, party: Party = PARTY, keyring: Keyring) -> Heard:
    stream = (
        StreamMessage(offset, documents.encode(message, party.signer), pika.BasicProperties())
        for offset, message in enumerate(messages)
    )
    return key_evidence.judge(stream, keyring, OLD.key_id)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return with_documents(tmp_path / "keys", PARTY.signing, OLD, later(NEW))


def with_documents(directory: Path, *found: KeyDocument) -> Keyring:
    directory.mkdir(mode=0o700, exist_ok=True)
    for document in found:
        write_public(directory, document)
    return Keyring(directory)


def later(document: KeyDocument) -> KeyDocument:
    return document.model_copy(update={"created_at": document.created_at + timedelta(days=1)})


def objections(
    said: Heard,
    *,
    depths: dict[str, int] | None = None,
    producers: Iterable[str] = (PRODUCER,),
    revoked: Iterable[str] = (),
) -> list[Objection]:
    return list(
        key_retirement.recipient(
            OLD,
            producers=set(producers),
            revoked=set(revoked),
            heard=said,
            depths=EMPTY | (depths or {}),
            now=SIGNED_AT + timedelta(minutes=1),
            longest=LONGEST,
        )
    )


def test_nothing_speaks_against_a_key_that_nobody_holds(keyring: Keyring) -> None:
    assert objections(heard(news(), keyring=keyring)) == []
    assert objections(heard(news(), keyring=keyring), depths={"passrelay.retry.1h": 7}) == []
    assert list(key_retirement.successor(OLD, keyring)) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seals_to": OLD.key_id}, "it seals new events to the key"),
        ({"seals_to": None}, "does not say which key"),
        ({"spool": spooled(queued=2)}, "2 events .* not published yet"),
        ({"spool": spooled(retained=3)}, "3 published events"),
        ({"stopping": True}, "stopped at .*--despite dc1"),
        ({"sent_at": SIGNED_AT - timedelta(hours=1)}, "no news since .*--despite dc1"),
    ],
)
def test_a_producer_that_holds_or_may_hold_something_is_named(
    keyring: Keyring, changes: dict[str, Any], why: str
) -> None:
    (found,) = objections(heard(news(**changes), keyring=keyring))
    assert found.subject == "producer dc1"
    assert re.search(why, found.detail)


def test_a_producer_that_never_spoke_counts_until_it_is_said_to_be_gone(keyring: Keyring) -> None:
    said = heard(news(), keyring=keyring)
    (found,) = objections(said, producers={PRODUCER, "dc2"})
    assert (found.subject, "--despite dc2" in found.detail) == ("producer dc2", True)
    (found,) = objections(said, producers=())
    assert found.subject == "producers"


def test_the_newest_news_count_however_they_arrive(keyring: Keyring) -> None:
    before = news(sent_at=SIGNED_AT - timedelta(minutes=2), spool=spooled(queued=1))
    said = heard(news(), before, keyring=keyring)
    assert objections(said) == []
    assert said.spoken[PRODUCER] == Spoken(news(), before.sent_at)


def test_what_was_held_lately_may_still_be_in_a_tier(keyring: Keyring) -> None:
    before = news(sent_at=SIGNED_AT - timedelta(hours=3), spool=spooled(retained=1))
    said = heard(before, news(), keyring=keyring)
    (found,) = objections(said, depths={"passrelay.retry.2m": 1})
    assert found.subject == "passrelay.retry.2m"
    assert "2026-11-25T20:47:33" in found.detail  # the time of `before` and 25 h 5 min


def test_a_work_queue_that_never_empties_may_hold_anything(keyring: Keyring) -> None:
    (found,) = objections(heard(news(), keyring=keyring), depths={topology.EVENTS: 1})
    assert found.subject == topology.EVENTS


def test_strangers_and_revoked_producers_count(tmp_path: Path, keyring: Keyring) -> None:
    said = heard(news(STRANGER), party=STRANGER, keyring=keyring)
    assert said.strangers == {"dc7"}
    assert key_retirement.expected(keyring, ["dc3"], said) == {PRODUCER, "dc3", "dc7"}
    revoked = with_documents(tmp_path / "keys", PARTY.signing.with_status(KeyStatus.REVOKED))
    silent = Heard({}, frozenset())
    assert key_retirement.expected(revoked, [], silent) == {PRODUCER}
    assert key_retirement.revoked(revoked) == {PRODUCER}
    (found,) = objections(silent, revoked={PRODUCER})
    assert re.search("its key is revoked, .*--despite dc1", found.detail)
    (found,) = objections(said, producers={"dc7"})
    assert "not enrolled on this host" in found.detail


def test_a_producer_with_a_new_key_beside_the_revoked_one_speaks_for_itself(tmp_path: Path) -> None:
    new = Party()
    enrolled = with_documents(tmp_path / "keys", PARTY.signing.with_status(KeyStatus.REVOKED), new.signing, OLD)
    assert key_retirement.revoked(enrolled) == set()
    assert objections(heard(news(new), party=new, keyring=enrolled)) == []


def letter(party: Party, verdict: Verdict = Verdict.DEAD, event_id: UUID = EVENT_ID, replays: int = 0) -> Record:
    return Record(
        event_id=event_id,
        producer=PRODUCER,
        verdict=verdict,
        reason=Reason.USER_MISSING,
        replays=replays,
        received_at=SIGNED_AT,
        envelope=None if verdict is not Verdict.DEAD else envelope_text(party.envelope(event_id=event_id)),
    )


def test_live_letters_that_are_sealed_to_the_key_are_counted() -> None:
    other = new_event_id()
    records = [letter(PARTY), letter(Party(), event_id=other), letter(PARTY, event_id=new_event_id())]

    def count(*more: Record) -> int:
        told = [
            StreamMessage(offset, record.encode(), record_properties(record))
            for offset, record in enumerate([*records, *more])
        ]
        return key_evidence.letters(told, OLD.key_id)

    assert count() == 2
    replayed = letter(PARTY, Verdict.REPLAYED, replays=1)
    assert count(replayed) == 1
    assert count(replayed, letter(PARTY, replays=1)) == 2  # it died again


def test_the_key_in_use_has_no_successor(keyring: Keyring, tmp_path: Path) -> None:
    (found,) = key_retirement.successor(later(NEW), keyring)
    assert "keys rotate recipient" in found.detail
    waiting = with_documents(tmp_path / "other", OLD, later(NEW).model_copy(update={"status": KeyStatus.NEXT}))
    assert list(key_retirement.successor(OLD, waiting))  # a key that waits is no successor yet


def test_only_a_key_that_was_in_use_is_retired() -> None:
    with pytest.raises(ConfigurationError, match="never in use"):
        key_retirement.check_status(OLD.with_status(KeyStatus.NEXT))
    with pytest.raises(SafetyError, match="revoked"):
        key_retirement.check_status(OLD.with_status(KeyStatus.REVOKED))


def test_a_signing_key_is_retired_when_its_producer_signs_with_another(keyring: Keyring) -> None:
    now = SIGNED_AT + timedelta(minutes=1)
    said = heard(news(), keyring=keyring)
    (found,) = key_retirement.signing(PARTY.signing, heard=said, now=now)
    assert "keys rotate signing dc1 --activate" in found.detail
    other = Party().signing
    assert list(key_retirement.signing(other, heard=said, now=now)) == []
    (found,) = key_retirement.signing(other, heard=said, now=now + timedelta(hours=1))
    assert "--despite dc1" in found.detail


def test_an_ops_key_is_retired_when_no_note_was_sealed_to_it_lately() -> None:
    assert list(key_retirement.ops(None)) == []
    (found,) = key_retirement.ops(SIGNED_AT)
    assert "every consumer" in found.detail


def test_private_files_are_kept_as_long_as_the_streams() -> None:
    for queue in topology.queues():
        if queue.name in {topology.DEAD, topology.JOURNAL}:
            assert queue.arguments["x-max-age"] == f"{KEPT.days}D"


def test_a_hook_key_is_retired_when_somebody_has_looked_at_every_windows_controller(keyring: Keyring) -> None:
    hook_key, _ = generate(KeyUse.HOOK)
    said = heard(news(), keyring=keyring)  # dc1 is a Samba controller
    found = list(key_retirement.hook(hook_key, producers=["dc1", "dc8"], heard=said))
    assert [objection.subject for objection in found] == ["producer dc8"]
    assert "RecipientKeyId" in found[0].detail
    said = heard(news(source="hook"), keyring=keyring)
    assert [item.subject for item in key_retirement.hook(hook_key, producers=["dc1"], heard=said)] == ["producer dc1"]
    assert list(key_retirement.hook(hook_key, producers=[], heard=said)) == []
