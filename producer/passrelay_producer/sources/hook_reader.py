"""What the hook's records mean: for each the account of its RID, whether the filter lets it in, and its version."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from passrelay_producer.metadata import MetadataError
from passrelay_producer.sources import AccountState, Excluded, Memory, PendingReason
from passrelay_producer.sources.hook_directory import HookDirectory
from passrelay_producer.sources.hook_folder import RecordName
from passrelay_producer.sources.hook_version import version_of
from passrelay_producer.sources.samba_account import GroupsError, Reading, UnreadableError
from passrelay_producer.sources.samba_change import account_of, must_change_of
from passrelay_producer.sources.samba_scope import SambaScope
from passrelay_schemas import filetime
from passrelay_schemas.errors import ConfigurationError, EventError, UnavailableError
from passrelay_schemas.event import Kind, PasswordChanged, encode
from passrelay_schemas.hook_record import HookRecord
from passrelay_schemas.logs import Action, Log

WAIT_SECONDS = 60
"""An account that cannot be read now is asked for again after this; all its records wait, in their order."""
NO_ACCOUNT_SECONDS = 3600
"""A record of this age whose RID nobody has is given up; until then AD may only not show the account yet."""


@dataclass
class Content:
    """What is to be committed of the records that were read."""

    events: list[PasswordChanged] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """The files of both."""
    without_account: list[tuple[RecordName, str]] = field(default_factory=list)
    """Files whose RID nobody has, for too long, and why."""
    accounts: Sequence[AccountState] = ()


class _WaitError(Exception):
    """This account's records cannot be taken now; the others go on."""

    def __init__(self, why: str, reason: PendingReason = PendingReason.UNREADABLE) -> None:
        super().__init__(why)
        self.reason = reason


class HookReader:
    """One connection's reader; UnavailableError when the controller does not answer."""

    def __init__(self, directory: HookDirectory, memory: Memory, scope: SambaScope, log: Log) -> None:
        self._directory = directory
        self._memory = memory
        self._scope = scope
        self._log = log
        self._waiting: dict[int, tuple[float, PendingReason]] = {}
        """RIDs whose records wait, until when, and why."""

    def waits(self, rid: int, now: float) -> bool:
        """The records of this account are not to be read yet; `now` is monotonic."""
        return rid in self._waiting and self._waiting[rid][0] > now

    def why_waits(self, rid: int) -> PendingReason | None:
        """Why the account could not be read when it was tried last; None when it could. From any thread."""
        found = self._waiting.get(rid)
        return None if found is None else found[1]

    def read(self, records: Sequence[tuple[RecordName, HookRecord]]) -> Content:
        """What these records mean; those of an account that cannot be read now are left out."""
        content = Content()
        if not records:
            return content
        self._look()
        # Accounts are read after the files were seen: what AD then shows is no older than any of them.
        readings: dict[int, Reading | None] = {}
        states: dict[int, AccountState] = {}
        calls: dict[int, list[int]] = defaultdict(list)
        for name, _ in records:
            calls[name.rid].append(name.filetime)
        for name, record in records:
            if self.waits(name.rid, time.monotonic()):
                continue
            try:
                if name.rid not in readings:
                    readings[name.rid] = self._account(name.rid)
                reading = readings[name.rid]
                if reading is None:
                    content.without_account.append((name, self._nobody(name)))
                    continue
                exclusion = self._scope.filter.exclusion(reading)
                if exclusion is not None:
                    content.excluded.append(Excluded(exclusion.rule))
                else:
                    known = states.get(name.rid) or self._memory.account(reading.guid)
                    event = self._event(name, record, reading, calls[name.rid], known)
                    content.events.append(event)
                    states[name.rid] = _state(event, known)
                calls[name.rid].pop(0)
                content.names.append(name.name)
                self._waiting.pop(name.rid, None)
            except _WaitError as error:
                self._wait(name, error)
        content.accounts = list(states.values())
        return content

    def _look(self) -> None:
        try:
            self._scope.look()
        except ConfigurationError as error:
            raise UnavailableError(f"{error}. Until then nothing is captured") from None

    def _sid(self, rid: int) -> str:
        return f"{self._directory.domain_sid}-{rid}"

    def _nobody(self, name: RecordName) -> str:
        """Why the record is given up: nobody has its RID, for too long."""
        why = f"there is no account {self._sid(name.rid)} in {self._directory.domain}"
        if filetime.now() < name.filetime + NO_ACCOUNT_SECONDS * filetime.UNITS_PER_SECOND:
            raise _WaitError(why, PendingReason.NO_ACCOUNT)
        return why

    def _account(self, rid: int) -> Reading | None:
        try:
            reading = self._directory.read_sid(self._sid(rid))
            return None if reading is None else self._scope.with_token(reading)
        except GroupsError as error:
            raise _WaitError(
                f"AD does not say whether the account is an administrator's (tokenGroups: {error}): let bind_user read "
                "it, by Pre-Windows 2000 Compatible Access, and a global catalog be reached",
                PendingReason.NO_GROUPS,
            ) from None
        except UnreadableError:
            raise _WaitError("AD shows the account's attributes in an unknown form: report it") from None

    def _event(
        self, name: RecordName, record: HookRecord, reading: Reading, calls: Sequence[int], known: AccountState | None
    ) -> PasswordChanged:
        try:
            version = version_of(
                reading,
                calls=calls,
                controller=self._directory.invocation_id,
                given=None if known is None else known.kvno,
            )
            if version is None:
                raise _WaitError("AD shows no version of the password: let bind_user read msDS-KeyVersionNumber")
            event = PasswordChanged(
                domain=self._directory.domain,
                account=account_of(reading),
                record=record.text,
                kvno=version.kvno,
                changed_at=version.changed_at,
                origin=version.origin,
                must_change=version.current and must_change_of(reading),
                kind=Kind.CREATE if version.current and version.kvno == 1 else Kind.UNKNOWN,
            )
            encode(event)
        except MetadataError as error:
            raise _WaitError(str(error)) from None
        except ValidationError:
            raise _WaitError("the account's names have characters that no event takes: rename it in AD") from None
        except EventError as error:
            raise _WaitError(f"{error}: shorten the account's names in AD", PendingReason.TOO_LARGE) from None
        return event

    def _wait(self, name: RecordName, error: _WaitError) -> None:
        if name.rid not in self._waiting:
            repair = "the file is then taken by itself"
            self._log.error(Action.RECORD_WAITS, file=name.name, why=str(error), repair=repair)
        self._waiting[name.rid] = (time.monotonic() + WAIT_SECONDS, error.reason)


def _state(event: PasswordChanged, known: AccountState | None) -> AccountState:
    highest = max(event.kvno, known.kvno if known is not None else 0)
    return AccountState(event.account.guid, highest, event.must_change)
