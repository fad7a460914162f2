"""A producer that means harm, with a good certificate, a good key and an enrolment: what it gets, and what it does not.

Each test is named in docs/security.md. The handler is the real one, the directory a real 389 Directory Server.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from passrelay_consumer.brake import Brake
from passrelay_consumer.disposition import Final, dispose
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_schemas import filetime, keys, limits
from passrelay_schemas.envelope import Envelope, SealedEvent
from passrelay_schemas.event import PasswordChanged, encode
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keys import KeyStatus
from passrelay_schemas.message import Counters
from passrelay_schemas.record import decode
from passrelay_schemas.sealing import seal, seal_event
from passrelay_schemas.strict_json import b64url
from passrelay_schemas.verdict import Reason, Verdict
from tests.hostile.setting import JOURNAL
from tests.integration.test_handler import Rig
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, Sender, change
from tests.lab.folder import canary_password

pytestmark = pytest.mark.integration


def _sealed_by_hand(sender: Sender, document: dict[str, Any]) -> bytes:
    """A signed envelope around a document that passrelay itself would never seal."""
    event_id = new_event_id()
    good = change("x", "y", guid=uuid4(), kvno=1, changed_at=1)
    header = seal_event(good, producer=sender.name, recipient=sender.recipient, event_id=event_id).protected
    plain = json.dumps(document, ensure_ascii=False).encode().ljust(limits.EVENT_BYTES[0])
    return sender.signer.sign(
        SealedEvent(header, (seal(plain, info=header, recipient=sender.recipient),)), signed_at=datetime.now(UTC)
    )


def _document(event: PasswordChanged, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode(event))
    return document | changes


# --- whose password


def test_it_can_set_any_password_of_its_own_domain_that_is_what_it_is_enrolled_for(rig: Rig) -> None:
    user, chosen = rig.user(), canary_password()
    assert rig.send(user, chosen, 1).verdict is Verdict.APPLIED
    assert rig.directory.binds(user, chosen)


def test_it_cannot_take_an_entry_that_another_ad_account_has(rig: Rig) -> None:
    user, mine = rig.user(), canary_password()
    rig.send(user, mine, 1)
    outcome = rig.send(user, canary_password(), 2, guid=uuid4())
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.IDENTITY)
    assert rig.directory.binds(user, mine)


@pytest.mark.parametrize(
    "claim",
    [
        {"sid": "S-1-5-21-9-9-9-1105"},
        {"sid": None},
        {"sid": f"{DOMAIN_SID}-1-1105"},
        {"domain": "other.example", "sid": "S-1-5-21-9-9-9-1105"},
        {"domain": "nowhere.example"},
        {"domain": "flat.example", "kvno": 5},
        {"kvno": 0},
    ],
    ids=repr,
)
def test_it_cannot_speak_for_another_domain_nor_in_another_order(rig: Rig, claim: dict[str, Any]) -> None:
    user = rig.user()
    kvno = claim.pop("kvno", 3)
    outcome = rig.send(user, canary_password(), kvno, **claim)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.FOREIGN_DOMAIN)
    assert "passrelayMarker" not in rig.directory.read(user)


def test_it_cannot_hide_another_domain_inside_its_own_envelope(rig: Rig) -> None:
    user = rig.user()
    event = change(user, canary_password(), guid=uuid4(), kvno=1, changed_at=filetime.now())
    for domain in ("other.example", "OTHER.example.", ""):
        outcome = rig.deliver(_sealed_by_hand(rig.sender, _document(event, domain=domain)))
        assert outcome.reason in {Reason.FOREIGN_DOMAIN, Reason.MALFORMED}
    assert "passrelayMarker" not in rig.directory.read(user)


@pytest.mark.parametrize(
    "name",
    [
        "pc1$",
        "pc1$\u200b",
        "pc1$ ",
        "pc1\uff04",
        "krbtgt",
        " krbtgt",
        "\u200bkrbtgt",
        "krb\u00adtgt",
        "KRBTGT_7",
        "\ufe0fkrbtgt",
        "\uff4brbtgt",
    ],
    ids=ascii,
)
def test_it_cannot_dress_up_the_name_of_a_machine_or_of_krbtgt(rig: Rig, name: str) -> None:
    outcome = rig.send(name, canary_password(), 1)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.PROTECTED)


@pytest.mark.parametrize("rid", [500, 501, 502])
def test_it_cannot_name_a_built_in_account_whatever_its_name(rig: Rig, rid: int) -> None:
    outcome = rig.send(rig.user(), canary_password(), 1, rid=rid)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.PROTECTED)


def test_it_cannot_write_to_a_member_of_idms_admins_whatever_ad_says_of_him(rig: Rig) -> None:
    user = rig.user()
    rig.directory.add_to_group(user, "admins")
    outcome = rig.send(user, canary_password(), 1)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.PROTECTED)
    assert "passrelayMarker" not in rig.directory.read(user)


@pytest.mark.parametrize(
    "name",
    [
        "**",
        "{0}*",
        "{0})(uid=*",
        "*)(objectClass=*",
        "{0})(|(uid=*",
        "{0}\\00",
        "\\2a",
        "uid={0}",
        "{0},cn=users",
        "{{sam}}",
    ],
)
def test_no_name_reaches_into_the_filter_or_a_dn(rig: Rig, name: str) -> None:
    user, before = rig.user(), canary_password()
    rig.send(user, before, 1)
    outcome = rig.send(name.format(user), canary_password(), 9)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, Reason.USER_MISSING)
    assert rig.directory.binds(user, before)


# --- when


def test_a_version_from_the_future_shuts_true_changes_out_until_an_operator_resets_the_marker(rig: Rig) -> None:
    user, forged = rig.user(), canary_password()
    assert rig.send(user, forged, limits.MAX_KVNO, changed_at=1).verdict is Verdict.APPLIED
    outcome = rig.send(user, canary_password(), 8)
    # Not in silence: the true change is later than what stands there under a higher version.
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, "version_back")
    assert rig.directory.binds(user, forged)


@pytest.mark.parametrize(
    "changes",
    [
        {"kvno": limits.MAX_KVNO + 1},
        {"kvno": 2**63},
        {"kvno": 10**30},
        {"kvno": -1},
        {"kvno": 7.0},
        {"kvno": True},
        {"changed_at": limits.MAX_FILETIME + 1},
        {"changed_at": 2**63},
        {"changed_at": -1},
        {"must_change": "yes"},
        {"kind": "delete"},
        {"password": None},
        {"password": ["Kanarie7-list"]},
        {"userPassword": "Kanarie7-more"},
    ],
    ids=repr,
)
def test_what_no_event_can_say_is_malformed_and_writes_nothing(rig: Rig, changes: dict[str, Any]) -> None:
    user = rig.user()
    event = change(user, canary_password(), guid=uuid4(), kvno=1, changed_at=filetime.now())
    outcome = rig.deliver(_sealed_by_hand(rig.sender, _document(event, **changes)))
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.MALFORMED)
    assert "Kanarie7" not in outcome.diagnostic
    assert "passrelayMarker" not in rig.directory.read(user)


def test_a_time_from_the_far_future_shuts_nobody_out_where_versions_count(rig: Rig) -> None:
    user, newest = rig.user(), canary_password()
    rig.send(user, canary_password(), 1, changed_at=limits.MAX_FILETIME)
    assert rig.send(user, newest, 2).verdict is Verdict.APPLIED
    assert rig.directory.binds(user, newest)


def test_in_a_domain_by_time_a_day_ahead_is_the_most_that_it_can_shut_out(rig: Rig) -> None:
    user = rig.user()
    ahead = filetime.now() + 2 * limits.MAX_AHEAD_SECONDS * filetime.UNITS_PER_SECOND
    outcome = rig.send(user, canary_password(), 0, domain="flat.example", sid=None, changed_at=ahead)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.MALFORMED)


def test_an_old_change_sent_again_under_a_new_id_and_signature_writes_nothing(rig: Rig) -> None:
    user, newest, guid = rig.user(), canary_password(), uuid4()
    rig.send(user, canary_password(), 1, guid=guid)
    rig.send(user, newest, 2, guid=guid)
    for kvno in (1, 2):
        assert rig.send(user, canary_password(), kvno, guid=guid, changed_at=1).verdict is Verdict.SUPERSEDED
    assert rig.directory.binds(user, newest)


def test_one_event_id_for_two_changes_hides_neither(rig: Rig) -> None:
    one, other, same = rig.user(), rig.user(), new_event_id()
    first, second, third = canary_password(), canary_password(), canary_password()
    assert rig.send(one, first, 1, event_id=same).verdict is Verdict.APPLIED
    assert rig.send(other, second, 1, event_id=same).verdict is Verdict.APPLIED
    assert rig.send(one, third, 2, event_id=same).verdict is Verdict.APPLIED
    assert rig.directory.binds(one, third)
    assert rig.directory.binds(other, second)


@pytest.mark.parametrize("milliseconds", [0, 1, 2**48 - 1])
def test_an_event_id_of_any_time_can_be_decided_and_recorded(rig: Rig, milliseconds: int) -> None:
    event_id = UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | 5)
    raw = rig.envelope(rig.user(), canary_password(), 1, event_id=event_id)
    outcome = rig.deliver(raw)
    assert outcome.verdict is Verdict.APPLIED
    delivery = Delivery(raw, Counters(), datetime.now(UTC))
    for message in JOURNAL.messages(dispose(outcome, Counters(), horizon=timedelta(days=1)), delivery):
        assert decode(message.body).event_id == event_id


# --- what others sealed and signed


def test_it_cannot_send_another_producers_sealed_event_as_its_own(rig: Rig) -> None:
    thief = rig.enrolment.enrol("dc-thief")
    rig.keyring.refresh()
    user, before = rig.user(), canary_password()
    rig.send(user, before, 1)
    stolen = Envelope.parse(rig.envelope(user, canary_password(), 9))
    own = seal_event(
        change(user, "x", guid=uuid4(), kvno=9, changed_at=1, domain=DOMAIN),
        producer=thief.name,
        recipient=thief.recipient,
    )
    now = datetime.now(UTC)
    signed_over = thief.signer.sign(SealedEvent(stolen.protected, stolen.sealed), signed_at=now)
    rewrapped = thief.signer.sign(SealedEvent(own.protected, stolen.sealed), signed_at=now)
    both = thief.signer.sign(SealedEvent(own.protected, (*own.sealed, *stolen.sealed)), signed_at=now)
    assert rig.deliver(signed_over).reason is Reason.BAD_SIGNATURE
    # It is enrolled for no domain at all here, so even its own events end before they are opened.
    for raw in (rewrapped, both):
        assert rig.deliver(raw).reason is Reason.FOREIGN_DOMAIN
    # And one that is enrolled for the same domain cannot make its header fit what another one sealed.
    mine = seal_event(change(user, "x", guid=uuid4(), kvno=9, changed_at=1), producer="dc1", recipient=thief.recipient)
    for parts in (stolen.sealed, (*mine.sealed, *stolen.sealed)):
        outcome = rig.deliver(rig.sender.signer.sign(SealedEvent(mine.protected, parts), signed_at=now))
        assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.MALFORMED)
    assert rig.directory.binds(user, before)


# --- how much


@pytest.mark.parametrize("bytes_more", [1, 10_000_000])
def test_too_large_is_refused_before_it_is_parsed_and_its_record_is_small(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, bytes_more: int
) -> None:
    raw = rig.envelope(rig.user(), canary_password(), 1)
    raw += b" " * (limits.MAX_ENVELOPE_BYTES - len(raw) + bytes_more)
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    outcome = rig.deliver(raw)
    monkeypatch.undo()
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.TOO_LARGE)
    delivery = Delivery(raw, Counters(), datetime.now(UTC))
    for message in JOURNAL.messages(Final(outcome), delivery):
        assert len(message.body) < limits.MAX_RECORD_BYTES


def test_it_can_stop_the_consumers_with_twenty_letters_of_one_reason_and_a_stranger_cannot(rig: Rig) -> None:
    def pulled(outcomes: list[Outcome]) -> bool:
        brake = Brake(20)
        return [brake.pulled_by(outcome) for outcome in outcomes][-1]

    bad = [rig.send("x", canary_password(), 1, guid=uuid4(), sid="S-1-5-21-9-9-9-1") for _ in range(20)]
    assert pulled(bad)
    tampered = [rig.deliver(rig.envelope("x", "y", 1).replace(b'"signature":"', b'"signature":"AA')) for _ in range(20)]
    assert not pulled(tampered)
    # Once its key is revoked and the consumers are started again, the others' events flow.
    gone = rig.enrolment.enrol("dc-gone")
    revoked = gone.signer.document.with_status(KeyStatus.REVOKED)
    keys.write_public(rig.enrolment.consumer_keys, revoked)
    rig.keyring.refresh()
    raws = [gone.envelope(change("x", "y", guid=uuid4(), kvno=1, changed_at=1)) for _ in range(20)]
    outcomes = [rig.deliver(raw) for raw in raws]
    assert {outcome.reason for outcome in outcomes} == {Reason.REVOKED}
    assert not pulled(outcomes)


def test_b64_and_json_have_one_spelling_so_that_a_copy_is_the_same_event(rig: Rig) -> None:
    raw = rig.envelope(rig.user(), canary_password(), 1)
    document = json.loads(raw)
    for name in ("protected", "signed", "signature"):
        padded = json.dumps({**document, name: document[name] + "="}).encode()
        assert rig.deliver(padded).reason is Reason.MALFORMED
    doubled = raw.replace(b'"signed":', b'"signed":' + json.dumps(b64url(b"{}")).encode() + b',"signed":')
    assert rig.deliver(doubled).reason is Reason.MALFORMED
