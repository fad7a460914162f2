"""Which dead letters a replay takes, and why it leaves the others out: values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from passrelay_ops import repair_commands
from passrelay_ops.dead_letters import Letter
from passrelay_ops.standing import Standing
from passrelay_schemas.filetime import rfc3339

MOST_REPLAYS = 10
"""A letter that came back so often is not repaired by one more: nobody may replay in a loop for ever."""

NOBODY_KNOWS = "its account or entry is not known here, so nobody can say if the password was changed in IdM since"


@dataclass(frozen=True)
class LeftOut:
    """A letter that is not replayed, why, and what the operator can do."""

    letter: Letter
    why: str
    repair: str

    def document(self) -> dict[str, Any]:
        """As it stands in a document."""
        return {
            "event_id": str(self.letter.event_id),
            "account": self.letter.account,
            "why": self.why,
            "repair": self.repair,
        }


@dataclass(frozen=True)
class Plan:
    """What a replay would do."""

    letters: tuple[Letter, ...]
    """To be replayed, by their first failure."""
    standings: Counter[Standing]
    """What IdM says about these."""
    left_out: tuple[LeftOut, ...] = ()
    beyond_limit: int = 0
    """Selected, but more than was asked for."""

    def document(self) -> dict[str, Any]:
        """As it stands in a document."""
        return {
            "letters": len(self.letters),
            "reasons": dict(sorted(Counter(letter.reason for letter in self.letters).items())),
            "oldest": _moment(min((letter.first_failed_at for letter in self.letters), default=None)),
            "newest": _moment(max((letter.first_failed_at for letter in self.letters), default=None)),
            **{standing.value: self.standings[standing] for standing in Standing},
            "left_out": [one.document() for one in self.left_out],
            "beyond_limit": self.beyond_limit,
        }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def plan(
    letters: Iterable[Letter],
    standing: Callable[[Letter], Standing],
    *,
    overwrite_idm: bool = False,
    limit: int | None = None,
) -> Plan:
    """Which of the selected live letters are replayed. `standing` is only asked until `limit` is reached."""
    chosen: list[Letter] = []
    standings: Counter[Standing] = Counter()
    left_out: list[LeftOut] = []
    beyond = 0
    for letter in letters:
        if limit is not None and len(chosen) >= limit:
            beyond += 1
            continue
        found = standing(letter)
        out = _left_out(letter, found, overwrite_idm=overwrite_idm)
        if out is None:
            chosen.append(letter)
            standings[found] += 1
        else:
            left_out.append(out)
    return Plan(tuple(chosen), standings, tuple(left_out), beyond)


def _left_out(letter: Letter, standing: Standing, *, overwrite_idm: bool) -> LeftOut | None:
    if letter.replays >= MOST_REPLAYS:
        repair = "find out why it comes back: `passrelay dead show ID`; then capture the user again, and discard it"
        return LeftOut(letter, f"was replayed {letter.replays} times already", repair)
    rebind = repair_commands.rebind(letter.account, letter.guid, letter.domain)
    if standing is Standing.NEVER_WRITTEN and not overwrite_idm:
        why = "the user's password was changed in IdM since, and none of AD's was ever written there"
        return LeftOut(letter, why, f"if AD's is the right one: {rebind}, then --overwrite-idm")
    if standing is Standing.NEVER_WRITTEN:
        # The consumer's own rule would end it as superseded (idm_newer), and the letter would be gone.
        why = "the consumers keep the password that IdM has: the entry has no marker"
        return LeftOut(letter, why, f"if AD's is the right one: {rebind}, then once more")
    if standing is Standing.CHANGED_IN_IDM and not overwrite_idm:
        why = "the user's password was changed in IdM itself since"
        return LeftOut(letter, why, "if AD's is the right one: --overwrite-idm; else discard it")
    if standing is Standing.NOT_KNOWN and not overwrite_idm:
        return LeftOut(letter, NOBODY_KNOWS, "if AD's is the right one in any case: --overwrite-idm")
    return None
