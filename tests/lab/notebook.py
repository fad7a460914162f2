"""A Samba source driven without a spool: what it gave, and what it may ask back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import cast
from uuid import UUID

from passrelay_producer.filters import Rule
from passrelay_producer.sources import AccountState, Page, Pending
from passrelay_producer.sources.samba import SambaSource
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.logs import Log
from passrelay_schemas.source_settings import SambaSourceSettings
from tests.lab.samba import DomainController

_TIMEOUT_SECONDS = 30


class Notebook:
    """What the spool remembers, without the spool."""

    def __init__(self) -> None:
        self.values: Mapping[str, str] = {}
        self.states: dict[UUID, AccountState] = {}
        self.waiting: dict[UUID, Pending] = {}
        self.left_out: dict[UUID, Rule] = {}
        self.events: list[PasswordChanged] = []

    def cursor(self) -> Mapping[str, str]:
        return self.values

    def account(self, guid: UUID) -> AccountState | None:
        return self.states.get(guid)

    def pending(self) -> Sequence[Pending]:
        return list(self.waiting.values())

    def excluded(self, limit: int | None = None) -> Sequence[UUID]:
        return list(reversed(self.left_out))[:limit]

    def is_excluded(self, guid: UUID) -> bool:
        return guid in self.left_out

    def commit(self, page: Page) -> None:
        assert len(page.tags) == len(page.events)
        self.values = page.cursor or self.values
        self.states.update({state.guid: state for state in page.accounts})
        for guid in page.resolved:
            assert self.waiting.pop(guid, None) or self.left_out.pop(guid, None)
        for pending in page.pending:
            self.waiting[pending.guid] = pending
            self.left_out.pop(pending.guid, None)
        for excluded in page.excluded:
            assert excluded.guid is not None
            self.left_out.pop(excluded.guid, None)  # the latest is the last
            self.left_out[excluded.guid] = excluded.rule
        self.events.extend(page.events)


class Capture:
    """A source with its notebook, as the capture loop would drive it."""

    def __init__(
        self,
        controller: DomainController,
        key_file: Path | None = None,
        filters: FilterSettings | None = None,
        *,
        poll_ms: int = 5,
    ) -> None:
        self.notebook = Notebook()
        self._controller = controller
        self._key_file = key_file or controller.gpg_key_file
        self._poll_ms = poll_ms
        self._stays = False
        self._pages: Generator[Page, None, None] | None = None
        self._stop = threading.Event()
        self.restart(filters)

    def stay_connected(self) -> Capture:
        """From now on as one process that goes on running, instead of a new connection for each `drive`."""
        self._stays = True
        return self

    def close(self) -> None:
        """End the connection."""
        if self._pages is not None:
            self._pages.close()
            self._pages = None

    def restart(self, filters: FilterSettings | None = None) -> Capture:
        """As a new process with this filter."""
        self.close()
        settings = SambaSourceSettings(
            ldapi_path=self._controller.ldapi_path, gpg_key_file=self._key_file, poll_ms=self._poll_ms
        )
        self.source = SambaSource(settings, Log("test"), filters)
        return self

    def initialise(self, *, everything: bool = False) -> Capture:
        """`producer init`."""
        self.notebook.commit(self.source.initialise(self.notebook, everything=everything))
        return self

    def until(self, sam: str, count: int = 1) -> list[PasswordChanged]:
        """Drive the source until it has given `count` more events of the account; returns those."""
        seen = len(self.of(sam))
        self.drive(lambda: len(self.of(sam)) >= seen + count, what=f"{count} events of {sam}")
        return self.of(sam)[seen:]

    def of(self, sam: str) -> list[PasswordChanged]:
        """The account's events so far."""
        return [event for event in self.notebook.events if event.account.sam_account_name == sam]

    def drive(self, done: Callable[[], bool], *, what: str) -> None:
        """Take pages until the condition holds; AssertionError when it does not in time."""
        if done():
            return
        if self._pages is None:
            self._stop = threading.Event()
            self._pages = cast("Generator[Page, None, None]", self.source.pages(self.notebook, self._stop))
        timer = threading.Timer(_TIMEOUT_SECONDS, self._stop.set)
        timer.start()
        found = False
        try:
            for page in self._pages:
                self.notebook.commit(page)
                if found := done():
                    return
        finally:
            timer.cancel()
            if not (found and self._stays):
                self.close()
        raise AssertionError(f"not within {_TIMEOUT_SECONDS} s: {what}")

    def recapture(self, sam: str | None) -> None:
        """`producer capture`."""
        for page in self.source.recapture(self.notebook, sam):
            self.notebook.commit(page)


def password_of(event: PasswordChanged) -> str:
    """The clear text."""
    assert event.password is not None
    return event.password.reveal()
