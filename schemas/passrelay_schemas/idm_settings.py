"""The section [idm]: the IdM servers and how entries are written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from passrelay_schemas.distinguished_name import canonical, components
from passrelay_schemas.setting_values import OWN_MARKER, OWN_PROOF, AttributeName, idm_group, ldap_url, with_admins
from passrelay_schemas.settings_section import Section

_USUAL_PORTS = {"ldaps": 636, "ldap": 389}


class IdmSettings(Section):
    """The IdM servers and how entries are written."""

    servers: Annotated[tuple[Annotated[str, AfterValidator(ldap_url)], ...], Field(min_length=1)]
    """In this order, the same on every consumer: ldaps://HOST:PORT, or ldap://HOST:PORT with StartTLS."""
    ca_file: Path
    """PEM file with IdM's CA; nothing else is trusted."""
    bind_dn: Annotated[str, AfterValidator(canonical)]
    """The service account: uid=passrelay,cn=sysaccounts,cn=etc,<suffix>. Blanks around its commas are taken out."""
    password_file: Path
    """File (mode 0600) with the service account's password; read again at every connection."""
    marker_attribute: AttributeName = OWN_MARKER
    """The attribute that holds the marker; single-valued."""
    proof_attribute: AttributeName | None = None
    """The attribute that says which write set the password; single-valued. Unset: passrelayProof beside
    passrelayMarker, and none beside a marker_attribute of your own, which is right with one server only."""
    probe_dn: Annotated[str, AfterValidator(canonical)] | None = None
    """The disabled entry on which a server is tried; default: uid=passrelay-probe beside bind_dn. With several servers
    each has one of its own, named after this one and the server: uid=passrelay-probe-idm1.example."""
    unlock: bool = True
    """Also set krbLastAdminUnlock, so that a locked user can log in with the new password."""
    carry_must_change: bool = True
    """Carry AD's "must change at next logon" over as an expired password."""
    horizon_hours: Annotated[float, Field(gt=0, le=24 * 60)] = 24
    """How long an event waits for a repair of its entry before it becomes a dead letter."""
    protected_groups: Annotated[tuple[Annotated[str, AfterValidator(idm_group)], ...], AfterValidator(with_admins)] = (
        "admins",
    )
    """IdM groups (cn) whose members, also through nested groups, never get a password from AD. admins must be one."""
    initial: Literal["idm-newer-wins", "ad-wins"] = "idm-newer-wins"
    """An entry without a marker whose IdM password is younger than the AD change: keep it, or write AD's."""
    timeout_seconds: Annotated[int, Field(ge=1, le=120)] = 10
    """For every LDAP call."""
    probe_seconds: Annotated[float, Field(ge=0.2, le=3600)] = 60
    """How often each server in use is probed."""
    settle: bool = True
    """With several servers: look at each write again until all of them show it. Off only to see what it is good for."""

    @model_validator(mode="after")
    def _proof_beside_a_marker(self) -> Self:
        if self.settles and self.proof is None:
            raise ValueError(
                "several servers need proof_attribute beside a marker_attribute of your own: name another "
                "single-valued attribute that nobody else writes"
            )
        if self.proof is not None and self.proof.lower() == self.marker_attribute.lower():
            raise ValueError("proof_attribute and marker_attribute must be two attributes")
        return self

    @property
    def proof(self) -> str | None:
        """The effective proof_attribute."""
        return self.proof_attribute or (OWN_PROOF if self.marker_attribute == OWN_MARKER else None)

    @property
    def needs_class(self) -> bool:
        """One of the two attributes is of our own schema, so entries need its class."""
        return self.marker_attribute == OWN_MARKER or self.proof == OWN_PROOF

    @property
    def settles(self) -> bool:
        """Writes are looked at again: there are several servers, and nobody has switched it off."""
        return self.settle and len(self.servers) > 1

    @property
    def probe_base(self) -> str:
        """The effective probe_dn."""
        return self.probe_dn or "uid=passrelay-probe," + self.bind_dn.partition(",")[2]

    def probe_entry(self, url: str) -> str:
        """The DN of the entry on which this server is tried."""
        return own_probe(self.probe_base, url) if len(self.servers) > 1 else self.probe_base

    @property
    def probe_entries(self) -> tuple[str, ...]:
        """Every server's, once each."""
        return tuple(dict.fromkeys(self.probe_entry(url) for url in self.servers))


def own_probe(probe_dn: str, url: str) -> str:
    """One server's own probe: the first name with the server's host appended, and its port where it is an unusual one.

    Replication carries a probe to every server. Were it one entry for all, a good server's expiration time could arrive
    over a bad server's before it is read there (docs/adr/0015-one-probe-per-server.md).
    """
    name, *above = components(probe_dn)
    parts = urlsplit(url)
    port = "" if parts.port in {None, _USUAL_PORTS.get(parts.scheme)} else f":{parts.port}"
    return ",".join([f"{name}-{parts.hostname}{port}", *above])
