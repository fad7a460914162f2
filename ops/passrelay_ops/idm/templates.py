"""What a site needs in its directory: the templates in ops/idm with its names filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from passrelay_consumer.directory import MARKER_CLASS
from passrelay_ops.idm.ldif import Change, Record, Value, parse
from passrelay_ops.idm.site import Site
from passrelay_schemas.distinguished_name import components
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.setting_values import OWN_MARKER

MADE_BY = "made by passrelay idm setup"
"""The description of an account that setup made, and may therefore remove."""

# A wheel has the templates beside this module (pyproject.toml), a checkout has them in ops/idm.
_FOLDERS = (Path(__file__).parent / "templates", Path(__file__).parents[2] / "idm")
_KERBEROS = re.compile(r" \|\| krb\w+|krb\w+ \|\| ", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """The records of a site, by where they are to be written."""

    schema: tuple[Record, ...]
    """On every server. It replicates too, but only together with a change of an entry."""
    service: Record
    """The service account. It, the probes and the rules are written on one server; replication carries them."""
    probes: tuple[Record, ...]
    access: tuple[Record, ...]
    """What the service account may do, with users and with probes."""
    managers: tuple[Record, ...]
    """On every server with IPA's password plugin, because cn=config is not replicated."""

    @property
    def tree(self) -> tuple[Record, ...]:
        """What replication carries, in the order in which it can be applied."""
        return (self.service, *self.probes, *self.access)

    @property
    def records(self) -> tuple[Record, ...]:
        """All of them, in the order in which they can be applied."""
        return self.schema + self.tree + self.managers


def wanted(site: Site) -> Wanted:
    """Every record that the site needs, whatever is there already."""
    names = {
        "service_dn": site.service_dn,
        "service_uid": _uid(site.service_dn),
        "realm": site.realm,
        "password_file": quote(str(site.password_file)),
        "admins_dn": site.admins_dn,
        "markers": " || ".join(site.markers),
    }

    def records(name: str, **more: str) -> list[Record]:
        return [_fitting(record, site) for record in parse(_filled(name, {**names, **more}))]

    [service], [users] = records("account"), records("access")
    probes = [records("probe", probe_dn=dn, probe_uid=_uid(dn)) for dn in site.probe_dns]
    return Wanted(
        schema=tuple(records("schema")) if site.own_schema else (),
        service=service,
        probes=tuple(account for account, _ in probes),
        # The same rules at each place where users are.
        access=(*(replace(users, dn=base) for base in site.search_bases), *(rules for _, rules in probes)),
        managers=tuple(records("managers")),
    )


def _uid(dn: str) -> str:
    return components(dn)[0].partition("=")[2]


def _filled(name: str, names: dict[str, str]) -> str:
    path = next((path for folder in _FOLDERS if (path := folder / f"{name}.ldif").is_file()), None)
    if path is None:
        raise ConfigurationError(f"template {name}.ldif: missing from this installation: install passrelay again")
    text = path.read_text(encoding="utf-8")
    for placeholder, value in names.items():
        text = text.replace(f"{{{placeholder}}}", value)
    return text


def _fitting(record: Record, site: Site) -> Record:
    """The record without what this directory does not know, or this site does not use."""
    return replace(record, changes=tuple(_changes(record, site)))


def _changes(record: Record, site: Site) -> Iterator[Change]:
    for change in record.changes:
        values = [fitting for value in change.values if (fitting := _value(value, site)) is not None]
        if values and (site.kerberos or not change.attribute.startswith("krb")):
            yield replace(change, values=tuple(values))


def _value(value: Value, site: Site) -> Value | None:
    if not isinstance(value, str):
        return value
    if MARKER_CLASS in value and site.marker != OWN_MARKER:
        return None
    if site.kerberos:
        return value
    return None if value == "krbPrincipalAux" else _KERBEROS.sub("", value)
