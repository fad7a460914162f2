"""What one domain controller of [domain.ad] shows. It is read in one go, and everything is decided from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ldap3.protocol.formatters.formatters import format_sid

from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.ad import presented
from passrelay_ops.ad.controller import Attributes, Controller
from passrelay_ops.ad.presented import Presented
from passrelay_producer.sources.samba_account import ALL_GROUPS
from passrelay_schemas.distinguished_name import components, folded
from passrelay_schemas.domain_settings import AdSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now

_DSA = "(|(objectClass=nTDSDSA)(objectClass=server))"
_GUEST = 501
_DSA_ATTRIBUTES = ("objectClass", "objectCategory", "msDS-HasDomainNCs", "hasMasterNCs", "dNSHostName")


@dataclass(frozen=True)
class Member:
    """One domain controller of the domain, as the forest knows it."""

    host: str
    read_only: bool


@dataclass(frozen=True)
class Shown:
    """What the controller showed to the account of [domain.ad]; None or empty: this account may not see it."""

    host: str
    domain: str
    """The domain's DNS name, in lower case."""
    sid: str | None
    complexity: bool | None
    clock: datetime | None
    """Its own time, in whole seconds."""
    members: tuple[Member, ...]
    groups: bool | None = None
    """It showed tokenGroups of another account than our own; None: that account or the domain's SID may not be seen."""


@dataclass(frozen=True)
class View:
    """One server of [domain.ad]; what stands behind a fault could not be looked at and is None."""

    server: str
    bind_user: str
    looked_at: datetime
    """Our time at the moment of `clock`."""
    connect_fault: str = ""
    certificate: Presented | None = None
    bind_fault: str = ""
    bind_code: int | None = None
    shown: Shown | None = None


def look(url: str, ad: AdSettings) -> View:
    """Read one server; nothing is written. What cannot be done is part of the view."""
    try:
        certificate = presented.look(url, ad)
    except DirectoryError as error:
        return View(url, ad.bind_user, utc_now(), connect_fault=str(error))
    if certificate.distrust is not None:
        return View(url, ad.bind_user, utc_now(), certificate=certificate)
    try:
        with Controller(url, ad) as controller:
            before = utc_now()
            root = controller.root()
            looked_at = before + (utc_now() - before) / 2
            shown = _shown(controller, root)
    except ConfigurationError as error:
        return View(url, ad.bind_user, utc_now(), certificate=certificate, bind_fault=str(error))
    except DirectoryError as error:
        if error.code is None:
            return View(url, ad.bind_user, utc_now(), certificate=certificate, connect_fault=str(error))
        return View(url, ad.bind_user, utc_now(), certificate=certificate, bind_fault=str(error), bind_code=error.code)
    return View(url, ad.bind_user, looked_at, certificate=certificate, shown=shown)


def _shown(controller: Controller, root: Attributes) -> Shown:
    base = _text(root, "defaultNamingContext")
    head = controller.entry(base, "objectSid", "pwdProperties") if base else None
    head = head or {}
    sids = head.get("objectsid")
    sid = str(format_sid(sids[0])) if sids else None
    return Shown(
        host=_text(root, "dnsHostName"),
        domain=dns_name(base),
        sid=sid,
        complexity=_complexity(_text(head, "pwdProperties")),
        clock=generalized_time(_text(root, "currentTime")),
        members=tuple(members(controller, _text(root, "configurationNamingContext"), base)),
        groups=_groups(controller, sid),
    )


def _complexity(properties: str) -> bool | None:
    # DOMAIN_PASSWORD_COMPLEX ([MS-SAMR] 2.2.3.5)
    try:
        return bool(int(properties) & 1)
    except ValueError:
        return None


def _groups(controller: Controller, sid: str | None) -> bool | None:
    # Guest: there is one in every domain, with the rights of an ordinary account (AdminSDHolder does not set them).
    guest = controller.entry(f"<SID={sid}-{_GUEST}>", ALL_GROUPS) if sid else None
    return None if guest is None else bool(guest)


def members(controller: Controller, configuration: str, base: str) -> Iterator[Member]:
    """The domain's controllers: nTDSDSA objects below CN=Sites ([MS-ADTS] 6.1.1.2.2.1.2.1.1), each below its server.

    A forest has the controllers of all its domains there.
    """
    found = dict(controller.search(f"CN=Sites,{configuration}", _DSA, _DSA_ATTRIBUTES)) if configuration else {}
    hosts = {folded(dn): _text(entry, "dNSHostName") for dn, entry in found.items()}
    for dn, entry in sorted(found.items()):
        classes = {value.lower() for value in entry.get("objectclass", ())}
        held = entry.get("msds-hasdomainncs", ()) + entry.get("hasmasterncs", ())
        if b"ntdsdsa" not in classes or folded(base) not in {folded(text(value)) for value in held}:
            continue
        # Windows tells it by the class, Samba by the category alone.
        read_only = b"ntdsdsaro" in classes or _text(entry, "objectCategory").lower().startswith("cn=ntds-dsa-ro,")
        server = _names(dn)[1:]
        name = server[0].partition("=")[2] if server else ""
        yield Member(hosts.get(folded(",".join(server))) or name or dn, read_only)


def _names(dn: str) -> list[str]:
    """Its relative names; none of what is no DN."""
    try:
        return components(dn) if dn else []
    except ValueError:
        return []


def dns_name(base: str) -> str:
    """The domain's DNS name for the DN of its head (RFC 2247); empty for what is no DN."""
    return ".".join(part.partition("=")[2] for part in _names(base)).lower()


def generalized_time(value: str) -> datetime | None:
    """The time of currentTime, 20261125181743.0Z (RFC 4517 3.3.13, always UTC in AD); None when it is none."""
    try:
        return datetime.strptime(value.partition(".")[0].rstrip("Z"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def text(raw: bytes) -> str:
    """A value as text, whatever is in it."""
    return raw.decode("utf-8", "replace")


def _text(entry: Attributes, attribute: str) -> str:
    return text(entry.get(attribute.lower(), (b"",))[0])
