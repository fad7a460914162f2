"""What an AD user and his IdM entry say together: a pure decision, with the consumer's own order and rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from passrelay_consumer.decide import OWN_WRITE, Entry
from passrelay_consumer.protection import protection
from passrelay_ops.audit.account import AdAccount
from passrelay_schemas.filetime import to_datetime
from passrelay_schemas.marker import FLOOR, Marker
from passrelay_schemas.order import Order


class State(StrEnum):
    """How a user stands."""

    IN_SYNC = "in_sync"
    BEHIND = "behind"
    NEVER_SYNCED = "never_synced"
    NOT_IN_IDM = "not_in_idm"
    EXCLUDED = "excluded"
    CHANGED_IN_IDM = "changed_in_idm"
    UNEXPLAINED = "unexplained"


WORDS = {
    State.IN_SYNC: "IdM has this password",
    State.BEHIND: "IdM has an older one",
    State.NEVER_SYNCED: "IdM never got one from AD",
    State.NOT_IN_IDM: "not in IdM",
    State.EXCLUDED: "never carried to IdM",
    State.CHANGED_IN_IDM: "IdM had this password, and another was set there since, or tried to be set",
    State.UNEXPLAINED: "not to be compared",
}
"""Each state, said of AD's newest password."""
_SET = "set (or tried to be set)"
"""IPA's plugin moves krbLastPwdChange also for a user's own change that it refuses ("Too soon to change password")."""
QUIET = frozenset({State.IN_SYNC, State.EXCLUDED})
"""Nothing to do: counted, and listed only when everything is."""
_WORST_LAST = (
    State.EXCLUDED,
    State.IN_SYNC,
    State.CHANGED_IN_IDM,
    State.NEVER_SYNCED,
    State.BEHIND,
    State.UNEXPLAINED,
)


class Cause(StrEnum):
    """Why a state is what it is, where that changes the repair."""

    NONE = ""
    IDM_NEWER = "idm_newer"
    IDENTITY = "identity"
    AMBIGUOUS = "ambiguous"
    UNREADABLE = "unreadable"
    EPOCH = "epoch"
    ORDER = "order"
    AHEAD = "ahead"
    SAME_VERSION = "same_version"
    NO_VERSION = "no_version"
    ONE_SERVER = "one_server"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one IdM server shows for one AD user: the entries that the consumer's search finds there."""

    server: str
    entries: tuple[Entry, ...] = ()
    fault: str = ""
    """Why an entry cannot be read (its marker is no marker)."""
    times_kept: bool = False
    """The server has IPA's password plugin, which keeps krbLastPwdChange."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One user's state; `detail` says why in words."""

    state: State
    detail: str = ""
    cause: Cause = Cause.NONE
    server: str | None = None
    marker: Marker | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a domain's settings say about its entries."""

    epoch: int
    protected_groups: Sequence[str] = ()
    idm_newer_wins: bool = True
    own_write: timedelta = OWN_WRITE
    """A password's time may lie so much after our write of it (the consumer's own rule)."""


def judge(user: AdAccount, sights: Sequence[Sight], rules: Rules) -> Finding:
    """The state of one user from what every IdM server shows; the worst server counts and is named."""
    if user.left_out is not None:
        return Finding(State.EXCLUDED, user.left_out)
    findings = [_on_one(user, sight, rules) for sight in sights]
    if all(found.state is State.NOT_IN_IDM for found in findings):
        return findings[0]
    for index, found in enumerate(findings):
        if found.state is State.NOT_IN_IDM:
            detail = f"{found.server} has no such entry, another server has"
            findings[index] = replace(found, state=State.BEHIND, detail=detail, cause=Cause.ONE_SERVER)
    worst = max(findings, key=lambda found: _WORST_LAST.index(found.state))
    if worst.state is State.BEHIND and any(found.state is State.IN_SYNC for found in findings):
        return replace(worst, cause=Cause.ONE_SERVER, detail=f"{worst.server} alone: {worst.detail}")
    return worst


def _on_one(user: AdAccount, sight: Sight, rules: Rules) -> Finding:
    if sight.fault:
        return Finding(State.UNEXPLAINED, sight.fault, Cause.UNREADABLE, sight.server)
    if not sight.entries:
        return Finding(State.NOT_IN_IDM, "no IdM entry matches", server=sight.server)
    if len(sight.entries) > 1:
        return Finding(State.UNEXPLAINED, "several IdM entries match", Cause.AMBIGUOUS, sight.server)
    entry = sight.entries[0]
    found = _at_entry(user, entry, sight, rules)
    return replace(found, server=sight.server, marker=entry.marker)


