"""What to do with an event at an entry: a pure decision from the marker (docs/adr/0003-order.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from passrelay_schemas.event import Kind, PasswordChanged
from passrelay_schemas.filetime import UNITS_PER_SECOND, from_datetime, to_datetime
from passrelay_schemas.marker import FLOOR, MUST_CHANGE_DONE, Marker
from passrelay_schemas.order import OrderKey
from passrelay_schemas.verdict import Reason, Verdict

NEWER = "newer"
"""Superseded: the entry already has a newer AD password."""
IDM_NEWER = "idm_newer"
"""Superseded: the entry has no marker and its IdM password is younger than the AD change."""
VERSION_BACK = "version_back"
"""Superseded by version, yet later by its time: a controller's clock was ahead, or AD was restored."""
AHEAD = "ahead"
"""Superseded in a domain without versions, by a change whose time lies beyond its own write: a clock was ahead."""
OUTDATED = frozenset({NEWER, VERSION_BACK, AHEAD})
"""Superseded by a newer event of AD."""
NOT_CARRIED = "not_carried"
"""Superseded: a must-change tick where carry_must_change is off, or the entry has no Kerberos attributes."""

OWN_WRITE = timedelta(seconds=10)
"""krbLastPwdChange and applied_at are of one server's clock: further apart they are of two writes (docs/adr/0010)."""
_TO_THE_SECOND = timedelta(seconds=2)
"""Both are known to the second only."""
_CLOCKS_APART = timedelta(minutes=5)
"""Kerberos' own tolerance (RFC 4120 7.5.1): times further apart are of a clock that is off."""


@dataclass(frozen=True)
class Entry:
    """What was read of the one IdM entry."""

    dn: str
    marker: Marker | None = None
    proof: Marker | None = None
    """The marker as the password's own write left it. IdM's servers merge attribute by attribute, and the must-change
    step writes the marker alone, so that a marker can end beside another write's password."""
    object_classes: frozenset[str] = frozenset()
    created_at: datetime | None = None
    last_change: datetime | None = None
    expiration: datetime | None = None
    principal: bool = False
    """It has a krbPrincipalName: IPA's plugin keeps times for these only."""
    groups: frozenset[str] = frozenset()
    """DNs of memberOf, lower case; IdM keeps indirect memberships there too."""

    @property
    def known(self) -> Marker | None:
        """What is compared with: the newer of marker and proof. A floor stands for itself."""
        if self.marker is None or self._stands_alone:
            return self.marker
        return max(self.marker, self.proof or self.marker, key=lambda found: found.key)

    @property
    def torn(self) -> bool:
        """Marker and password are of two changes. Two writes of one change, which has one password, are whole."""
        if self.marker is None or self.proof is None or self._stands_alone:
            return False
        return self.marker.key != self.proof.key

    @property
    def _stands_alone(self) -> bool:
        return self.marker is not None and (
            FLOOR in self.marker.flags or self.proof is None or self.proof.guid != self.marker.guid
        )

    @property
    def kerberos(self) -> bool:
        """It may have krb attributes."""
        return "krbprincipalaux" in self.object_classes

    @property
    def password_removed(self) -> bool:
        """There is no password, where IPA keeps times.

        `ipa user-del --preserve` removes userPassword, the keys and both times; the marker stays.
        """
        return self.principal and self.last_change is None

    @property
    def life(self) -> timedelta | None:
        """How long the password lasts from when it was set; None when it never expires, or was expired at once."""
        if self.expiration is None or self.last_change is None or self.expired_at_once:
            return None
        return self.expiration - self.last_change

    @property
    def expired_at_once(self) -> bool:
        """IPA expired the password in the moment it was set: the writer was not in passSyncManagersDNs."""
        if self.expiration is None or self.last_change is None:
            return False
        return self.expiration <= self.last_change


@dataclass(frozen=True)
class Write:
    """Set the password, replacing exactly what was read of marker and proof."""


@dataclass(frozen=True)
class Finish:
    """The password is there; the must-change step is not: do it, replacing exactly the marker that was read."""

    old: Marker
    verdict: Verdict


@dataclass(frozen=True)
class Settled:
    """Nothing to do."""

    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True)
class Refuse:
    """Not at this entry, not now or not ever: the reason's class tells which."""

    reason: Reason
    diagnostic: str


Decision = Write | Finish | Settled | Refuse


def own_write(timeout_seconds: float) -> timedelta:
    """How far a password's time and our write of it may lie apart: as long as a consumer waits for the server's answer.

    `timeout_seconds` is [idm] timeout_seconds.
    """
    return max(OWN_WRITE, timedelta(seconds=timeout_seconds) + _TO_THE_SECOND)


