"""The site: the names that the templates in ops/idm are filled with, from ops.toml and from what IdM says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from passrelay_schemas.distinguished_name import canonical, common_suffix, components
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.setting_values import OWN_MARKER, OWN_PROOF

_MEANS_SOMETHING = re.compile(r'["?%{}()*\\]')
"""What an access rule, its LDAP URL or its filter would not read as part of a DN."""


@dataclass(frozen=True)
class Site:
    """One IdM and passrelay's names in it. DNs are in their one spelling (passrelay_schemas.distinguished_name)."""

    service_dn: str
    probe_dn: str
    """The name from which every probe's begins."""
    probe_dns: tuple[str, ...]
    """The probes in use: this very name with one server, else one for each server."""
    search_bases: tuple[str, ...]
    """Where the users are, once each."""
    suffix: str
    password_file: Path
    marker: str = OWN_MARKER
    proof: str | None = OWN_PROOF
    realm: str = ""
    """The Kerberos realm of the probe's principal."""
    kerberos: bool = True
    """The directory has Kerberos' schema, as every IdM has; a plain 389 Directory Server need not."""

    @classmethod
    def of(cls, idm: IdmSettings, domains: Sequence[DomainSettings]) -> Site:
        """The site of a configuration; ConfigurationError names the key that does not do."""
        bases: dict[str, str] = {}
        for domain in domains:
            if domain.search_base:
                base = _dn(f"[[domain]] {domain.name} search_base", domain.search_base)
                bases.setdefault(base.casefold(), base)
        if not bases:
            raise ConfigurationError("[[domain]]: search_base is needed: cn=users,cn=accounts,<suffix>")
        service = _dn("[idm] bind_dn", idm.bind_dn)
        probe = _dn("[idm] probe_dn", idm.probe_base)
        probes = tuple(_dn("[idm] servers, probe_dn", dn) for dn in idm.probe_entries)
        for key, dn in (("bind_dn", service), ("probe_dn", probe)):
            if not components(dn)[0].lower().startswith("uid="):
                raise ConfigurationError(f"[idm] {key} {dn}: setup makes accounts named by uid: begin it with uid=")
        suffix = common_suffix([service, probe, *bases.values()])
        if not suffix:
            raise ConfigurationError(
                f"[idm] bind_dn {service} and search_base {', '.join(bases.values())}: lie in different directories: "
                "end them with the same suffix"
            )
        return cls(
            service_dn=service,
            probe_dn=probe,
            probe_dns=probes,
            search_bases=tuple(bases.values()),
            suffix=suffix,
            password_file=idm.password_file,
            marker=idm.marker_attribute,
            proof=idm.proof,
            realm=_realm(suffix),
        )

    @property
    def own_schema(self) -> bool:
        """An attribute of passrelay's own schema is used."""
        return OWN_MARKER in self.markers or OWN_PROOF in self.markers

    @property
    def markers(self) -> tuple[str, ...]:
        """The attributes that hold marker and proof."""
        return (self.marker,) if self.proof is None else (self.marker, self.proof)

    @property
    def admins_dn(self) -> str:
        """IdM's group of administrators, whose members are never written."""
        return f"cn=admins,cn=groups,cn=accounts,{self.suffix}"


def _dn(key: str, dn: str) -> str:
    try:
        spelled = canonical(dn)
    except ValueError as error:
        raise ConfigurationError(f"{key} {error}") from None
    if found := _MEANS_SOMETHING.search(spelled):
        raise ConfigurationError(f"{key} {spelled}: {found[0]} cannot stand in an access rule: choose another name")
    return spelled


def _realm(suffix: str) -> str:
    parts = [name.partition("=") for name in components(suffix)]
    return ".".join(value for attribute, _, value in parts if attribute.lower() == "dc").upper() or "PASSRELAY"
