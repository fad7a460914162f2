"""What an operator may write in a marker's place: decisions without a server."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from passrelay_consumer.decide import Entry, Refuse, Settled, Write, decide
from passrelay_ops.floors import check_allowed, floor_changes, lowered_or_raised, rebound
from passrelay_ops.markers import Whose
from passrelay_ops.user_status import in_words
from passrelay_schemas import filetime
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.enrolment import order_key
from passrelay_schemas.errors import ConfigurationError, SafetyError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.marker import FLOOR, Marker
from passrelay_schemas.order import Order
from tests.unit.builders import CHANGED_AT, DOMAIN, DOMAIN_SID, GUID, event

AD = DomainSettings(name=DOMAIN, sid=DOMAIN_SID, search_base="dc=test")
FLAT = DomainSettings(name="flat.example", order=Order.TIME, search_base="dc=test")
DN = "uid=alice,cn=users,cn=accounts,dc=test"
SECOND = filetime.UNITS_PER_SECOND


def marker(kvno: int = 7, changed_at: int = CHANGED_AT, epoch: int = 0, flags: str = "", guid: UUID = GUID) -> Marker:
    return Marker(epoch, kvno, changed_at, guid, new_event_id(), "2026-11-24T22:42:33.120Z", frozenset(flags))


def outcome(floor: Marker, domain: DomainSettings = AD, **changes: Any) -> str:
    """What a consumer would do with a change of alice at an entry with this floor."""
    change = event(domain=domain.name, **changes)
    event_id = new_event_id()
    decision = decide(
        change,
        key=order_key(change, domain, event_id),
        event_id=event_id,
        entry=Entry(DN, floor),
        epoch=domain.epoch,
        carry_must_change=True,
        idm_newer_wins=True,
    )
    match decision:
        case Write():
            return "written"
        case Settled(verdict):
            return verdict.value
        case Refuse(reason):
            return reason.value
        case _:
            return "finished"


# --- reset


def test_reset_lets_the_markers_own_change_come_once_more_and_nothing_older() -> None:
    floor = lowered_or_raised(marker(), AD)
    assert floor.flags == {FLOOR}
    assert (floor.guid, floor.epoch) == (GUID, 0)
    assert outcome(floor, kvno=7) == "written"
    assert outcome(floor, kvno=6, changed_at=CHANGED_AT + 3600 * SECOND) == "superseded"


def test_reset_below_the_first_version_lets_everything_pass() -> None:
    floor = lowered_or_raised(marker(kvno=1), AD)
    assert outcome(floor, kvno=1) == "written"
    assert "every change" in in_words(floor)


def test_reset_to_a_version_shuts_out_all_of_it() -> None:
    floor = lowered_or_raised(marker(), AD, kvno=9)
    assert outcome(floor, kvno=9, changed_at=CHANGED_AT + 3600 * SECOND) == "superseded"
    assert outcome(floor, kvno=10, changed_at=1) == "written"
    assert "after password version 9 pass" in in_words(floor)


def test_after_a_forged_version_a_reset_below_ads_lets_ads_own_pass() -> None:
    forged = marker(kvno=4_000_000_000, changed_at=CHANGED_AT + 3600 * SECOND)
    assert outcome(forged, kvno=7) == "superseded"
    with pytest.raises(SafetyError, match="already"):  # it is the account's own marker
        rebound(forged, GUID, AD)
    floor = lowered_or_raised(forged, AD, kvno=6)
    assert outcome(floor, kvno=7) == "written"
    assert outcome(floor, kvno=6) == "superseded"


def test_reset_to_a_version_and_a_time_of_it() -> None:
    floor = lowered_or_raised(marker(), AD, kvno=9, changed_at=CHANGED_AT)
    last_of_its_second = CHANGED_AT - CHANGED_AT % SECOND + SECOND - 1
    assert outcome(floor, kvno=9, changed_at=last_of_its_second) == "superseded"
    assert outcome(floor, kvno=9, changed_at=CHANGED_AT + SECOND) == "written"


def test_reset_in_a_time_ordered_domain() -> None:
    own = marker(kvno=0)
    flat: dict[str, Any] = {"domain": FLAT, "kvno": 0, "sid": None}
    again = lowered_or_raised(own, FLAT)
    assert outcome(again, **flat, changed_at=CHANGED_AT) == "written"
    assert outcome(again, **flat, changed_at=CHANGED_AT - 1) == "superseded"
    later = lowered_or_raised(own, FLAT, changed_at=CHANGED_AT + SECOND)
    assert outcome(later, **flat, changed_at=CHANGED_AT + SECOND) == "superseded"
    assert outcome(later, **flat, changed_at=CHANGED_AT + SECOND + 1) == "written"
    assert "only changes after 2025-11-24" in in_words(later)


def test_a_repeated_reset_does_not_sink_lower() -> None:
    floor = lowered_or_raised(marker(), AD)
    assert lowered_or_raised(floor, AD) is floor
    assert lowered_or_raised(floor, AD, kvno=3).kvno == 3


def test_each_floor_is_a_write_of_its_own() -> None:
    own = marker()
    assert lowered_or_raised(own, AD).event_id != lowered_or_raised(own, AD).event_id
    assert lowered_or_raised(own, AD).event_id != own.event_id


def test_reset_after_a_restore_of_the_domain() -> None:
    restored = AD.model_copy(update={"epoch": 1})
    # Without a version it stays below the marker that is there; with one it speaks of AD as it is now.
    assert outcome(lowered_or_raised(marker(kvno=7), restored), domain=restored, kvno=2) == "written"
    assert outcome(lowered_or_raised(marker(kvno=7), restored, kvno=2), domain=restored, kvno=2) == "superseded"
    with pytest.raises(ConfigurationError, match=r"epoch 1.*epoch is 0 here"):
        lowered_or_raised(marker(epoch=1), AD)


@pytest.mark.parametrize(
    ("old", "domain", "options", "complaint"),
    [
        (None, AD, {}, "no marker.*rebind"),
        (marker(), AD, {"changed_at": 1}, "give --kvno as well"),
        (marker(kvno=0), FLAT, {"kvno": 3}, "give --changed-at"),
        (marker(kvno=0), AD, {}, "ordered by time.*give --kvno"),
        (marker(kvno=3), FLAT, {}, "ordered by kvno.*give --changed-at"),
    ],
)
def test_what_reset_cannot_mean(
    old: Marker | None, domain: DomainSettings, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        lowered_or_raised(old, domain, **options)


def test_a_floor_in_the_future_would_shut_out_a_time_ordered_domain() -> None:
    with pytest.raises(SafetyError, match="future"):
        lowered_or_raised(marker(kvno=0), FLAT, changed_at=filetime.now() + 3600 * SECOND)


# --- rebind


def test_rebind_gives_the_entry_to_the_new_account_and_takes_it_from_the_old() -> None:
    new = uuid4()
    floor = rebound(marker(kvno=42), new, AD)
    assert outcome(floor, kvno=1, changed_at=SECOND, guid=new) == "written"
    assert outcome(floor, kvno=43) == "identity"


def test_rebind_in_a_restored_and_in_a_time_ordered_domain() -> None:
    restored = AD.model_copy(update={"epoch": 2})
    assert outcome(rebound(marker(guid=uuid4()), GUID, restored), domain=restored, kvno=1) == "written"
    flat: dict[str, Any] = {"domain": FLAT, "kvno": 0, "sid": None}
    assert outcome(rebound(marker(kvno=0, guid=uuid4()), GUID, FLAT), **flat, changed_at=1) == "written"


def test_rebind_of_an_entry_without_marker_lets_a_change_pass_that_is_older_than_idms() -> None:
    assert outcome(rebound(None, GUID, AD), kvno=1, changed_at=SECOND) == "written"


def test_rebind_to_the_same_account_would_let_older_passwords_pass() -> None:
    with pytest.raises(SafetyError, match=r"already.*marker reset"):
        rebound(marker(), GUID, AD)


def test_rebind_wants_a_real_guid_and_the_consumers_epoch() -> None:
    with pytest.raises(ConfigurationError, match="objectGUID"):
        rebound(marker(), UUID(int=0), AD)
    with pytest.raises(ConfigurationError, match="epoch 3"):
        rebound(marker(epoch=3, guid=uuid4()), GUID, AD)


# --- the entry


@pytest.mark.parametrize("user", ["krbtgt", "PC1$", "uid=krbtgt_77,cn=users,dc=test"])
def test_accounts_that_are_never_written_get_no_floor(user: str) -> None:
    with pytest.raises(SafetyError):
        check_allowed(Whose.parse(user), Entry(DN), ["admins"])


def test_members_of_protected_groups_get_no_floor() -> None:
    entry = Entry(DN, groups=frozenset({"cn=hr,cn=groups,cn=accounts,dc=test"}))
    with pytest.raises(SafetyError, match="member of hr"):
        check_allowed(Whose.parse("alice"), entry, ["admins", "hr"])
    check_allowed(Whose.parse("alice"), entry, ["admins"])


def test_a_floor_replaces_exactly_the_marker_that_was_read_and_no_password() -> None:
    old = marker()
    floor = lowered_or_raised(old, AD)
    changes = floor_changes(Entry(DN, old), floor, "passrelayMarker")
    assert list(changes) == ["passrelayMarker"]
    assert [values for _, values in changes["passrelayMarker"]] == [[str(old).encode()], [str(floor).encode()]]


@pytest.mark.parametrize(("attribute", "adds_class"), [("passrelayMarker", True), ("carLicense", False)])
def test_a_first_marker_brings_its_class(attribute: str, adds_class: bool) -> None:
    changes = floor_changes(Entry(DN), rebound(None, GUID, AD), attribute)
    assert ("objectClass" in changes) is adds_class


@pytest.mark.parametrize("user", ["uid=", "=x", "uid=a,,", "a=b=c,\\"])
def test_what_is_neither_a_name_nor_a_dn(user: str) -> None:
    with pytest.raises(ConfigurationError, match="not a DN"):
        Whose.parse(user)


def test_a_dn_keeps_its_name() -> None:
    assert Whose.parse("UID=bob, cn=users,dc=test").name == "bob"
    assert Whose.parse("bob@ad.example").account is not None
