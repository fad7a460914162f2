"""Where events come from. A source is a small class; a new one touches one file and the list in `service.py`.

The capture loop takes a page, seals its events, commits events, cursor, accounts and pending rows in ONE transaction,
and only then tells the source. A source never has to remember what was already delivered: what is not committed is
read again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID

from passrelay_producer.filters import Rule
from passrelay_schemas.errors import EventError
from passrelay_schemas.event import PasswordChanged


class PendingReason(StrEnum):
    """Why a change cannot be captured now. It is read again until it succeeds, or waits for a person."""

    NO_CLEAR_TEXT = "no_clear_text"  # the DC keeps no Primary:SambaGPG package for the account
    STALE_CLEAR_TEXT = "stale_clear_text"  # the package belongs to an older password than unicodePwd
    KEY_MISSING = "key_missing"  # the OpenPGP key cannot open it
    UNREADABLE = "unreadable"  # a blob, or what AD says of the account, is malformed or not shown
    TOO_LARGE = "too_large"  # the names do not fit an event
    NO_GROUPS = "no_groups"  # the DC does not say which groups the account is in: it may be an administrator's
    HELD = (
        "held"  # a file of the Windows hook cannot be read, moved away or deleted: a scanner has it, or no right to it
    )
    NO_ACCOUNT = "no_account"  # AD does not show the account of the hook's record yet
    QUARANTINED = "quarantined"  # a file of the hook that was moved away lies there still
    HOOK_LOST = "hook_lost"  # the hook could not keep it: since LSASS started, and nothing brings it back


REPAIRS: Mapping[PendingReason, str] = {
    PendingReason.NO_CLEAR_TEXT: "set `password hash gpg key ids` in smb.conf on every DC; the next change arrives",
    PendingReason.STALE_CLEAR_TEXT: "a DC without the GPG key made this change: set `password hash gpg key ids` there",
    PendingReason.KEY_MISSING: "put the secret key of `password hash gpg key ids` into [source.samba] gpg_key_file",
    PendingReason.UNREADABLE: "report it: the DC stores the account's credentials in an unknown form",
    PendingReason.TOO_LARGE: "shorten the account's names in AD",
    PendingReason.NO_GROUPS: "a base search of the account on this DC must show tokenGroups: is a global catalog away?",
    PendingReason.HELD: "exclude the hook's folder from virus scanners; let the service read, move and delete there",
    PendingReason.NO_ACCOUNT: "let [source.hook] bind_user see the account; if it was deleted, nothing",
    PendingReason.QUARANTINED: "see why in the log (record_quarantined); move good files back, delete the others",
    PendingReason.HOOK_LOST: "have them changed again (`passrelay audit`); the count ends when the controller restarts",
}


@dataclass(frozen=True)
class Pending:
    """One account whose newest change could not be captured yet."""

    guid: UUID
    reason: PendingReason


@dataclass(frozen=True)
class Excluded:
    """A change that the filter left out.

    With a guid it is remembered: once the filter lets the account in, the password that it then has is captured.
    """

    rule: Rule
    guid: UUID | None = None


@dataclass(frozen=True)
class AccountState:
    """What was captured last of an account: tells a must-change tick from a new password."""

    guid: UUID
    kvno: int
    must_change: bool


@dataclass(frozen=True)
class Page:
    """One transaction's worth of changes. `tags` runs parallel to `events`: the source's own numbers (of lines)."""

    events: Sequence[PasswordChanged] = ()
    tags: Sequence[int] = ()
    accounts: Sequence[AccountState] = ()
    pending: Sequence[Pending] = ()
    excluded: Sequence[Excluded] = ()
    resolved: Sequence[UUID] = ()
    """Neither pending nor excluded any more."""
    quarantined: Sequence[str] = ()
    """Reasons of what the source moved away since its last page, for a person to look at."""
    cursor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """Where a source captures, for the producer's news (passrelay_schemas.news says what each means)."""

    kind: Literal["samba", "stdin", "hook"]
    domains: Sequence[str] = ()
    controller: str | None = None
    openpgp_fingerprints: Sequence[str] = ()


Result = UUID | EventError
"""What became of one event of a page: its id in the spool, or why it could not be sealed."""


class Memory(Protocol):
    """What a source may ask the spool."""

    def cursor(self) -> Mapping[str, str]:
        """The cursor of the last committed page; empty before `producer init`."""

    def account(self, guid: UUID) -> AccountState | None:
        """What was captured last of an account."""

    def pending(self) -> Sequence[Pending]:
        """All accounts that wait to be read again."""

    def excluded(self, limit: int | None = None) -> Sequence[UUID]:
        """The accounts of which the filter left something out, the latest first; all, or so many."""

    def is_excluded(self, guid: UUID) -> bool:
        """True when the filter left out something of this account."""


class Source(Protocol):
    """The producer's side of a source."""

    def initialise(self, memory: Memory, *, everything: bool) -> Page:
        """`producer init`: a page without events whose cursor starts now, or at the beginning."""

    def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
        """Changes as they come, until `stop`. UnavailableError when the DC cannot be asked: the loop starts again."""

    def recapture(self, memory: Memory, sam_account_name: str | None) -> Iterator[Page]:
        """`producer capture`: the current password of one account or of all, whatever was captured before."""

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        """The page is durable (a result for each event)."""

    def about(self) -> About:
        """What is known so far, from any thread; nobody is asked for it."""

    def fault(self) -> str:
        """Why nothing new comes although the source can be read, and the repair; empty: it comes. From any thread."""

    def waiting(self) -> Mapping[PendingReason, int]:
        """What waits outside the spool, and is none of its pending accounts. From any thread; it does not fail."""
