"""One line of an audit's result: a user, how he stands, where his password is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self
from uuid import UUID

from passrelay_ops import repair_commands
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.state import QUIET, WORDS, Cause, Finding, State
from passrelay_ops.audit.whereabouts import IN_FLIGHT, Trace
from passrelay_schemas.filetime import rfc3339, to_datetime
from passrelay_schemas.marker import Marker
from passrelay_schemas.verdict import REPAIRS, Reason

COLUMNS = ("domain", "user", "state", "ad_kvno", "ad_changed_at", "applied_at", "where", "detail", "repair", "guid")
_BY_CAUSE = {
    Cause.AMBIGUOUS: REPAIRS[Reason.AMBIGUOUS],
    Cause.EPOCH: "set [[domain]] epoch here as on the consumers (docs/runbooks/restores.md)",
    Cause.ORDER: "set back the [[domain]] order, or begin a new epoch (docs/runbooks/restores.md)",
    Cause.AHEAD: "was AD restored from a backup? Then raise the [[domain]] epoch (docs/runbooks/restores.md)",
    Cause.SAME_VERSION: "if AD's password works in IdM, nothing: on Windows two changes within a second look like this "
    "(docs/runbooks/audit.md, Limits); if not, his next change in AD wins",
    Cause.UNREADABLE: "correct the marker as Directory Manager; no other program may write it",
    Cause.NO_VERSION: "let the account of [domain.ad] read msDS-KeyVersionNumber of this user",
    Cause.RENAMED: "give the entry his name in AD again (`ipa user-mod OLD --rename=NEW`, or its ntUserDomainId), or "
    "mend [[domain]] match; then {capture}",
    Cause.ONE_SERVER: "replication is behind or broken: repair it, then `passrelay settle --since 24h`",
}

_OF_THE_ENTRY = frozenset({Reason.USER_MISSING, Reason.AMBIGUOUS, Reason.PROTECTED, Reason.IDENTITY, Reason.EARLY})
"""Whoever is behind has one entry that may be written: these do not hold any more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One user of AD."""

    domain: str
    user: str
    guid: UUID
    state: State
    ad_kvno: int
    ad_changed_at: str | None
    applied_at: str | None
    where: str | None
    """None where nothing is on its way or missing."""
    repair: str
    detail: str

    @classmethod
    def of(cls, domain: str, user: AdAccount, finding: Finding, trace: Trace | None) -> Self:
        """The row of a user; `trace` is None where nobody looked for his password on its way."""
        detail = "; ".join(text for text in (finding.detail, _of_the_trace(finding, trace)) if text)
        return cls(
            domain=domain,
            user=user.name,
            guid=user.guid,
            state=finding.state,
            ad_kvno=user.kvno,
            ad_changed_at=rfc3339(to_datetime(user.changed_at)) if user.changed_at else None,
            applied_at=finding.marker.applied_at if finding.marker else None,
            where=trace.where if trace else None,
            repair=advice(domain, user, finding, trace),
            detail=detail,
        )

    def saying(self, repair: str) -> Self:
        """The same row with another repair."""
        return replace(self, repair=repair)

    @property
    def in_words(self) -> str:
        """How the user stands, as a sentence."""
        version = f"password version {self.ad_kvno}" + (f" of {self.ad_changed_at}" if self.ad_changed_at else "")
        details = f" ({self.detail})" if self.detail else ""
        return f"{self.user} in AD {self.domain}: {version}: {WORDS[self.state]}{details}"

    def document(self) -> dict[str, Any]:
        """The row in a document or sheet."""
        row = {name: getattr(self, name) for name in COLUMNS}
        return {**row, "state": self.state.value, "guid": str(self.guid)}


def advice(domain: str, user: AdAccount, finding: Finding, trace: Trace | None) -> str:
    """What heals this user; empty where there is nothing to do."""
    capture = f"{repair_commands.capture(user.name)} on a domain controller of {domain}"
    rebind = repair_commands.rebind(user.name, user.guid, domain)
    if finding.state in QUIET:
        return ""
    if finding.state is State.CHANGED_IN_IDM:
        return (
            "his next change in AD wins; to give him AD's password now: "
            f"{repair_commands.reset(user.name, domain)}, then {capture}"
        )
    if finding.cause is Cause.IDENTITY:
        return f"find out whose the entry is; if it is this user's: {rebind}, then {capture}"
    if finding.cause is Cause.IDM_NEWER and finding.state is State.BEHIND:
        return f"his next change in AD wins; to give him AD's password now: {capture}"
    if finding.cause is Cause.IDM_NEWER:
        return f"his next change in AD wins; to give him AD's password now: {rebind}, then {capture}"
    if finding.cause in _BY_CAUSE:
        return _BY_CAUSE[finding.cause].replace("{capture}", capture)
    return _of_the_way(capture, finding, trace)


def _of_the_trace(finding: Finding, trace: Trace | None) -> str:
    if trace is None or not trace.applied:
        return "" if trace is None else trace.detail
    lost = "no entry has it any more" if finding.state is State.NOT_IN_IDM else "the entry may be an older copy"
    return f"{trace.detail}: {lost}"


def _of_the_way(capture: str, finding: Finding, trace: Trace | None) -> str:
    """For what is missing in IdM: what the way there tells."""
    if trace is not None and trace.where == IN_FLIGHT:
        return "nothing: it comes by itself" if finding.state is not State.NOT_IN_IDM else "create the user in IdM"
    if trace is not None and trace.reason in _OF_THE_ENTRY and finding.state is not State.NOT_IN_IDM:
        return f"what made it a dead letter is gone: {capture}"
    if trace is not None and trace.reason is not None:
        return REPAIRS[trace.reason]
    if finding.state is State.NOT_IN_IDM:
        return f"create the user in IdM, then {capture}; or leave him out with [filter] of the producers"
    return f"see that the producers run, then {capture}"


def marker_of(finding: Finding) -> Marker | None:
    """The marker that stands at the entry, unless it is another account's."""
    return None if finding.cause is Cause.IDENTITY else finding.marker
