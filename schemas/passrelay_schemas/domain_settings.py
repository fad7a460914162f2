"""The section [[domain]]: the AD domains that are enrolled here."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from passrelay_schemas.envelope import ProducerName
from passrelay_schemas.event import DomainName, Sid
from passrelay_schemas.order import Order
from passrelay_schemas.setting_values import ldap_url, match_filter, with_zone
from passrelay_schemas.settings_section import Section

DEFAULT_MATCH = "(&(objectClass=person)(|(uid={sam})(ntUserDomainId={sam})))"


class AdSettings(Section):
    """How the operator's tools read this AD domain: `ad check`, `doctor`, `audit`. Nothing is ever written there."""

    servers: Annotated[tuple[Annotated[str, AfterValidator(ldap_url)], ...], Field(min_length=1)]
    """Domain controllers, tried in this order: ldaps://HOST[:PORT], or ldap://HOST[:PORT] with StartTLS."""
    ca_file: Path
    """PEM file with the CA that signed their certificates; nothing else is trusted."""
    bind_user: Annotated[str, Field(min_length=1)]
    """An ordinary account without rights of its own: user@domain, or its DN."""
    password_file: Path
    """File (mode 0600) with its password."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """For every LDAP call."""


class DomainSettings(Section):
    """One AD domain that is enrolled here."""

    name: DomainName
    """The domain's DNS name."""
    sid: Sid | None = None
    """The domain's SID; every account must carry it. Needed with order = "kvno"."""
    order: Order = Order.KVNO
    """"kvno": AD's own order, version before time. "time": a source without versions. Fixed for ever."""
    epoch: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Raise it by one after a restore of the whole AD domain from backup, on every consumer before one starts, and set
    epoch_began_at with it (docs/runbooks/restores.md)."""
    epoch_began_at: Annotated[datetime | None, AfterValidator(with_zone)] = None
    """When the restored domain went into service (RFC 3339): what was captured before belongs to the epoch before."""
    producers: tuple[ProducerName, ...] = ()
    """The producers that may speak for this domain (consumer only)."""
    search_base: str | None = None
    """Where the domain's users are in IdM: cn=users,cn=accounts,<suffix> (consumer and ops)."""
    match: Annotated[str, AfterValidator(match_filter)] = DEFAULT_MATCH
    """LDAP filter that finds the one entry; {sam}, {upn}, {guid}, {sid} are put in escaped."""
    ad: AdSettings | None = None
    """How to read the domain itself (ops only)."""

    @model_validator(mode="after")
    def _sid_with_kvno(self) -> Self:
        if self.order is Order.KVNO and self.sid is None:
            raise ValueError('sid is needed with order = "kvno": AD accounts are told apart by it')
        return self

    @model_validator(mode="after")
    def _beginning_of_an_epoch(self) -> Self:
        if self.epoch == 0 and self.epoch_began_at is not None:
            raise ValueError("epoch_began_at needs an epoch above 0: after a restore of the AD domain set both")
        return self


def _distinct(domains: tuple[DomainSettings, ...]) -> tuple[DomainSettings, ...]:
    # Two orders over one domain's accounts cannot be compared: the events of one of them would wait in vain.
    names = [domain.name for domain in domains]
    sids = [domain.sid for domain in domains if domain.sid is not None]
    for domain in domains:
        if names.count(domain.name) > 1:
            raise ValueError(f"[[domain]] {domain.name} stands twice: keep one")
        if sids.count(domain.sid or "") > 1:
            raise ValueError(f"[[domain]] {domain.name}: sid {domain.sid} stands in another [[domain]] too: keep one")
    return domains


Domains = Annotated[tuple[DomainSettings, ...], AfterValidator(_distinct)]
