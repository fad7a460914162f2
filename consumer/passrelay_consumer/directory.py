"""One connection to one IdM server: find, write, finish, probe."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import ldap3
from ldap3.core.exceptions import LDAPException

from passrelay_consumer import ldap_messages
from passrelay_consumer.connection import brief, connect_bound
from passrelay_consumer.decide import Entry
from passrelay_consumer.ldap_messages import EVERY_ENTRY, Answer, Changes, Kind, Scope, UndecodableError
from passrelay_consumer.protection import out_of_use
from passrelay_consumer.result_codes import DirectoryError, Trouble
from passrelay_consumer.search_filter import filter_template
from passrelay_consumer.shared_connection import NotSentError, SharedConnection
from passrelay_schemas.distinguished_name import folded
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import MarkerError
from passrelay_schemas.event import Account
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.marker import Marker
from passrelay_schemas.secret import Secret

MARKER_CLASS = "passrelayAccount"
"""Our auxiliary object class (ops/idm/schema.ldif); not needed when another attribute serves as marker."""

PLUGIN_DN = "cn=ipa_pwd_extop,cn=plugins,cn=config"
"""IPA's password plugin and its list of managers; a plain 389 Directory Server has no such entry."""
MANAGERS = "passSyncManagersDNs"
"""Who sets passwords there that do not expire at once. Not replicated, and compared as text (measured)."""

_STAMP = "modifyTimestamp"
"""When an entry was written last, by the clock of the server that wrote it (RFC 4512 3.4.4); whole seconds."""
_RESOLUTION = timedelta(seconds=1)

_MOST_FOUND = 8
"""More than one is ambiguous; the others may be a user's staged, preserved and compat entries."""


def generalized_time(moment: datetime) -> bytes:
    """GeneralizedTime in UTC with seconds (RFC 4517 3.3.13)."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode("ascii")


def parse_generalized_time(raw: bytes) -> datetime | None:
    """The time in an attribute value; None when it is not `YYYYmmddHHMMSSZ`."""
    if len(raw) != 15 or raw[14:] != b"Z" or not raw[:14].isdigit():
        return None
    month, day, hour, minute, second = (int(raw[at : at + 2]) for at in range(4, 14, 2))
    try:  # strptime takes five times as long
        return datetime(int(raw[:4]), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def clock_offset(stamp: datetime, *, before: datetime, after: datetime) -> timedelta:
    """How far a server's clock is ahead of ours, from the stamp of a write that it made between `before` and `after`.

    A stamp of whole seconds and a call that took a while give a range. Zero where zero is in it; else its lower end,
    so that our clock and the offset together are never ahead of the server's clock.
    """
    least, most = stamp - after, stamp - before + _RESOLUTION
    return timedelta() if least <= timedelta() <= most else least


def write_changes(
    *,
    password: Secret,
    new: Marker,
    entry: Entry,
    idm: IdmSettings,
    unlock_at: datetime | None,
) -> Changes:
    """Step 9 as one modify: password, marker and proof together, so that a stale one (16) leaves the password alone."""
    changes: Changes = {"userPassword": [(ldap3.MODIFY_REPLACE, [password.reveal().encode("utf-8")])]}
    changes[idm.marker_attribute] = _replace_exactly(entry.marker, new)
    if idm.proof is not None:
        changes[idm.proof] = _replace_exactly(entry.proof, new)
    if idm.needs_class and MARKER_CLASS.lower() not in entry.object_classes:
        changes["objectClass"] = [(ldap3.MODIFY_ADD, [MARKER_CLASS.encode()])]
    if unlock_at is not None and entry.kerberos:
        changes["krbLastAdminUnlock"] = [(ldap3.MODIFY_REPLACE, [generalized_time(unlock_at)])]
    return changes


def finish_changes(*, old: Marker, new: Marker, attribute: str, expired_at: datetime) -> Changes:
    """Step 10 as one modify: the expired password and the marker's flag together."""
    return {
        "krbPasswordExpiration": [(ldap3.MODIFY_REPLACE, [generalized_time(expired_at)])],
        attribute: _replace_exactly(old, new),
    }


def unexpire_changes(*, marker: Marker, attribute: str, expires_at: datetime | None) -> Changes:
    """Give a password its life back that a server expired with our own write, while that write is what it shows."""
    values = [] if expires_at is None else [generalized_time(expires_at)]
    return {
        "krbPasswordExpiration": [(ldap3.MODIFY_REPLACE, values)],
        attribute: _replace_exactly(marker, marker),
    }


