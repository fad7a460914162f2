"""The marker of one entry as every IdM server shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ldap3.core.exceptions import LDAPInvalidDnError
from ldap3.utils.dn import parse_dn
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from passrelay_consumer.decide import Entry
from passrelay_consumer.directory import Directory
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.user_status import account_of
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, MarkerError, PassrelayError, UnavailableError
from passrelay_schemas.event import Account
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.marker import Marker

REPLICATION = (
    "replication is behind or broken: look again in a moment; if it stays, repair it "
    "(`dsconf INSTANCE replication status --suffix SUFFIX`)"
)
"""What to do about servers that show different things."""
REPLICATION_SECONDS = 10.0
"""How long a floor may take to every other server before the command calls it missing there."""
_NO_SUCH_OBJECT = 32
_INVALID_DN = 34
_ACCESS = 50
_UNKNOWN_SCHEMA = frozenset({17, 65})
"""undefinedAttributeType and objectClassViolation: the server does not know our attribute or class."""


@dataclass(frozen=True)
class Whose:
    """Whom the operator means: an account by its name in AD, or an entry by its DN."""

    name: str
    """The sAMAccountName; of a DN, the value of its first part."""
    account: Account | None = None
    dn: str | None = None

    @classmethod
    def parse(cls, user: str) -> Whose:
        """USER as it was typed; ConfigurationError when it can be neither."""
        # AD allows no "=" in a sAMAccountName, and every DN has one.
        if "=" not in user:
            return cls(user, account=account_of(user))
        try:
            return cls(str(parse_dn(user, strip=True)[0][1]), dn=user)
        except (LDAPInvalidDnError, IndexError):
            raise ConfigurationError(f"USER {user!r:.200}: not a DN (RFC 4514): write uid=NAME,cn=users,...") from None


@dataclass(frozen=True)
class View:
    """What one server shows."""

    server: str
    entry: Entry | None = None
    fault: PassrelayError | None = None
    """Why there is no one entry with a readable marker."""
    answered: bool = True

    @property
    def marker(self) -> Marker | None:
        """The marker that it shows."""
        return None if self.entry is None else self.entry.marker


def look(whose: Whose, idm: IdmSettings, domain: DomainSettings, servers: Iterable[str]) -> list[View]:
    """The entry as each of the servers has it, in their order; what a server cannot show is the view's fault."""
    return [_look(whose, idm, domain, url) for url in servers]


def _look(whose: Whose, idm: IdmSettings, domain: DomainSettings, url: str) -> View:
    directory = Directory(url, idm)
    who = f"USER {whose.dn or whose.name}"
    try:
        found = _find(directory, whose, domain)
    except MarkerError as error:
        repair = f"correct {idm.marker_attribute} of the entry as Directory Manager; no other program may write it"
        return View(url, fault=MarkerError(f"{who}: {error}: {repair}"))
    except DirectoryError as error:
        # Without an answer, or with a refused login, the next server may know better.
        return View(url, fault=explain(error, idm), answered=error.code not in (None, 49))
    finally:
        directory.close()
    if not found:
        place = "in IdM" if whose.dn else f"below {domain.search_base} by [[domain]] {domain.name} match"
        return View(url, fault=ConfigurationError(f"{who}: no such entry {place}: check it, or give the entry's DN"))
    if len(found) > 1:
        fault = ConfigurationError(f"{who}: several entries match: repair [[domain]] match, or give a DN")
        return View(url, fault=fault)
    return View(url, found[0])


def _find(directory: Directory, whose: Whose, domain: DomainSettings) -> list[Entry]:
    if whose.account is not None:
        return directory.find(whose.account, domain)
    try:
        entry = directory.read(whose.dn or "")
    except DirectoryError as error:
        if error.code != _NO_SUCH_OBJECT:
            raise
        entry = None
    return [] if entry is None else [entry]


def explain(error: DirectoryError, idm: IdmSettings) -> PassrelayError:
    """The error of ours, with its repair, for a failed LDAP call."""
    if error.code is None:
        return UnavailableError(f"{error}: start it or repair the way to it")
    if error.code == 49:
        return ConfigurationError(f"{error}: check [idm] bind_dn and password_file")
    if error.code in (_NO_SUCH_OBJECT, _INVALID_DN):
        return ConfigurationError(f"{error}: check [[domain]] search_base, or the DN that you gave")
    if error.code == _ACCESS:
        return ConfigurationError(f"{error}: {idm.bind_dn} may not do that to this entry: see `passrelay idm check`")
    if error.code in _UNKNOWN_SCHEMA:
        return ConfigurationError(f"{error}: run `passrelay idm setup`")
    return UnavailableError(f"{error}: repair the server, then repeat the command")


def first(views: Sequence[View]) -> tuple[str, Entry]:
    """The first server that answered, where an operator writes, and the entry there.

    Raises what that server has to say instead of an entry; UnavailableError when nobody answered, ConfigurationError
    when all refused our login.
    """
    for view in views:
        if view.answered:
            if view.entry is not None:
                return view.server, view.entry
            raise type(view.fault or ConfigurationError())(f"{view.server}: {view.fault}")
    kinds = {type(view.fault) for view in views}
    kind = ConfigurationError if kinds == {ConfigurationError} else UnavailableError
    raise kind("no IdM server can be used: " + "; ".join(f"{view.server}: {view.fault}" for view in views))


def identical(views: Iterable[View]) -> bool:
    """Every server that answered shows the very same write, in marker and proof: no older one can come back."""
    sights = [view.entry and (view.entry.marker, view.entry.proof) for view in views if view.answered]
    return all(sight == sights[0] for sight in sights)


def wait_until_alike(dn: str, old: Marker | None, idm: IdmSettings, domain: DomainSettings) -> list[View]:
    """Read every server until all that answer show one new marker, or REPLICATION_SECONDS are over.

    The new marker need not be the floor: what waited for it may have been written at once.
    """
    whose = Whose(dn, dn=dn)
    silent: dict[str, View] = {}

    def read() -> list[View]:
        # A server that is down is asked once: its timeout would use up the time of the others.
        views = [silent.get(url) or _look(whose, idm, domain, url) for url in idm.servers]
        silent.update({view.server: view for view in views if not view.answered})
        return views

    def unlike(views: list[View]) -> bool:
        return not identical(views) or any(view.answered and view.marker == old for view in views)

    retrying = Retrying(
        retry=retry_if_result(unlike),
        wait=wait_fixed(0.3),
        stop=stop_after_delay(REPLICATION_SECONDS),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else [],
    )
    views: list[View] = retrying(read)
    return views