def _at_entry(user: AdAccount, entry: Entry, sight: Sight, rules: Rules) -> Finding:
    protected = protection(entry, rules.protected_groups)
    if protected is not None:
        return Finding(State.EXCLUDED, protected)
    marker, known = entry.marker, entry.known
    if marker is None or known is None:
        return _without_marker(user, entry, rules)
    odd = _not_comparable(user, marker, rules.epoch)
    if odd is not None:
        return odd
    compared = _compare(user, known, rules.epoch)
    if FLOOR in marker.flags:
        return _at_floor(marker, compared)
    if compared < 0:
        return _behind(user, entry, known, rules)
    if compared > 0 and known.key.place[:2] == (rules.epoch, user.kvno):
        detail = f"IdM has version {known.kvno} too, with a later time or of another controller than AD's"
        return Finding(State.UNEXPLAINED, detail, Cause.SAME_VERSION)
    if compared > 0:
        detail = f"IdM has version {known.kvno}, AD shows {user.kvno} only"
        return Finding(State.UNEXPLAINED, detail, Cause.AHEAD)
    if entry.torn:
        return Finding(State.BEHIND, "the marker stands beside the password of another change")
    if sight.times_kept and entry.password_removed:
        return Finding(State.BEHIND, "the entry has lost its password (it was preserved, or restored)")
    return _same_version(entry, marker, rules)


def elsewhere(user: AdAccount, entry: Entry, server: str, rules: Rules) -> Finding:
    """For a user whom no search by name finds, while the marker of this entry is his: one of the two was renamed."""
    protected = protection(entry, rules.protected_groups)
    if protected is not None or entry.marker is None or entry.known is None:
        return Finding(State.EXCLUDED if protected else State.NOT_IN_IDM, protected or "no IdM entry matches")
    detail = f"{entry.dn} is his by its marker (version {entry.known.kvno}), and is not found by his name any more"
    state = State.BEHIND if _compare(user, entry.known, rules.epoch) < 0 else State.UNEXPLAINED
    return Finding(state, detail, Cause.RENAMED, server, entry.marker)


def _without_marker(user: AdAccount, entry: Entry, rules: Rules) -> Finding:
    if not rules.idm_newer_wins or entry.last_change is None or not user.changed_at:
        return Finding(State.NEVER_SYNCED, "the entry has no password from AD yet")
    if to_datetime(user.changed_at) >= entry.last_change:
        return Finding(State.NEVER_SYNCED, "the entry has no password from AD yet")
    detail = f"the entry has no password from AD yet, and IdM's own, {_SET}, is younger than AD's: it stays"
    return Finding(State.NEVER_SYNCED, detail, Cause.IDM_NEWER)


def _not_comparable(user: AdAccount, marker: Marker, epoch: int) -> Finding | None:
    if marker.guid != user.guid:
        return Finding(State.UNEXPLAINED, f"the entry belongs to AD account {marker.guid}", Cause.IDENTITY)
    if marker.epoch > epoch:
        detail = f"the marker has epoch {marker.epoch}, [[domain]] epoch is {epoch} here"
        return Finding(State.UNEXPLAINED, detail, Cause.EPOCH)
    if FLOOR not in marker.flags and marker.epoch == epoch and marker.key.order is not Order.KVNO:
        return Finding(State.UNEXPLAINED, "the marker is ordered by time", Cause.ORDER)
    if not user.kvno:
        return Finding(State.UNEXPLAINED, "AD shows no version of the password", Cause.NO_VERSION)
    return None


def _compare(user: AdAccount, known: Marker, epoch: int) -> int:
    """Below 0 when IdM is behind AD, above when it is ahead.

    With AD's metadata the whole order key counts, so that of two passwords with one version the one that AD kept must
    be here; without, the version alone does.
    """
    key = user.key(epoch)
    ours: tuple[int, ...] = known.key.place
    theirs: tuple[int, ...] = (epoch, user.kvno)
    if key is None:
        ours = ours[:2]
    else:
        theirs = key.place
    return (ours > theirs) - (ours < theirs)


def _at_floor(floor: Marker, compared: int) -> Finding:
    if compared < 0:
        return Finding(State.BEHIND, f"an operator's floor of {floor.applied_at}: AD's password may come and has not")
    return Finding(State.EXCLUDED, f"an operator's floor of {floor.applied_at} shuts this version out")


def _behind(user: AdAccount, entry: Entry, known: Marker, rules: Rules) -> Finding:
    detail = f"IdM has version {known.kvno} of {known.applied_at}, AD has {user.kvno}"
    changed = _changed_in_idm(entry, known, rules)
    if changed is None or not user.changed_at or to_datetime(user.changed_at) >= changed:
        return Finding(State.BEHIND, detail)
    # Both clocks count here, so that it is for a person: AD's would come over a password of the user's own choice.
    return Finding(State.BEHIND, f"{detail}; a younger one was {_SET} in IdM at {_text(changed)}", Cause.IDM_NEWER)


def _same_version(entry: Entry, marker: Marker, rules: Rules) -> Finding:
    changed = _changed_in_idm(entry, marker, rules)
    if changed is not None:
        return Finding(State.CHANGED_IN_IDM, f"another password was {_SET} in IdM at {_text(changed)}")
    return Finding(State.IN_SYNC)


def _changed_in_idm(entry: Entry, marker: Marker, rules: Rules) -> datetime | None:
    """When somebody else set a password after our write, or tried to."""
    written = datetime.fromisoformat(marker.applied_at)
    return (
        entry.last_change if entry.last_change is not None and entry.last_change - written > rules.own_write else None
    )


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