def _replace_exactly(old: Marker | None, new: Marker) -> list[tuple[str, list[bytes]]]:
    added = (ldap3.MODIFY_ADD, [str(new).encode("ascii")])
    return [added] if old is None else [(ldap3.MODIFY_DELETE, [str(old).encode("ascii")]), added]


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found. `check` is the first thing that failed: connect, bind, write or expiry."""

    check: str | None
    detail: str = ""
    repair: str = ""
    expires_passwords: bool = False
    """The server has IPA's password plugin: each write must be looked at afterwards."""
    life: timedelta | None = None
    """How long a password lasts there; None for ever, or when the probe did not get that far."""
    clock_offset: timedelta | None = None
    """How far the server's clock is ahead of this host's; None when the probe did not get that far."""

    @property
    def ok(self) -> bool:
        """The server may take writes."""
        return self.check is None


class Directory:
    """A lazily opened connection as the service account. Safe for any number of threads, which share it."""

    def __init__(self, url: str, settings: IdmSettings) -> None:
        self.url = url
        self._settings = settings
        self._opening = threading.Lock()
        self._connection: SharedConnection | None = None
        self._tried = 0
        self._failed: DirectoryError | None = None
        """Why the last try to open it was in vain."""

    def close(self) -> None:
        """Drop the connection, if there is one; what other threads have asked it is still answered."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def find(self, account: Account, domain: DomainSettings) -> list[Entry]:
        """Entries of users below the domain's search base that the match filter hits; a few at most are read."""
        try:
            search_filter = filter_template(domain.match).fill(account)
        except LDAPException as error:
            raise DirectoryError(None, brief(error)) from None
        results = self._search(
            domain.search_base or "", search_filter, Scope.SUBTREE, self._attributes, most=_MOST_FOUND
        )
        return [self._entry(dn, attributes) for dn, attributes in results if not out_of_use(dn)]

    def read(self, dn: str) -> Entry | None:
        """One entry by its DN."""
        results = self._search(dn, EVERY_ENTRY, Scope.BASE, self._attributes, most=1)
        return self._entry(*results[0]) if results else None

    def modify(self, dn: str, changes: Changes) -> None:
        """One modify operation; DirectoryError carries the server's result."""
        self._ask(ldap_messages.modify(dn, changes))

    def lists_us(self) -> bool | None:
        """Whether IPA's plugin takes us for a manager at this moment; None where we may not see its list."""
        try:
            found = self._search(PLUGIN_DN, EVERY_ENTRY, Scope.BASE, (MANAGERS,), most=1)
        except DirectoryError as error:
            if error.trouble is Trouble.MISSING:
                return None
            raise
        if not found:
            return None
        listed = [value for name, values in found[0][1].items() if name.lower() == MANAGERS.lower() for value in values]
        return folded(self._settings.bind_dn) in {value.decode("utf-8", "replace").casefold() for value in listed}

    def probe(self, password: Secret) -> ProbeResult:
        """Set `password` (random) on the disabled probe entry and look whether it was expired at once."""
        entry = self._settings.probe_entry(self.url)
        try:
            self._open()
        except DirectoryError as error:
            bind = error.code is not None
            return ProbeResult(
                "bind" if bind else "connect",
                str(error),
                f"check [idm] bind_dn and password_file for {self.url}" if bind else f"start or reach {self.url}",
            )
        try:
            value = password.reveal().encode("utf-8")
            before = utc_now()
            self.modify(entry, {"userPassword": [(ldap3.MODIFY_REPLACE, [value])]})
            after = utc_now()
            state, stamp = self._read_probe(entry)
        except DirectoryError as error:
            if error.code is None:
                return ProbeResult("connect", str(error), f"start or reach {self.url}")
            repair = f"let the service account write {entry} on {self.url}: `passrelay idm setup`"
            return ProbeResult("write", str(error), repair)
        offset = None if stamp is None else clock_offset(stamp, before=before, after=after)
        if state is not None and _expired(state, stamp or after):
            return ProbeResult(
                "expiry",
                "the server expires every password that we set",
                f"`passrelay idm managers add --yes`: {self._settings.bind_dn} belongs to passSyncManagersDNs of "
                f"cn=ipa_pwd_extop,cn=plugins,cn=config on {self.url}",
                expires_passwords=True,
                clock_offset=offset,
            )
        # Not the expiration: where passwords never expire (krbMaxPwdLife 0) the plugin sets none.
        expires = state is not None and state.last_change is not None
        life = None if state is None else state.life
        return ProbeResult(None, expires_passwords=expires, life=life, clock_offset=offset)

    def _read_probe(self, dn: str) -> tuple[Entry | None, datetime | None]:
        """The probe entry and when the server says that it was written."""
        found = self._search(dn, EVERY_ENTRY, Scope.BASE, (*self._attributes, _STAMP), most=1)
        if not found:
            return None, None
        dn, attributes = found[0]
        stamps = next((values for name, values in attributes.items() if name.lower() == _STAMP.lower()), [])
        return self._entry(dn, attributes), parse_generalized_time(stamps[0]) if stamps else None

    @property
    def _attributes(self) -> tuple[str, ...]:
        marker = self._settings.marker_attribute
        proof = [self._settings.proof] if self._settings.proof else []
        return (
            "objectClass",
            "memberOf",
            marker,
            *proof,
            "krbPrincipalName",
            "createTimestamp",
            "krbLastPwdChange",
            "krbPasswordExpiration",
        )

    def _entry(self, dn: str, attributes: Mapping[str, Sequence[bytes]]) -> Entry:
        folded = {name.lower(): values for name, values in attributes.items()}
        last, expiration = folded.get("krblastpwdchange"), folded.get("krbpasswordexpiration")
        created = folded.get("createtimestamp")
        raw_marker = folded.get(self._settings.marker_attribute.lower())
        raw_proof = folded.get(self._settings.proof.lower()) if self._settings.proof else None
        marker = _marker(raw_marker)
        return Entry(
            dn=dn,
            marker=marker,
            proof=marker if raw_proof == raw_marker else _marker(raw_proof),
            object_classes=frozenset(
                value.decode("ascii", "replace").lower() for value in folded.get("objectclass", ())
            ),
            principal="krbprincipalname" in folded,
            created_at=parse_generalized_time(created[0]) if created else None,
            last_change=parse_generalized_time(last[0]) if last else None,
            expiration=parse_generalized_time(expiration[0]) if expiration else None,
            groups=frozenset(value.decode("utf-8", "replace").lower() for value in folded.get("memberof", ())),
        )

    def _search(
        self, base: str, search_filter: bytes, scope: Scope, attributes: tuple[str, ...], *, most: int
    ) -> list[tuple[str, dict[str, list[bytes]]]]:
        # 4 sizeLimitExceeded: there are more than we asked for, which the caller sees from the count.
        request = ldap_messages.search(base, scope, search_filter, attributes, most=most)
        answers = self._ask(request, also_good=frozenset({4}))
        try:
            return [ldap_messages.entry(answer) for answer in answers if answer.kind == Kind.ENTRY]
        except UndecodableError as error:
            self.close()
            raise DirectoryError(None, brief(error)) from None

    def _ask(self, operation: bytes, also_good: frozenset[int] = frozenset()) -> list[Answer]:
        try:
            answers = self._open().ask(operation)
        except NotSentError:
            # Another thread left the connection just now: this is no lost answer, of which one would have to be afraid.
            answers = self._open().ask(operation)
        try:
            found = ldap_messages.result(answers[-1])
        except UndecodableError as error:
            self.close()
            raise DirectoryError(None, brief(error)) from None
        if found.code and found.code not in also_good:
            raise DirectoryError(found.code, found.words)
        return answers

    def _open(self) -> SharedConnection:
        """The connection; whoever waits for another thread that opens it gets that one's failure too."""
        connection, tried = self._connection, self._tried
        if connection is not None and connection.usable:
            return connection
        with self._opening:
            if self._failed is not None and self._tried != tried:
                raise DirectoryError(self._failed.code, self._failed.text)
            connection = self._connection  # close() of another thread may take it away at any time
            if connection is None or not connection.usable:
                try:
                    opened = connect_bound(self.url, self._settings)
                    connection = SharedConnection(opened.socket, self._settings.timeout_seconds)
                    self._connection, self._failed = connection, None
                except DirectoryError as error:
                    # Not `error` itself: its traceback holds every caller's frame, the event and its password too.
                    self._failed = DirectoryError(error.code, error.text)
                    raise
                finally:
                    self._tried += 1
            return connection


def _marker(values: Sequence[bytes] | None) -> Marker | None:
    if not values:
        return None
    if len(values) > 1:
        raise MarkerError("more than one value: the marker attribute must be single-valued")
    return Marker.parse(values[0].decode("utf-8", "replace"))


def _expired(entry: Entry, written_at: datetime) -> bool:
    return entry.expired_at_once or (entry.expiration is not None and entry.expiration <= written_at)
