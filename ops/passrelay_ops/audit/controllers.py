"""AD's side of an audit: every user of one domain controller, with the newest password that any controller has."""

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
from passrelay_producer.sources.samba_account import ALL_GROUPS
from passrelay_schemas.domain_settings import AdSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError

_TOGETHER = 100
"""So many users are asked for in one search."""


class Controllers:
    """A context with a connection to the first controller that answers, and to all others.

    Replication may lag, so that one controller alone can be behind: each user is taken from the controller that has his
    newest password.
    """

    def __init__(self, ad: AdSettings) -> None:
        self._ad = ad
        self._stack = ExitStack()
        self._first: Controller | None = None
        self._others: list[Controller] = []
        self._base = ""
        self.silent: dict[str, str] = {}
        """Controllers that did not answer, and why: what they alone know is not known."""

    def __enter__(self) -> Self:
        controller = reach(self._ad)
        try:
            self._first = self._stack.enter_context(controller)
            self._base = _base(self._first)
            self._others = [other for url in self._ad.servers if url != self.url for other in self._answering(url)]
        except DirectoryError as error:
            self._stack.close()
            raise UnavailableError(f"{controller.url}: {error}") from None
        except ConfigurationError:
            self._stack.close()
            raise
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

    def newer(self, users: Sequence[AdAccount]) -> list[AdAccount]:
        """The same users, each as the controller with his newest password shows him, of all that answer."""
        found = {user.guid: user for user in users}
        self._ask_the_others(found, list(found))
        return list(found.values())

    def newest(self, guids: Iterable[UUID]) -> dict[UUID, AdAccount]:
        """These users as the controller with the newest password of each shows them. Who is missing was deleted."""
        found: dict[UUID, AdAccount] = {}
        wanted = list(guids)
        for part in _parts(wanted):
            if self._first is not None:
                found |= {user.guid: user for user in self._search(self._first, account.by_guid(part))}
        self._ask_the_others(found, wanted)
        return found

    def groups(self, guid: UUID) -> frozenset[str] | None:
        """SIDs of the security groups that this user is in, also through others: one base search.

        None when the controller does not show them. UnavailableError when it does not answer.
        """
        if self._first is None:
            return None
        try:
            return account.token_groups(self._first.entry(f"<GUID={guid}>", ALL_GROUPS))
        except DirectoryError as error:
            if error.code is None:
                raise UnavailableError(f"{self.url}: {error}: AD could not be read to its end") from None
            return None

    def _ask_the_others(self, found: dict[UUID, AdAccount], guids: Sequence[UUID]) -> None:
        """Put into `found` whatever is newer elsewhere."""
        for part in _parts(guids):
            for controller in self._others:
                if controller.url in self.silent:
                    continue
                try:
                    shown = list(self._search(controller, account.by_guid(part)))
                except UnavailableError as error:
                    self.silent[controller.url] = str(error)
                    continue
                for user in shown:
                    known = found.get(user.guid)
                    if known is None or user.place > known.place:
                        found[user.guid] = user

    def _answering(self, url: str) -> Iterator[Controller]:
        """The controller, connected; nothing when it is silent. ConfigurationError when it is of another domain."""
        try:
            controller = self._stack.enter_context(Controller(url, self._ad))
            base = _base(controller)
        except DirectoryError as error:
            self.silent[url] = str(error)
            return
        if base.lower() != self._base.lower():
            raise ConfigurationError(f"{url}: a controller of {base}, not of {self._base}: check [domain.ad] servers")
        yield controller

    def _search(self, controller: Controller, search_filter: str) -> Iterator[AdAccount]:
        try:
            for _, values in controller.search(self._base, search_filter, account.ATTRIBUTES):
                user = account.read(values)
                if user is not None:
                    yield user
        except DirectoryError as error:
            raise UnavailableError(f"{controller.url}: {error}: AD could not be read to its end") from None


def _base(controller: Controller) -> str:
    """The domain's own naming context. ConfigurationError when the server has none."""
    contexts = controller.root().get("defaultnamingcontext")
    if not contexts:
        raise ConfigurationError(f"{controller.url}: no domain controller: check [domain.ad] servers")
    return contexts[0].decode("utf-8", "replace")


def _parts(guids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(guids), _TOGETHER):
        yield guids[start : start + _TOGETHER]
