"""What one IdM server shows of passrelay's set-up. It is read in one go, and everything is decided from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ldap3.utils.conv import escape_filter_chars

from passrelay_consumer.connection import bind, close, connect
from passrelay_consumer.directory import MANAGERS, PLUGIN_DN
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.check import Result, Row
from passrelay_ops.idm import schema
from passrelay_ops.idm.login import Login
from passrelay_ops.idm.server import Attributes, Server
from passrelay_ops.idm.site import Site
from passrelay_schemas.distinguished_name import canonical, components, folded, parent
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret_file import read_secret_file

SCHEMA_DN = "cn=schema"
_BAD_LOGIN = 49


@dataclass(frozen=True)
class View:
    """What one server showed. Without an answer `unusable` says why, and the rest is empty."""

    server: str
    bound_as: str
    unusable: Row | None = None
    entries: Mapping[str, Attributes] = field(default_factory=dict)
    """By DN in its one spelling and lower case; what is not there could not be seen."""
    sees_all: bool = False
    """This login can read the server's configuration, so what it does not see is not there."""
    kerberos: bool = False
    realm: str | None = None
    probes: tuple[str, ...] = ()
    """Every entry that is named as a probe is, also for a server that has left the list."""
    login_fault: str | None = None
    """Why the service account cannot log in with its password file."""

    def entry(self, dn: str) -> Attributes | None:
        """One entry that was looked for."""
        return self.entries.get(folded(dn))

    def values(self, dn: str, attribute: str) -> tuple[str, ...]:
        """The values of one attribute of one entry."""
        return (self.entry(dn) or {}).get(attribute.lower(), ())


def look(url: str, idm: IdmSettings, site: Site, login: Login) -> View:
    """Read one server; nothing is written. What cannot be done is part of the view."""
    try:
        with Server(url, idm, login) as server:
            probes = _probes(server, site)
            looked_for = [*_wanted(site), *probes]
            entries = {folded(dn): found for dn in looked_for if (found := _entry(server, dn)) is not None}
            sees_all = "nsslapd-rootdn" in (server.entry("cn=config", "nsslapd-rootdn") or {})
            realms = server.below(f"cn=kerberos,{site.suffix}", "(objectClass=krbRealmContainer)", "cn", deep=False)
            realm = next((attributes["cn"][0] for _, attributes in realms), None)
    except DirectoryError as error:
        return View(url, login.dn, unusable=unusable(url, login, error))
    classes = entries.get(SCHEMA_DN, {}).get("objectclasses", ())
    return View(
        url,
        login.dn,
        entries=entries,
        sees_all=sees_all,
        kerberos=schema.find(classes, "krbPrincipalAux") is not None,
        realm=realm,
        probes=probes,
        login_fault=_login_fault(url, idm),
    )


def _wanted(site: Site) -> list[str]:
    parents = [parent(site.service_dn), parent(site.probe_dn)]
    return [SCHEMA_DN, PLUGIN_DN, site.service_dn, *site.probe_dns, *parents, *site.search_bases]


def _probes(server: Server, site: Site) -> tuple[str, ...]:
    name = escape_filter_chars(components(site.probe_dn)[0].partition("=")[2])
    found = server.below(parent(site.probe_dn), f"(|(uid={name})(uid={name}-*))", deep=False)
    return tuple(canonical(dn) for dn, _ in found)


def _entry(server: Server, dn: str) -> Attributes | None:
    if dn == SCHEMA_DN:
        return server.entry(dn, "attributeTypes", "objectClasses")
    if dn == PLUGIN_DN:
        return server.entry(dn, "cn", MANAGERS, "aci")
    # Not the password: the hash is nobody's business here. nsAccountLock is given only when it is asked for.
    return server.entry(dn, "objectClass", "uid", "description", "krbPrincipalName", "nsAccountLock", "aci")


def unusable(url: str, login: Login, error: DirectoryError) -> Row:
    """The check that a server fails of which nothing can be read."""
    if error.code is None:
        return Row("idm.connect", url, Result.FAIL, str(error), _way_to(url, str(error)))
    if error.code == _BAD_LOGIN:
        return Row("idm.bind", url, Result.FAIL, str(error), "check --bind-dn and its password")
    return Row("idm.bind", url, Result.FAIL, f"{login.dn}: {error}", "repair the server, then repeat the command")


def _way_to(url: str, text: str) -> str:
    """The repair for what OpenSSL or ldap3 says about a connection."""
    if "has expired" in text or "not yet valid" in text:
        return "renew that server's certificate, or set the clock that is wrong"
    if "mismatch" in text or "doesn't match" in text or "not valid for" in text:
        return "write the server in [idm] servers by a name that stands in its certificate"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "[idm] ca_file must be the CA that signed that server's certificate: `passrelay idm ca` fetches it"
    if "invalid CA public key file" in text:
        return "[idm] ca_file is missing: `passrelay idm ca` fetches it"
    return f"start or reach {url}"


def _login_fault(url: str, idm: IdmSettings) -> str | None:
    """Log in as consumers do, once."""
    try:
        password = read_secret_file(idm.password_file, what="[idm] password_file")
    except ConfigurationError as error:
        return str(error)
    connection = None
    try:
        connection = connect(url, idm)
        bind(connection, idm.bind_dn, password.reveal())
    except DirectoryError as error:
        return str(error)
    finally:
        close(connection)
    return None
