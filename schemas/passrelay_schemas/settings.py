"""Settings: one TOML file per role, every key documented here, unknown keys refused by name.

Environment variables PASSRELAY_<SECTION>__<KEY> win over the file. `docs/configuration.md` is generated from here.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from passrelay_schemas.distinguished_name import canonical, components
from passrelay_schemas.envelope import ProducerName
from passrelay_schemas.event import DomainName, Sid
from passrelay_schemas.order import Order
from passrelay_schemas.secret import Secret
from passrelay_schemas.setting_values import (
    OWN_MARKER,
    OWN_PROOF,
    AttributeName,
    ad_group,
    idm_group,
    is_loopback,
    ldap_url,
    listen_address,
    match_filter,
    name_pattern,
    ou_dn,
    split_url,
    with_admins,
    with_zone,
)

if sys.platform == "win32":
    DEFAULT_DIRECTORY = Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "passrelay"
    _STATE_DIRECTORY = DEFAULT_DIRECTORY / "spool"
else:
    DEFAULT_DIRECTORY = Path("/etc/passrelay")
    _STATE_DIRECTORY = Path("/var/lib/passrelay")
_USUAL_PORTS = {"ldaps": 636, "ldap": 389}
DEFAULT_MATCH = "(&(objectClass=person)(|(uid={sam})(ntUserDomainId={sam})))"


class Section(BaseModel):
    """A table of the file; keys it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class BrokerSettings(Section):
    """The RabbitMQ server."""

    url: Secret
    """amqps://HOST[:PORT]/VHOST. amqp:// only to a loopback address; %2F is the default vhost."""
    ca_file: Path | None = None
    """PEM file with the CA that signed the broker's certificate. Needed with amqps://."""
    certificate_file: Path | None = None
    """PEM file with this host's client certificate: its common name is the broker's user (SASL EXTERNAL)."""
    key_file: Path | None = None
    """PEM file with the key of certificate_file."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parts = split_url(self.url.reveal())
        if parts is None or parts.scheme not in {"amqp", "amqps"}:
            raise ValueError("url must look like amqps://broker.example:5671/passrelay")
        if parts.query or parts.fragment:
            raise ValueError("url takes nothing after the vhost; write ?, # and / in a password as %3F, %23 and %2F")
        if parts.scheme == "amqp" and not is_loopback(parts.hostname or ""):
            raise ValueError(f"url: clear-text amqp:// to {parts.hostname} is refused, only to loopback: use amqps://")
        if parts.scheme == "amqps" and self.ca_file is None:
            raise ValueError("ca_file is needed with amqps://: name the CA that signed the broker's certificate")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: give both or none")
        return self

    @property
    def shown(self) -> str:
        """The address without user and password, for messages."""
        parts = urlsplit(self.url.reveal())
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{port}{parts.path}"


class SpoolSettings(Section):
    """Where captured events wait for the broker."""

    path: Path = _STATE_DIRECTORY / "spool.sqlite"
    """The SQLite file; its directory must belong to the producer alone."""
    retention_hours: Annotated[float, Field(ge=0)] = 72
    """How long published events stay for `producer republish`."""
    max_bytes: Annotated[int, Field(ge=1_000_000)] = 2_000_000_000
    """Published events are removed early to stay below this; unpublished ones never are: then capturing waits."""


class SambaSourceSettings(Section):
    """Capture on a Samba AD domain controller."""

    ldapi_path: Path = Path("/var/lib/samba/private/ldap_priv/ldapi")
    """The DC's private LDAP socket; only root can open it."""
    gpg_key_file: Path = Path("/etc/passrelay/samba-gpg.key")
    """The secret OpenPGP key (exported, mode 0600) whose public half is in smb.conf `password hash gpg key ids`."""
    smb_conf: Path = Path("/etc/samba/smb.conf")
    """Samba's own configuration; only `doctor` reads it."""
    poll_ms: Annotated[int, Field(ge=5, le=60_000)] = 50
    """How often the DC is asked for changes, in milliseconds."""


class StdinSourceSettings(Section):
    """Events from another program, one JSON object a line."""

    batch: Annotated[int, Field(ge=1, le=10_000)] = 256
    """At most this many lines are committed together; a line is answered after its commit."""


class HookSourceSettings(Section):
    """Records of the Windows hook on this domain controller (docs/windows.md)."""

    folder: Path
    """Where the hook writes: its registry value Folder. What is not the hook's is moved to `quarantine` in it."""
    controller: Annotated[str, AfterValidator(ldap_url)]
    """This domain controller itself: ldaps://HOST[:PORT], or ldap://HOST[:PORT] with StartTLS. Another one may not know
    the change yet."""
    ca_file: Path
    """PEM file with the CA that signed its certificate; nothing else is trusted."""
    bind_user: Annotated[str, Field(min_length=1)]
    """An ordinary account without rights of its own, for looking accounts up: user@domain, or its DN."""
    password_file: Path
    """File (mode 0600) with its password; read again at every connection."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """For every LDAP call."""
    poll_ms: Annotated[int, Field(ge=5, le=60_000)] = 200
    """How often the folder is looked at, in milliseconds."""


class SourceSettings(Section):
    """Where events come from: exactly one source."""

    samba: SambaSourceSettings | None = None
    """Samba AD on this host."""
    stdin: StdinSourceSettings | None = None
    """Lines on standard input."""
    hook: HookSourceSettings | None = None
    """Windows AD on this host."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.samba, self.stdin, self.hook].count(None) != 2:
            raise ValueError("give exactly one of [source.samba], [source.stdin] and [source.hook]")
        return self


