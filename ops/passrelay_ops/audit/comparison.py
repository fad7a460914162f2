"""One domain's users and IdM's entries side by side, a batch at a time: memory does not grow with the domain."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Protocol, Self, TypeVar
from uuid import UUID

from passrelay_consumer.decide import Entry, own_write
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.entries import BATCH, Entries
from passrelay_ops.audit.state import Cause, Finding, Rules, Sight, State, elsewhere, judge
from passrelay_schemas.deny import denied
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.order import Order

Item = TypeVar("Item")
_OF_THE_MOMENT = frozenset({State.BEHIND, State.NEVER_SYNCED})
_ASKED = frozenset({State.BEHIND, State.NEVER_SYNCED, State.CHANGED_IN_IDM, State.UNEXPLAINED})
"""States of somebody who has an entry and not AD's password: it may be that he is an administrator now."""


class Users(Protocol):
    """AD's side."""

    def users(self, name: str | None = None) -> Iterator[AdAccount]:
        """Every user, or one by name."""

    def newer(self, users: Sequence[AdAccount]) -> list[AdAccount]:
        """The same users, each as the controller with his newest password shows him."""

    def newest(self, guids: Iterable[UUID]) -> dict[UUID, AdAccount]:
        """These users as the controller with the newest password of each shows them."""

    def groups(self, guid: UUID) -> frozenset[str] | None:
        """SIDs of the security groups that this user is in, also through others; None when AD does not show them."""


class Server(Protocol):
    """One IdM server."""

    url: str

    def look(self, users: Sequence[AdAccount]) -> list[Sight]:
        """What it shows for each of these users; DirectoryError when it does not answer."""

    def of_guids(self, guids: Collection[UUID]) -> dict[UUID, Entry]:
        """Entries whose markers have these GUIDs, whatever their names; errors as in `look`."""

    def close(self) -> None:
        """Drop the connection."""


class Comparison:
    """A context. What it yields is (user, finding); a user whom AD deleted meanwhile is left out."""

    def __init__(self, users: Users, servers: Sequence[Server], rules: Rules) -> None:
        self._users = users
        self._servers = list(servers)
        self._rules = rules
        self.silent: dict[str, str] = {}
        """IdM servers that did not answer, and why: there nothing is proven."""
        self.unlisted: dict[str, str] = {}
        """The same, where it was asked for everybody who has a marker: who was renamed is not known."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()

    def everybody(self, name: str | None = None) -> Iterator[tuple[AdAccount, Finding]]:
        """Every user of the domain, or one by name. UnavailableError when a side cannot be read."""
        versions = searched = 0
        for batch in parts(self._users.users(name), BATCH):
            searched += sum(user.left_out is None for user in batch)
            versions += sum(user.kvno > 0 for user in batch)
            yield from self._judged(self._users.newer(batch))
        if searched and not versions:
            raise ConfigurationError(
                "AD shows no msDS-KeyVersionNumber of any user: let the account of [domain.ad] read it"
            )

    def again(self, guids: Iterable[UUID]) -> Iterator[tuple[AdAccount, Finding]]:
        """These users, by what every domain controller shows."""
        for part in parts(guids, BATCH):
            yield from self._judged(list(self._users.newest(part).values()))

    def renamed(self, missing: Sequence[AdAccount]) -> Iterator[tuple[AdAccount, Finding]]:
        """Who of those whom no search by name finds has an entry all the same: its marker has his GUID."""
        server = next((one for one in self._servers if one.url not in self.silent), None)
        if server is None or not missing:
            return
        users = {user.guid: user for user in missing}
        try:
            found = server.of_guids(users.keys())
        except DirectoryError as error:
            self.unlisted[server.url] = str(error)
            return
        for guid, entry in found.items():
            yield (
                users[guid],
                self._of_no_administrator(users[guid], elsewhere(users[guid], entry, server.url, self._rules)),
            )

    def _judged(self, batch: Sequence[AdAccount]) -> Iterator[tuple[AdAccount, Finding]]:
        shown = []
        for server in self._servers:
            if server.url not in self.silent:
                try:
                    shown.append(server.look(batch))
                except DirectoryError as error:
                    self.silent[server.url] = str(error)
        if not shown:
            silent = "; ".join(f"{url}: {why}" for url, why in self.silent.items())
            raise UnavailableError(f"no IdM server can be read: {silent}")
        for user, *sights in zip(batch, *shown, strict=True):
            yield user, self._of_no_administrator(user, judge(user, sights, self._rules))

    def _of_no_administrator(self, user: AdAccount, finding: Finding) -> Finding:
        """The finding, or that no producer carries him: groups cost a search for each user, so few are asked for."""
        if finding.state not in _ASKED:
            return finding
        groups = self._users.groups(user.guid)
        if groups is None:
            detail = (
                f"{finding.detail}; AD does not show whether he is an administrator (tokenGroups: `passrelay ad check`)"
            )
            return replace(finding, detail=detail)
        why = denied(sam_account_name=user.name, sid=user.account.sid, groups=groups)
        return finding if why is None else Finding(State.EXCLUDED, why)


def of_the_moment(finding: Finding) -> bool:
    """A second look may see it otherwise: a change was on its way, or one controller had not heard of it yet."""
    return finding.state in _OF_THE_MOMENT or finding.cause in {Cause.AHEAD, Cause.SAME_VERSION}


def fault(domain: DomainSettings) -> str | None:
    """Why a domain cannot be compared; None when it can."""
    if domain.order is Order.TIME:
        return 'order = "time": there is no AD behind it whose versions could be compared'
    if domain.ad is None:
        return "[domain.ad] is missing: say how its controllers are read (docs/configuration.md)"
    if not domain.search_base:
        return "search_base is missing: where its users are in IdM"
    return None


def rules(domain: DomainSettings, idm: IdmSettings) -> Rules:
    """The rules of one domain."""
    return Rules(
        domain.epoch,
        idm.protected_groups,
        idm_newer_wins=idm.initial == "idm-newer-wins",
        own_write=own_write(idm.timeout_seconds),
    )


def servers(domain: DomainSettings, idm: IdmSettings) -> list[Entries]:
    """IdM's servers, not connected yet."""
    return [Entries(url, idm, domain) for url in idm.servers]


def parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items, so many at a time."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
