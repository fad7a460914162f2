"""What an audit of one domain has found so far: everybody counted, and kept whoever needs a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from uuid import UUID

from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.comparison import Comparison, of_the_moment
from passrelay_ops.audit.row import Row, marker_of
from passrelay_ops.audit.state import QUIET, Cause, Finding, State
from passrelay_ops.audit.whereabouts import Trace, Whereabouts
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.marker import Marker

DRIFT = frozenset({State.BEHIND, State.NEVER_SYNCED, State.CHANGED_IN_IDM, State.UNEXPLAINED})
"""IdM has another password than AD. Who is not in IdM at all has none there, and most of a big AD is not."""
_ON_THE_WAY = frozenset({State.BEHIND, State.NEVER_SYNCED, State.NOT_IN_IDM, State.UNEXPLAINED})


class Result:
    """One domain's users by state. Memory holds those who are listed, not the domain."""

    def __init__(self, domain: str, *, everybody: bool = False) -> None:
        """`everybody`: list also who is in sync or left out."""
        self.domain = domain
        self.counts: Counter[State] = Counter()
        self._everybody = everybody
        self._kept: dict[UUID, tuple[AdAccount, Finding]] = {}
        self._traces: dict[UUID, Trace] = {}
        self._said: dict[UUID, str] = {}
        self.overwrite_idm = False
        """Whoever has a younger password in IdM is to get AD's all the same."""
        self.repaired: list[str] = []
        """Names of those who were not in sync and are, after a repair."""

    def compare(self, comparison: Comparison, name: str | None, seen: Callable[[], None]) -> None:
        """Look at every user, or at one, and again at those who may only have been on their way."""
        for user, finding in comparison.everybody(name):
            self._take(user, finding)
            seen()
        self.again(comparison, [guid for guid, (_, finding) in self._kept.items() if of_the_moment(finding)])
        missing = [user for user, finding in self._kept.values() if finding.state is State.NOT_IN_IDM]
        for user, finding in comparison.renamed(missing):
            del self._kept[user.guid]
            self.counts[State.NOT_IN_IDM] -= 1
            self._take(user, finding)

    def again(self, comparison: Comparison, guids: Iterable[UUID]) -> None:
        """Look at these of the listed users once more."""
        earlier = {guid: self._kept.pop(guid) for guid in guids if guid in self._kept}
        for _, finding in earlier.values():
            self.counts[finding.state] -= 1
        for user, finding in comparison.again(earlier):
            self._take(user, finding)

    def _take(self, user: AdAccount, finding: Finding) -> None:
        self.counts[finding.state] += 1
        if self._everybody or finding.state not in QUIET:
            self._kept[user.guid] = (user, finding)

    @property
    def drift(self) -> Counter[State]:
        """How many users have another password in IdM than in AD, by state."""
        return Counter({state: count for state, count in self.counts.items() if state in DRIFT and count})

    # -- the way from AD to IdM ------------------------------------------------------------------------------------

    def wanted(self) -> dict[UUID, Marker | None]:
        """The users whose password is missing in IdM, and the marker that stands there."""
        return {guid: marker_of(finding) for guid, (_, finding) in self._kept.items() if finding.state in _ON_THE_WAY}

    def trace(self, whereabouts: Whereabouts) -> None:
        """Say where the missing passwords are."""
        now = utc_now()
        self._traces = {guid: whereabouts.trace(self._kept[guid][0], now) for guid in self.wanted()}

    # -- repair ----------------------------------------------------------------------------------------------------

    def curable(self) -> list[UUID]:
        """Whom AD's current password heals once it comes again: the consumer would write it."""
        return [guid for guid, (_, found) in self._kept.items() if self._writes(found)]

    def _writes(self, found: Finding) -> bool:
        if found.cause is Cause.IDM_NEWER:
            return self.overwrite_idm and found.state is State.BEHIND
        return found.state in {State.BEHIND, State.NEVER_SYNCED} and found.cause in {Cause.NONE, Cause.ONE_SERVER}

    def younger_in_idm(self) -> list[tuple[AdAccount, Finding]]:
        """Who has a password of IdM's own that came after AD's, or tried to set one."""
        return [
            (user, found)
            for user, found in self._kept.values()
            if found.state is State.CHANGED_IN_IDM or found.cause is Cause.IDM_NEWER
        ]

    def traces(self) -> dict[UUID, Trace]:
        """What was found of those who can be healed."""
        return {guid: self._traces[guid] for guid in self.curable() if guid in self._traces}

    def say(self, guid: UUID, repair: str) -> None:
        """Put a user's repair into other words."""
        self._said[guid] = repair

    def name(self, guid: UUID) -> str | None:
        """The name of a listed user; None when he is in sync, left out, or deleted."""
        kept = self._kept.get(guid)
        return None if kept is None or kept[1].state in QUIET else kept[0].name

    # -- telling ---------------------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """A row for everybody who is listed, by state and name."""
        rows = [
            Row.of(self.domain, user, finding, self._traces.get(guid)) for guid, (user, finding) in self._kept.items()
        ]
        rows = [row.saying(self._said[row.guid]) if row.guid in self._said else row for row in rows]
        order = list(State)
        return sorted(rows, key=lambda row: (order.index(row.state), row.user.casefold()))