def decide(
    event: PasswordChanged,
    *,
    key: OrderKey,
    event_id: UUID,
    entry: Entry,
    epoch: int,
    carry_must_change: bool,
    idm_newer_wins: bool,
    times_kept: bool = False,
    ours_within: timedelta = OWN_WRITE,
) -> Decision:
    """Compare the event with the entry's marker.

    `key` is the event's place in its domain's order, `epoch` the domain's newest; `times_kept` says that the server
    has IPA's password plugin, which sets krbLastPwdChange with each password; `ours_within` is own_write's answer.
    """
    marker, known = entry.marker, entry.known
    carries = carry_must_change and entry.kerberos
    if event.kind is Kind.EXPIRE and not carries:
        return Settled(Verdict.SUPERSEDED, NOT_CARRIED)
    if marker is None or known is None:
        return _first(event, entry, idm_newer_wins=idm_newer_wins)
    odd = _not_comparable(event, key, marker, epoch)
    if odd is not None:
        return odd
    if FLOOR in marker.flags and key.place <= marker.key.place:
        return Settled(Verdict.SUPERSEDED, NEWER)
    if event.kind is Kind.EXPIRE:
        return _expire(key, entry, marker, known)
    if key < known.key:
        return Settled(Verdict.SUPERSEDED, _outdated_because(key, known))
    if key > known.key or entry.torn or (times_kept and entry.password_removed):
        return Write()
    if event.must_change and carries and MUST_CHANGE_DONE not in marker.flags:
        return Finish(marker, Verdict.DUPLICATE)
    if marker.event_id == event_id and _expired_by_our_write(entry, marker, ours_within):
        # A server that does not list us took the write and expired the user: write again, on a better one.
        return Write()
    return Settled(Verdict.DUPLICATE)


def _not_comparable(event: PasswordChanged, key: OrderKey, marker: Marker, epoch: int) -> Refuse | None:
    """Another account's marker, or one that a setting would make supersede everything, in silence and for ever."""
    if marker.guid != event.account.guid:
        return Refuse(
            Reason.IDENTITY, f"the entry's marker belongs to AD account {marker.guid}, not {event.account.guid}"
        )
    if marker.epoch > epoch:
        return Refuse(
            Reason.REFUSED,
            f"the entry's marker has epoch {marker.epoch}, this consumer's [[domain]] epoch is {epoch}: set the same "
            "epoch on every consumer",
        )
    if marker.epoch == key.epoch and marker.key.order is not key.order and FLOOR not in marker.flags:
        return Refuse(
            Reason.REFUSED,
            f"the entry's marker is ordered by {marker.key.order}, this event by {key.order}, and orders never mix: "
            "set back the [[domain]] order, or begin a new epoch",
        )
    return None


def _outdated_because(key: OrderKey, known: Marker) -> str:
    apart = int(_CLOCKS_APART.total_seconds()) * UNITS_PER_SECOND
    if key.epoch != known.epoch:
        return NEWER
    if key.kvno < known.kvno:
        return VERSION_BACK if key.changed_at > known.changed_at + apart else NEWER
    if known.kvno:
        return NEWER
    written_at = from_datetime(datetime.fromisoformat(known.applied_at))
    return AHEAD if known.changed_at > written_at + apart else NEWER


def _expired_by_our_write(entry: Entry, marker: Marker, ours_within: timedelta) -> bool:
    # An administrator's reset in IdM expires a password too; that one is his and stays.
    if not entry.expired_at_once or entry.last_change is None or MUST_CHANGE_DONE in marker.flags:
        return False
    return abs(entry.last_change - datetime.fromisoformat(marker.applied_at)) <= ours_within


def _first(event: PasswordChanged, entry: Entry, *, idm_newer_wins: bool) -> Decision:
    if idm_newer_wins and entry.last_change is not None and to_datetime(event.changed_at) < entry.last_change:
        return Settled(Verdict.SUPERSEDED, IDM_NEWER)
    if event.kind is Kind.EXPIRE:
        return _early()
    return Write()


def _expire(key: OrderKey, entry: Entry, marker: Marker, known: Marker) -> Decision:
    # The tick belongs to one password: the one with its own kvno.
    if (key.epoch, key.kvno) < (known.epoch, known.kvno):
        return Settled(Verdict.SUPERSEDED, NEWER)
    if (key.epoch, key.kvno) > (known.epoch, known.kvno) or entry.torn:
        return _early()
    if MUST_CHANGE_DONE in marker.flags:
        return Settled(Verdict.DUPLICATE)
    return Finish(marker, Verdict.APPLIED)


def _early() -> Refuse:
    return Refuse(Reason.EARLY, "the password that must be changed at next logon has not arrived yet")
