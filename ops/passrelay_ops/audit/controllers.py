"""AD's side of an audit: every user from one domain controller, and single ones from all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self
from uuid import UUID

from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.ad.controller import Controller, reach
from passrelay_ops.audit import account
from passrelay_ops.audit.account import AdAccount
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.settings import AdSettings

_TOGETHER = 100
"""So many users are asked for in one search."""


class Controllers:
    """A context with a connection to the first controller that answers, and to the others when they are needed."""

    def __init__(self, ad: AdSettings) -> None:
        self._ad = ad
        self._stack = ExitStack()
        self._first: Controller | None = None
        self._others: list[Controller] | None = None
        self._base = ""
        self.silent: dict[str, str] = {}
        """Controllers that did not answer when all were asked, and why."""

    def __enter__(self) -> Self:
        controller = reach(self._ad)
        try:
            self._first = self._stack.enter_context(controller)
            root = self._first.root()
        except DirectoryError as error:
            self._stack.close()
            raise UnavailableError(f"{controller.url}: {error}") from None
        if not root.get("defaultnamingcontext"):
            self._stack.close()
            raise ConfigurationError(f"{controller.url}: no domain controller: check [domain.ad] servers")
        self._base = root["defaultnamingcontext"][0].decode("utf-8", "replace")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The controller that `users` reads."""
        return "" if self._first is None else self._first.url

    def users(self, name: str | None = None) -> Iterator[AdAccount]:
        """Every user of the domain, or one by name, a page at a time. UnavailableError when it does not answer."""
        if self._first is not None:
            yield from self._search(self._first, account.users(name))

    def newest(self, guids: Iterable[UUID]) -> dict[UUID, AdAccount]:
        """These users as the controller that has the newest password of each shows them, of all that answer.

        Replication may lag, so that one controller alone can be behind. Who is missing was deleted.
        """
        found: dict[UUID, AdAccount] = {}
        for part in _parts(list(guids)):
            for controller in self._every():
                try:
                    shown = list(self._search(controller, account.by_guid(part)))
                except UnavailableError as error:
                    if controller is self._first:
                        raise
                    self.silent[controller.url] = str(error)
                    continue
                for user in shown:
                    known = found.get(user.guid)
                    if known is None or user.place > known.place:
                        found[user.guid] = user
        return found

    def _every(self) -> list[Controller]:
        if self._others is None:
            self._others = []
            for url in self._ad.servers:
                if url != self.url:
                    try:
                        self._others.append(self._stack.enter_context(Controller(url, self._ad)))
                    except DirectoryError as error:
                        self.silent[url] = str(error)
        first = [] if self._first is None else [self._first]
        return first + [controller for controller in self._others if controller.url not in self.silent]

    def _search(self, controller: Controller, search_filter: str) -> Iterator[AdAccount]:
        try:
            for _, values in controller.search(self._base, search_filter, account.ATTRIBUTES):
                user = account.read(values)
                if user is not None:
                    yield user
        except DirectoryError as error:
            raise UnavailableError(f"{controller.url}: {error}: AD could not be read to its end") from None


def _parts(guids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(guids), _TOGETHER):
        yield guids[start : start + _TOGETHER]