_Groups = tuple[Annotated[str, AfterValidator(ad_group)], ...]
_Ous = tuple[Annotated[str, AfterValidator(ou_dn)], ...]


class FilterSettings(Section):
    """Whose passwords are captured: without an include list everybody's.

    Those of machine, built-in and protected accounts (adminCount=1) never are. While a group or OU of the lists does
    not exist, nothing is captured. When the filter lets an account in later, its password of then is captured. Use one
    filter on every domain controller: what one leaves out, another may capture.
    """

    include_groups: _Groups = ()
    """Groups by name (sAMAccountName), DN or SID: their members, also through nested groups and as primary group. With
    include_ous: whoever is in any of both lists."""
    exclude_groups: _Groups = ()
    """Groups in the same form whose members are not captured. Each exclude list wins over both include lists."""
    include_ous: _Ous = ()
    """DNs of OUs or containers: accounts anywhere below them."""
    exclude_ous: _Ous = ()
    """DNs of OUs or containers below which nobody is captured."""
    exclude_patterns: tuple[Annotated[str, AfterValidator(name_pattern)], ...] = ()
    """Names (sAMAccountName) that are not captured, in any case; `*`, `?` and `[abc]` as in a shell: `svc-*`."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        excluded_groups = {name.casefold() for name in self.exclude_groups}
        for name in self.include_groups:
            if name.casefold() in excluded_groups:
                raise ValueError(f"{name!r} stands in include_groups and in exclude_groups: remove one of them")
        for inner in self.include_ous:
            for outer in self.exclude_ous:
                if f",{inner}".casefold().endswith(f",{outer}".casefold()):
                    raise ValueError(f"include_ous {inner!r} is within exclude_ous {outer!r}: remove one of them")
        return self

    @property
    def needs_directory(self) -> bool:
        """It names groups or OUs, which only a directory knows."""
        return bool(self.include_groups or self.exclude_groups or self.include_ous or self.exclude_ous)


class KeysSettings(Section):
    """Key files."""

    directory: Path = DEFAULT_DIRECTORY / "keys"
    """`*.pub.json` of every key this host knows, `*.key` of its own."""
    passphrase_file: Path | None = None
    """File (mode 0600, or a credential of systemd or the container) with the passphrase of encrypted `*.key` files."""


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


class ConsumerTableSettings(Section):
    """The consumer process."""

    workers: Annotated[int, Field(ge=1, le=64)] = 4
    """Threads, each with one connection to IdM."""
    prefetch: Annotated[int, Field(ge=1, le=2000)] | None = None
    """Events held at once; default four per worker."""
    brake: Annotated[int, Field(ge=2, le=10_000)] = 20
    """So many dead letters of one reason in a row, over different accounts, stop this consumer."""

    @property
    def held(self) -> int:
        """The effective prefetch."""
        return self.prefetch or 4 * self.workers


class MetricsSettings(Section):
    """Prometheus metrics."""

    listen: Annotated[str, AfterValidator(listen_address)] | None = None
    """ADDRESS:PORT of the metrics page; port 0 takes a free one and logs it; unset: no page."""


class LogSettings(Section):
    """The log: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""


class RoleSettings(BaseSettings):
    """What every role has."""

    model_config = SettingsConfigDict(
        env_prefix="PASSRELAY_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    broker: BrokerSettings
    keys: KeysSettings = KeysSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; nothing else is read."""
        return env_settings, init_settings


class ProducerSettings(RoleSettings):
    """producer.toml."""

    source: SourceSettings
    filter: FilterSettings = FilterSettings()
    spool: SpoolSettings = SpoolSettings()
    metrics: MetricsSettings = MetricsSettings()
    domain: Domains = ()

    @model_validator(mode="after")
    def _order_of_the_source(self) -> Self:
        for domain in self.domain:
            if self.source.stdin is None and domain.order is Order.TIME:
                source = "samba" if self.source.samba is not None else "hook"
                raise ValueError(
                    f"[[domain]] {domain.name}: [source.{source}] has versions, so its domain is never ordered by "
                    "time: remove order here and on the consumers"
                )
        return self

    @model_validator(mode="after")
    def _filter_of_the_source(self) -> Self:
        if self.source.stdin is not None and self.filter.needs_directory:
            raise ValueError(
                "[filter] takes exclude_patterns only with [source.stdin], which knows no groups and no OUs: remove "
                "include_groups, exclude_groups, include_ous and exclude_ous"
            )
        return self


class ConsumerSettings(RoleSettings):
    """consumer.toml."""

    idm: IdmSettings
    domain: Annotated[Domains, Field(min_length=1)]
    consumer: ConsumerTableSettings = ConsumerTableSettings()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _domains(self) -> Self:
        for domain in self.domain:
            if not domain.producers:
                raise ValueError(f"[[domain]] {domain.name}: producers is empty, so nobody may speak for it: list them")
            if not domain.search_base:
                raise ValueError(f"[[domain]] {domain.name}: search_base is needed: cn=users,cn=accounts,<suffix>")
        return self


class OpsSettings(RoleSettings):
    """ops.toml."""

    idm: IdmSettings | None = None
    domain: Domains = ()
    metrics: MetricsSettings = MetricsSettings()


ROLES: dict[str, type[RoleSettings]] = {
    "producer": ProducerSettings,
    "consumer": ConsumerSettings,
    "ops": OpsSettings,
}
"""Every role and its settings."""
