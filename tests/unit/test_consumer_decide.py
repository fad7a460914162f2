"""What a marker allows: each case that would shut an account out in silence, or let a stranger in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from passrelay_consumer.decide import Decision, Entry, Finish, Refuse, Settled, Write, decide, own_write
from passrelay_schemas.event import Kind
from passrelay_schemas.filetime import UNITS_PER_SECOND, from_datetime
from passrelay_schemas.marker import FLOOR, MUST_CHANGE_DONE, Marker
from passrelay_schemas.order import OrderKey, rank
from passrelay_schemas.verdict import Reason, Verdict
from tests.unit.builders import CHANGED_AT, EVENT_ID, GUID, event

OTHER = UUID("01940000-0000-7000-8000-00000000ffff")
AT = "2026-11-24T22:42:33.120Z"
MARKER = Marker(0, 7, CHANGED_AT, GUID, EVENT_ID, AT)
SUPERSEDED = Settled(Verdict.SUPERSEDED, "newer")
DUPLICATE = Settled(Verdict.DUPLICATE)


def decided(
    marker: Marker | None, *, event_id: UUID = OTHER, key_epoch: int = 0, epoch: int | None = None, **changes: Any
) -> Decision:
    known = {name: changes.pop(name) for name in ("last_change", "expiration", "proof") if name in changes}
    rules = {name: changes.pop(name) for name in ("times_kept", "ours_within") if name in changes}
    principal = changes.pop("principal", True)
    change = event(None if changes.get("kind") is Kind.EXPIRE else "Kanarie7-x", **changes)
    entry = Entry("uid=alice", marker, object_classes=frozenset({"krbprincipalaux"}), principal=principal, **known)
    return decide(
        change,
        key=OrderKey.of(
            epoch=key_epoch,
            kvno=change.kvno,
            changed_at=change.changed_at,
            event_id=event_id,
            origin=change.origin,
        ),
        event_id=event_id,
        entry=entry,
        epoch=key_epoch if epoch is None else epoch,
        carry_must_change=True,
        idm_newer_wins=True,
        **rules,
    )


@pytest.mark.parametrize(
    ("kvno", "decision"), [(6, SUPERSEDED), (7, DUPLICATE), (8, Write())], ids=["older", "same", "newer"]
)
def test_the_version_decides(kvno: int, decision: Decision) -> None:
    assert decided(MARKER, kvno=kvno) == decision


def test_a_lower_version_with_a_later_time_is_told_apart() -> None:
    hour = 3600 * UNITS_PER_SECOND
    assert decided(MARKER, kvno=6, changed_at=CHANGED_AT + hour) == Settled(Verdict.SUPERSEDED, "version_back")
    assert decided(MARKER, kvno=6, changed_at=CHANGED_AT + hour // 60) == SUPERSEDED
    assert decided(MARKER, kvno=7, changed_at=CHANGED_AT - hour) == SUPERSEDED
    assert decided(replace(MARKER, epoch=1), epoch=1, kvno=6, changed_at=CHANGED_AT + hour) == SUPERSEDED


def test_what_a_change_from_the_future_shuts_out_is_told_apart() -> None:
    written = from_datetime(datetime.fromisoformat(AT))
    hour = 3600 * UNITS_PER_SECOND
    future = Marker(0, 0, written + hour, GUID, EVENT_ID, AT)
    assert decided(future, kvno=0, changed_at=written) == Settled(Verdict.SUPERSEDED, "ahead")
    assert decided(replace(future, changed_at=written + hour // 60), kvno=0, changed_at=written) == SUPERSEDED
    assert decided(replace(future, kvno=7), kvno=7, changed_at=written) == SUPERSEDED


@pytest.mark.parametrize("kvno", [1, 7, 99])
def test_another_accounts_marker_is_never_written(kvno: int) -> None:
    decision = decided(replace(MARKER, guid=OTHER), kvno=kvno)
    assert isinstance(decision, Refuse)
    assert decision.reason is Reason.IDENTITY


# -- a floor that an operator has set ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "decision"),
    [
        ({"kvno": 6}, SUPERSEDED),
        ({"kvno": 7}, SUPERSEDED),  # nobody has written this version: a duplicate would say that somebody has
        ({"kvno": 7, "must_change": True}, SUPERSEDED),
        ({"kvno": 7, "must_change": True, "kind": Kind.EXPIRE}, SUPERSEDED),
    ],
)
def test_a_floor_lets_only_newer_changes_pass(changes: dict[str, Any], decision: Decision) -> None:
    floor = MARKER.with_flag(FLOOR)
    assert decided(floor, **changes) == decision
    assert decided(floor, kvno=8) == Write()


def test_after_a_rebind_every_version_of_the_new_account_passes() -> None:
    floor = Marker(0, 0, 0, GUID, OTHER, AT, frozenset({FLOOR}))
    assert decided(floor, kvno=1, event_id=EVENT_ID) == Write()


def test_a_floor_in_a_timed_domain_stops_its_own_time_whatever_the_ids() -> None:
    for event_id, written_by in ((EVENT_ID, OTHER), (OTHER, EVENT_ID)):
        floor = Marker(0, 0, CHANGED_AT, GUID, written_by, AT, frozenset({FLOOR}))
        assert decided(floor, kvno=0, event_id=event_id) == SUPERSEDED
        assert decided(floor, kvno=0, changed_at=CHANGED_AT + 1, event_id=event_id) == Write()


# -- a restored AD domain ---------------------------------------------------------------------------------------------


def test_a_new_epoch_wins_with_a_lower_version() -> None:
    assert decided(MARKER, key_epoch=1, kvno=2) == Write()


def test_what_was_captured_before_the_restore_is_superseded_by_what_came_after() -> None:
    assert decided(replace(MARKER, epoch=1, kvno=2), key_epoch=0, epoch=1, kvno=9) == SUPERSEDED


def test_a_consumer_with_an_old_epoch_loses_nothing() -> None:
    decision = decided(replace(MARKER, epoch=1, kvno=2), key_epoch=0, epoch=0, kvno=9)
    assert isinstance(decision, Refuse)
    assert decision.reason is Reason.REFUSED
    assert "epoch 1" in decision.diagnostic


# -- two kinds of order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("marker_kvno", "kvno"), [(7, 0), (0, 7)])
def test_orders_never_mix_in_silence(marker_kvno: int, kvno: int) -> None:
    decision = decided(replace(MARKER, kvno=marker_kvno), kvno=kvno)
    assert isinstance(decision, Refuse)
    assert decision.reason is Reason.REFUSED


def test_of_two_changes_with_one_time_the_later_captured_wins() -> None:
    timed = replace(MARKER, kvno=0)
    assert decided(timed, kvno=0, event_id=OTHER) == Write()
    assert decided(replace(timed, event_id=OTHER), kvno=0, event_id=EVENT_ID) == SUPERSEDED
    assert decided(timed, kvno=0, event_id=EVENT_ID) == DUPLICATE


# -- a password that went away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", [MARKER, MARKER.with_flag(MUST_CHANGE_DONE)])
@pytest.mark.parametrize("event_id", [EVENT_ID, OTHER])
def test_a_preserved_and_undeleted_user_gets_the_password_back(marker: Marker, event_id: UUID) -> None:
    assert decided(marker, event_id=event_id, must_change=True, times_kept=True) == Write()
    known = datetime(2026, 11, 24, tzinfo=UTC)
    assert decided(MARKER, event_id=event_id, times_kept=True, last_change=known) == DUPLICATE
    # A server without IPA's plugin keeps no times, and the plugin none without a principal, which says nothing.
    assert decided(MARKER, event_id=event_id, times_kept=True, principal=False) == DUPLICATE
    assert decided(MARKER, event_id=event_id) == DUPLICATE


@pytest.mark.parametrize(("seconds", "decision"), [(2, Write()), (60, DUPLICATE)], ids=["ours", "an administrator's"])
def test_only_what_expired_with_our_own_write_is_written_again(seconds: int, decision: Decision) -> None:
    moment = datetime.fromisoformat(AT) + timedelta(seconds=seconds)
    expired: dict[str, Any] = {"last_change": moment, "expiration": moment - timedelta(seconds=1)}
    assert decided(MARKER, event_id=EVENT_ID, **expired) == decision
    assert decided(MARKER, event_id=OTHER, **expired) == DUPLICATE


def test_a_write_that_a_slow_server_answered_late_is_our_own() -> None:
    moment = datetime.fromisoformat(AT) + timedelta(seconds=20)
    expired: dict[str, Any] = {"last_change": moment, "expiration": moment - timedelta(seconds=1)}
    assert decided(MARKER, event_id=EVENT_ID, ours_within=own_write(20), **expired) == Write()
    assert decided(MARKER, event_id=EVENT_ID, ours_within=own_write(5), **expired) == DUPLICATE


def test_must_change_is_finished_once() -> None:
    assert decided(MARKER, must_change=True) == Finish(MARKER, Verdict.DUPLICATE)
    assert decided(MARKER.with_flag(MUST_CHANGE_DONE), must_change=True) == DUPLICATE
    tick: dict[str, Any] = {"must_change": True, "kind": Kind.EXPIRE}
    assert decided(MARKER, **tick) == Finish(MARKER, Verdict.APPLIED)
    assert decided(MARKER, kvno=6, **tick) == SUPERSEDED
    early = decided(MARKER, kvno=8, **tick)
    assert isinstance(early, Refuse)
    assert early.reason is Reason.EARLY


def test_seconds_of_one_version_decide_then_the_origin_and_nothing_finer() -> None:
    low, high = UUID("11111111-0000-4000-8000-000000000000"), UUID("22222222-0000-4000-8000-000000000000")
    start = CHANGED_AT - CHANGED_AT % UNITS_PER_SECOND
    marker = replace(MARKER, changed_at=start + rank(low))
    assert decided(marker, changed_at=start + UNITS_PER_SECOND, origin=low) == Write()
    assert decided(marker, changed_at=start + UNITS_PER_SECOND - 1, origin=low) == DUPLICATE
    assert decided(marker, changed_at=start, origin=high) == Write()
    assert decided(replace(marker, changed_at=start + rank(high)), changed_at=start + 5, origin=low) == SUPERSEDED
    assert decided(marker, changed_at=start - 1, origin=high) == SUPERSEDED


# -- a marker beside another write's password -------------------------------------------------------------------------

OLDER = replace(MARKER, kvno=5, event_id=OTHER)
DONE = MARKER.with_flag(MUST_CHANGE_DONE)


def test_what_replication_tore_apart_is_written_again_by_its_own_event() -> None:
    # The must-change step of version 7 won over version 5, but the password of 5 won over that of 7.
    assert decided(DONE, proof=OLDER, event_id=EVENT_ID, must_change=True) == Write()
    assert decided(DONE, proof=OLDER, kvno=8) == Write()
    assert decided(DONE, proof=OLDER, kvno=5) == decided(DONE, proof=OLDER, kvno=6) == SUPERSEDED
    tick: dict[str, Any] = {"must_change": True, "kind": Kind.EXPIRE}
    waits = decided(DONE, proof=OLDER, **tick)
    assert isinstance(waits, Refuse)
    assert waits.reason is Reason.EARLY


def test_a_newer_password_beside_an_older_marker_is_not_overwritten_by_what_lies_between() -> None:
    newer = replace(MARKER, kvno=9, event_id=OTHER)
    assert decided(DONE, proof=newer, kvno=8) == decided(DONE, proof=newer, kvno=7, event_id=EVENT_ID) == SUPERSEDED
    assert decided(DONE, proof=newer, kvno=9) == decided(DONE, proof=newer, kvno=10) == Write()


def test_marker_and_proof_of_one_write_are_whole() -> None:
    for marker in (MARKER, DONE):
        assert decided(marker, proof=MARKER) == DUPLICATE
    assert decided(MARKER) == DUPLICATE  # written before there were proofs


def test_two_writes_of_one_change_are_whole() -> None:
    # Two consumers on two servers; to write again here could go on for ever (docs/order.md).
    again = replace(MARKER, event_id=OTHER, applied_at="2026-11-24T22:42:34.000Z")
    assert decided(DONE, proof=again, must_change=True) == DUPLICATE


def test_a_floor_counts_without_the_proof() -> None:
    rebound = Marker(0, 0, 0, GUID, EVENT_ID, AT, frozenset({FLOOR}))
    assert decided(rebound, proof=replace(MARKER, guid=OTHER, kvno=99), kvno=1) == Write()
    assert decided(MARKER.with_flag(FLOOR), proof=replace(MARKER, kvno=9), kvno=8) == Write()


def test_an_entry_without_kerberos_is_not_asked_to_expire_for_ever() -> None:
    change = event("Kanarie7-x", must_change=True)
    entry = Entry("uid=alice", MARKER, MARKER)
    key = OrderKey.of(epoch=0, kvno=7, changed_at=CHANGED_AT, event_id=EVENT_ID)
    decision = decide(
        change, key=key, event_id=EVENT_ID, entry=entry, epoch=0, carry_must_change=True, idm_newer_wins=True
    )
    assert decision == DUPLICATE
