"""How an AD user and his entry stand: every state, and the consumer's own order as the rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from passrelay_consumer.decide import OWN_WRITE, Entry, own_write
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.comparison import of_the_moment
from passrelay_ops.audit.state import Cause, Finding, Rules, Sight, State, judge
from passrelay_schemas.event import Account
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import UNITS_PER_SECOND, from_datetime, rfc3339
from passrelay_schemas.marker import FLOOR, Marker
from passrelay_schemas.order import OrderKey
from tests.unit.builders import DOMAIN_SID, GUID

CHANGED = datetime(2026, 11, 24, 12, tzinfo=UTC)
WRITTEN = CHANGED + timedelta(seconds=2)
ONE, OTHER = UUID(int=1 << 120), UUID(int=2 << 120)
RULES = Rules(epoch=0, protected_groups=("admins",))
DN = "uid=alice,cn=users,cn=accounts,dc=idm,dc=test"


def user(kvno: int = 7, *, changed: datetime | None = CHANGED, origin: UUID | None = ONE, **more: Any) -> AdAccount:
    account = Account(guid=GUID, sid=f"{DOMAIN_SID}-1105", sam_account_name="alice")
    return AdAccount(account, kvno, 0 if changed is None else from_datetime(changed), origin, **more)


def marker(kvno: int = 7, *, changed: datetime = CHANGED, origin: UUID | None = ONE, **more: Any) -> Marker:
    key = OrderKey.of(epoch=0, kvno=kvno, changed_at=from_datetime(changed), event_id=new_event_id(), origin=origin)
    fields: dict[str, Any] = {"epoch": 0, "guid": GUID, "applied_at": rfc3339(WRITTEN), **more}
    return Marker(kvno=kvno, changed_at=key.changed_at, event_id=new_event_id(), **fields)


def entry(found: Marker | None = None, **more: Any) -> Entry:
    return Entry(DN, found, found, **more)


def state(account: AdAccount, *entries: Entry, rules: Rules = RULES, **more: Any) -> tuple[State, Cause]:
    found = judge(account, [Sight("idm1", entries, **more)], rules)
    return found.state, found.cause


def test_the_same_version_is_in_sync_whatever_the_must_change_flag_says() -> None:
    assert state(user(), entry(marker())) == (State.IN_SYNC, Cause.NONE)
    assert state(user(), entry(marker(flags=frozenset("x")))) == (State.IN_SYNC, Cause.NONE)


def test_a_lower_version_is_behind_and_a_higher_one_is_for_a_person() -> None:
    assert state(user(8), entry(marker(7))) == (State.BEHIND, Cause.NONE)
    assert state(user(6), entry(marker(7))) == (State.UNEXPLAINED, Cause.AHEAD)


def test_of_two_passwords_with_one_version_the_one_that_ad_kept_must_be_here() -> None:
    later = CHANGED + timedelta(seconds=1)
    assert state(user(changed=later), entry(marker())) == (State.BEHIND, Cause.NONE)
    assert state(user(origin=OTHER), entry(marker())) == (State.BEHIND, Cause.NONE)
    assert state(user(), entry(marker(origin=OTHER))) == (State.UNEXPLAINED, Cause.SAME_VERSION)
    # Of two changes within a second on Windows the later has a made-up time: no restore, and no new epoch.
    made_up = marker(changed=CHANGED + timedelta(seconds=2), origin=None)
    assert state(user(), entry(made_up)) == (State.UNEXPLAINED, Cause.SAME_VERSION)
    # Where AD's metadata cannot be read nobody knows, and the version alone counts: pwdLastSet moves without a change.
    assert state(user(changed=later, origin=None), entry(marker())) == (State.IN_SYNC, Cause.NONE)


def test_parts_of_a_second_do_not_count_since_ad_does_not_keep_them() -> None:
    found = marker(changed=CHANGED + timedelta(milliseconds=300))
    assert state(user(changed=CHANGED + timedelta(milliseconds=900)), entry(found)) == (State.IN_SYNC, Cause.NONE)
    assert from_datetime(CHANGED) % UNITS_PER_SECOND == 0


def test_epochs_come_before_versions() -> None:
    restored = Rules(epoch=1)
    assert state(user(3), entry(marker(7)), rules=restored) == (State.BEHIND, Cause.NONE)
    assert state(user(9), entry(marker(7, epoch=2)), rules=restored) == (State.UNEXPLAINED, Cause.EPOCH)


def test_an_entry_without_a_marker_was_never_synced() -> None:
    assert state(user(), entry()) == (State.NEVER_SYNCED, Cause.NONE)
    younger = entry(last_change=CHANGED + timedelta(hours=1))
    assert state(user(), younger) == (State.NEVER_SYNCED, Cause.IDM_NEWER)
    assert state(user(), younger, rules=Rules(0, idm_newer_wins=False)) == (State.NEVER_SYNCED, Cause.NONE)


def test_a_password_set_in_idm_is_told_from_our_own_write() -> None:
    ours = entry(marker(), last_change=WRITTEN.replace(microsecond=0) + timedelta(seconds=3))
    theirs = entry(marker(), last_change=WRITTEN + timedelta(seconds=30))
    assert state(user(), ours) == (State.IN_SYNC, Cause.NONE)
    assert state(user(), theirs) == (State.CHANGED_IN_IDM, Cause.NONE)
    # AD has a newer version. If it is younger too, it will win when it comes; else a person has to say.
    assert state(user(8, changed=WRITTEN + timedelta(minutes=1)), theirs) == (State.BEHIND, Cause.NONE)
    assert state(user(8, changed=WRITTEN + timedelta(seconds=9)), theirs) == (State.BEHIND, Cause.IDM_NEWER)


def test_a_slow_server_may_take_as_long_as_we_wait_for_it() -> None:
    slow = entry(marker(), last_change=WRITTEN + timedelta(seconds=20))
    assert state(user(), slow, rules=Rules(0, own_write=own_write(20))) == (State.IN_SYNC, Cause.NONE)
    assert state(user(), slow, rules=Rules(0, own_write=own_write(5))) == (State.CHANGED_IN_IDM, Cause.NONE)
    assert own_write(1) == OWN_WRITE


def test_a_change_that_idm_refused_looks_like_one_that_it_took_and_the_words_say_so() -> None:
    tried = entry(marker(), last_change=WRITTEN + timedelta(minutes=1))
    for account in (user(), user(8, changed=WRITTEN)):
        assert "set (or tried to be set)" in judge(account, [Sight("idm1", (tried,))], RULES).detail


def test_who_is_missing_and_who_is_found_twice() -> None:
    assert state(user()) == (State.NOT_IN_IDM, Cause.NONE)
    assert state(user(), entry(marker()), entry()) == (State.UNEXPLAINED, Cause.AMBIGUOUS)
    assert state(user(), fault="no marker") == (State.UNEXPLAINED, Cause.UNREADABLE)


def test_an_entry_of_another_account_is_nobodys_success() -> None:
    stranger = marker(guid=UUID(int=5))
    assert state(user(), entry(stranger)) == (State.UNEXPLAINED, Cause.IDENTITY)


def test_who_is_never_carried_is_left_out_on_either_side() -> None:
    assert state(user(left_out="machine or trust account")) == (State.EXCLUDED, Cause.NONE)
    admin = entry(groups=frozenset({"cn=admins,cn=groups,cn=accounts,dc=idm,dc=test"}))
    assert state(user(), admin) == (State.EXCLUDED, Cause.NONE)


def test_a_floor_lets_a_version_in_or_shuts_it_out() -> None:
    opened = marker(6, flags=frozenset({FLOOR}))
    shut = marker(7, flags=frozenset({FLOOR}))
    rebound = Marker(0, 0, 0, GUID, new_event_id(), rfc3339(WRITTEN), frozenset({FLOOR}))
    assert state(user(), entry(opened)) == (State.BEHIND, Cause.NONE)
    assert state(user(), entry(shut)) == (State.EXCLUDED, Cause.NONE)
    assert state(user(), entry(rebound)) == (State.BEHIND, Cause.NONE)


def test_a_marker_beside_the_password_of_another_change_is_behind() -> None:
    assert state(user(), Entry(DN, marker(), marker(6))) == (State.BEHIND, Cause.NONE)


def test_a_preserved_user_that_came_back_has_no_password() -> None:
    bare = entry(marker(), principal=True)
    assert state(user(), bare) == (State.IN_SYNC, Cause.NONE)  # a server that keeps no times says nothing by that
    assert state(user(), bare, times_kept=True) == (State.BEHIND, Cause.NONE)


def test_without_any_version_of_ad_nothing_is_proven() -> None:
    assert state(user(0), entry(marker())) == (State.UNEXPLAINED, Cause.NO_VERSION)


def test_an_order_by_time_cannot_be_compared() -> None:
    assert state(user(), entry(marker(0, origin=None))) == (State.UNEXPLAINED, Cause.ORDER)


def on_servers(*found: Entry | None) -> Finding:
    sights = [Sight(f"idm{place}", () if one is None else (one,)) for place, one in enumerate(found, 1)]
    return judge(user(), sights, RULES)


@pytest.mark.parametrize("behind", [entry(marker(6)), None])
def test_the_worst_of_several_servers_counts_and_is_named(behind: Entry | None) -> None:
    found = on_servers(entry(marker()), behind, entry(marker()))
    assert (found.state, found.cause, found.server) == (State.BEHIND, Cause.ONE_SERVER, "idm2")
    assert "idm2" in found.detail


def test_a_loss_on_every_server_is_no_matter_of_replication() -> None:
    found = on_servers(entry(marker(6)), entry(marker(5)))
    assert (found.state, found.cause) == (State.BEHIND, Cause.NONE)
    assert on_servers(None, None).state is State.NOT_IN_IDM


def test_only_what_may_have_been_on_its_way_is_looked_at_again() -> None:
    again = {found for found in State if of_the_moment(Finding(found))}
    assert again == {State.BEHIND, State.NEVER_SYNCED}
    assert of_the_moment(Finding(State.UNEXPLAINED, cause=Cause.AHEAD))
    assert of_the_moment(Finding(State.UNEXPLAINED, cause=Cause.SAME_VERSION))
