"""passSyncManagersDNs of every IdM server: who may set passwords that are neither checked nor expired at once.

The list stands in cn=config, which is not replicated. IPA's plugin compares it as text with the directory's own
spelling of the writer's DN, so an entry with blanks gives no right (measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passrelay_consumer.directory import MANAGERS, PLUGIN_DN
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.idm.ldif import Change, Record
from passrelay_ops.idm.login import Login
from passrelay_ops.idm.plan import Step, grouped, made, missing
from passrelay_ops.idm.server import Server
from passrelay_ops.idm.view import View, unusable
from passrelay_schemas.distinguished_name import folded
from passrelay_schemas.idm_settings import IdmSettings

WARNING = (
    "Whoever is in this list sets passwords that no policy checks, neither strength nor history, and that do not "
    "expire at once, wherever he has write access: list service accounts that need it, and nobody else."
)
"""What the Red Hat IdM guide warns of ("Enabling password reset in IdM without prompting the user")."""


@dataclass(frozen=True)
class Manager:
    """One entry of one server's list."""

    server: str
    dn: str
    """As it is written there."""
    counts: bool
    """The plugin takes it for the account that it names."""


def look(url: str, idm: IdmSettings, login: Login) -> View:
    """The list of one server; a view without the plugin's entry has no list, or none that this login may see."""
    try:
        with Server(url, idm, login) as server:
            plugin = server.entry(PLUGIN_DN, "cn", MANAGERS)
            sees_all = "nsslapd-rootdn" in (server.entry("cn=config", "nsslapd-rootdn") or {})
    except DirectoryError as error:
        return View(url, login.dn, unusable=unusable(url, login, error))
    return View(url, login.dn, entries={} if plugin is None else {folded(PLUGIN_DN): plugin}, sees_all=sees_all)


def listed(view: View) -> list[Manager]:
    """The entries of one server's list."""
    return [Manager(view.server, dn, counts=dn.casefold() == folded(dn)) for dn in view.values(PLUGIN_DN, MANAGERS)]


def to_add(dn: str, views: Sequence[View]) -> list[Step]:
    """What puts the DN, in its one spelling, on the list of each server that has one; other spellings of it go."""
    return grouped((view.server, missing(_entry(dn), view)) for view in views)


def to_remove(dn: str, views: Sequence[View]) -> list[Step]:
    """What takes the DN off each list, however it is spelled there."""
    return grouped((view.server, made(_entry(dn), view)) for view in views)


def _entry(dn: str) -> Record:
    return Record(PLUGIN_DN, "modify", (Change("add", MANAGERS, (dn,)),))
