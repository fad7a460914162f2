"""Accounts read one by one, and what they mean as pages; and whom the filter left out, looked at again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from passrelay_producer.metadata import last_write
from passrelay_producer.sources import AccountState, Excluded, Memory, Page, Pending, PendingReason
from passrelay_producer.sources.samba_account import GroupsError, UnreadableError
from passrelay_producer.sources.samba_change import Decision, decide
from passrelay_producer.sources.samba_directory import Change, SambaDirectory
from passrelay_producer.sources.samba_scope import LOOK_ACCOUNTS, SambaScope
from passrelay_producer.supplemental import OpenPgpKeyFile
from passrelay_schemas.event import PasswordChanged

PAGE_ACCOUNTS = 64
"""So many accounts are committed together: a backlog starts to flow at once."""
REST = 4
"""After work that is not cheap in a big domain the database rests this many times as long."""


class Reader:
    """What the accounts of one connection mean."""

    def __init__(self, directory: SambaDirectory, memory: Memory, scope: SambaScope, key: OpenPgpKeyFile) -> None:
        self._directory = directory
        self._memory = memory
        self._scope = scope
        self._key = key

    def page(self, changes: Iterable[Change], writes: dict[UUID, int], *, looking: bool = False) -> Page:
        """The page of these changes, without a cursor; `writes` gets the USN of each one's newest password write.

        `looking`: nobody has changed, but those left out may have come in; who has not is no news.
        """
        waiting = {item.guid: item.reason for item in self._memory.pending()}
        events: list[PasswordChanged] = []
        accounts: list[AccountState] = []
        pending: list[Pending] = []
        excluded: list[Excluded] = []
        resolved: list[UUID] = []
        for change in changes:
            left_out = self._memory.is_excluded(change.guid)
            password = change.password or change.guid in waiting or left_out
            decision, usn = self._decision(change.guid, password=password)
            if usn is not None:
                writes[change.guid] = usn
            if looking and decision.exclusion is not None and left_out and change.guid not in waiting:
                continue
            if decision.event is not None:
                events.append(decision.event)
            if decision.state is not None:
                accounts.append(decision.state)
            if decision.exclusion is not None:
                excluded.append(Excluded(decision.exclusion.rule, change.guid))
            if decision.pending is None:
                if change.guid in waiting or left_out:
                    resolved.append(change.guid)
            elif waiting.get(change.guid) is not decision.pending.reason:
                pending.append(decision.pending)
        return Page(
            events=events,
            tags=range(len(events)),
            accounts=accounts,
            pending=pending,
            excluded=excluded,
            resolved=resolved,
        )

    def again(self, guids: Iterable[UUID], *, looking: bool = False) -> Iterator[Page]:
        """The current passwords of these accounts, whatever was captured before; `looking` as in `page`."""
        for part in parts([Change(guid, password=True) for guid in guids]):
            page = self.page(part, {}, looking=looking)
            if page.events or page.pending or page.excluded or page.resolved:
                yield page

    def come_in(self, guids: Sequence[UUID]) -> Iterator[Page]:
        """Of these accounts, which the filter left out once, the current passwords of those that it lets in now."""
        for start in range(0, len(guids), LOOK_ACCOUNTS):
            yield from self.again(self._scope.come_in(guids[start : start + LOOK_ACCOUNTS]), looking=True)

    def _decision(self, guid: UUID, *, password: bool) -> tuple[Decision, int | None]:
        """The decision, and the USN of the account's newest password write."""
        try:
            reading = self._directory.read(guid)
        except UnreadableError:  # this account waits, the others go on
            return Decision(pending=Pending(guid, PendingReason.UNREADABLE)), None
        if reading is None:  # deleted since; DirSync reports that too, so nobody is left out for ever
            return Decision(), None
        usn = last_write(reading.metadata)
        try:
            reading = self._scope.with_token(reading)
        except GroupsError:
            return Decision(pending=Pending(guid, PendingReason.NO_GROUPS)), usn
        decision = decide(
            reading,
            filters=self._scope.filter,
            domain=self._directory.domain,
            password=password,
            known=self._memory.account(guid),
            key=self._key,
        )
        return decision, usn


def parts(changes: Sequence[Change]) -> list[Sequence[Change]]:
    """What is committed together; an empty part for no changes."""
    return [changes[start : start + PAGE_ACCOUNTS] for start in range(0, max(1, len(changes)), PAGE_ACCOUNTS)]


class Sweep:
    """Looks at everybody whom the filter left out: at the start, and when a group or an OU moved.

    The latest come first, and at once: a new user is made before he can be put into his groups.
    """

    def __init__(self, reader: Reader, memory: Memory) -> None:
        self._reader = reader
        self._memory = memory
        self._latest_wanted = True
        self._all_wanted = True
        self._left: deque[UUID] = deque()
        self._busy = 0.0
        self._rest_until = 0.0

    def want(self) -> None:
        """Look at everybody (again), after what is under way."""
        self._latest_wanted = self._all_wanted = True

    def pages(self) -> Iterator[Page]:
        """The latest, or else the next part of all, so that changes do not wait for the whole."""
        started = time.monotonic()
        if self._latest_wanted:
            self._latest_wanted = False
            yield from self._reader.come_in(self._memory.excluded(LOOK_ACCOUNTS))
            return
        if not self._left and self._all_wanted and started >= self._rest_until:
            self._all_wanted = False
            self._left.extend(self._memory.excluded())
        if not self._left:
            return
        yield from self._reader.come_in([self._left.popleft() for _ in range(min(LOOK_ACCOUNTS, len(self._left)))])
        self._busy += time.monotonic() - started
        if not self._left:
            self._rest_until, self._busy = time.monotonic() + REST * self._busy, 0.0
