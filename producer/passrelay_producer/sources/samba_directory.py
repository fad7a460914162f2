"""The domain controller's database through Samba's private LDAP socket: DirSync pages, and one account in one search.

The socket gives the rights of the system itself as long as nobody binds; it alone returns the secret attributes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID

import ldap3
from ldap3.core.exceptions import (
    LDAPException,
    LDAPNoSuchObjectResult,
    LDAPOperationResult,
)
from ldap3.protocol.microsoft import dir_sync_control
from ldap3.utils.conv import escape_bytes, escape_filter_chars
from ldap3.utils.dn import parse_dn

from passrelay_producer.metadata import last_write
from passrelay_producer.sources.samba_account import (
    ALL_GROUPS,
    EXTENDED_DN,
    IDENTITY,
    LISTED,
    SECRET,
    Found,
    GroupsError,
    Listed,
    Reading,
    UnreadableError,
    found,
    listed,
    reading,
    token_groups,
)
from passrelay_schemas.errors import UnavailableError

_TIMEOUT_SECONDS = 300
"""A first DirSync lists every user at once (measured: 2,000 in 0.2 s) and answers nothing before."""
_CONNECT_SECONDS = 10
CROWDED_SECONDS = 0.025
"""highestCommittedUSN takes 1 to 3 ms of an LDAP process that has nothing else to do (measured)."""
_USERS = "(&(objectClass=user)(!(objectClass=computer)))"
_WATCHED = ["unicodePwd", "pwdLastSet"]
_DIRSYNC = "1.2.840.113556.1.4.841"
_PAGED = "1.2.840.113556.1.4.319"
_IN_CHAIN = "1.2.840.113556.1.4.1941"
"""Follows a link to its end, through circles too ([MS-ADTS] 3.1.1.3.1.3.3.3)."""
_SHOW_DELETED = ("1.2.840.113556.1.4.417", True, None)
_DIRSYNC_BYTES = 1_000_000
_SEARCH_PAGE = 500


@dataclass(frozen=True)
class Change:
    """An object that DirSync reports; `password` tells a new unicodePwd from a tick of pwdLastSet alone."""

    guid: UUID
    password: bool


@dataclass(frozen=True)
class Changes:
    """One answer of DirSync ([MS-ADTS] 3.1.1.3.4.1.3)."""

    items: Sequence[Change]
    cookie: bytes
    more: bool


class SambaDirectory:
    """One connection. Every method raises UnavailableError when the controller does not answer as it should."""

    repair = "is samba running, and is this process root?"
    """The end of a message about a controller that does not answer."""
    attributes: Sequence[str] = SECRET
    """What is read of an account."""

    def __init__(self, path: Path) -> None:
        self._where = str(path)
        self._connection = _connection(path)
        self._path = path
        self.base_dn = ""
        self.domain = ""
        self.controller: str | None = None
        """Its dnsHostName."""
        self.invocation_id = UUID(int=0)
        self.crowded = False
        """The last `highest_usn` had to wait: whoever answers this connection is busy with others."""

    def __enter__(self) -> Self:
        """Open the socket and learn which domain and which database this is."""
        try:
            with self._explained("open"):
                self._open()
            root = self._base("", ["defaultNamingContext", "dsServiceName", "dnsHostName"])
            with self._explained("read rootDSE"):
                self.base_dn = root["defaultNamingContext"][0].decode()
                self.domain = ".".join(value for _, value, _ in parse_dn(self.base_dn)).lower()
                self.controller = next((name.decode() for name in root.get("dnsHostName", [])), None)
                settings = self._base(root["dsServiceName"][0].decode(), ["invocationId"])
                self.invocation_id = UUID(bytes_le=settings["invocationId"][0])
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        # Never ldap3's own `with connection`: it binds anonymously, and then the secrets are gone.
        self._connection.open(read_server_info=False)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, also one that could not be opened (ldap3 forgets it)."""
        _close(self._connection)

    def move(self) -> None:
        """Go on over another connection, which is taken by an LDAP process of the controller that is free now.

        Samba has a few of them (`prefork children`), each of which answers its connections in turns: beside a client
        that changes one password after the other every question waits for a whole change. The old connection must
        stand until there is the new one, so that nobody can have restored the controller in between.
        """
        old, new = self._connection, _connection(self._path)
        try:
            new.open(read_server_info=False)  # no `with`, see `_open`
        except (LDAPException, OSError):  # nobody has room: the old one still serves
            _close(new)
            return
        self._connection = new
        try:
            with self._explained("open"):
                _check_open(old.socket)
        finally:
            _close(old)
        self.crowded = False

    def highest_usn(self) -> int:
        """highestCommittedUSN: moves with every commit on this controller, and costs next to nothing to ask."""
        asked = time.monotonic()
        values = self._base("", ["highestCommittedUSN"])
        self.crowded = time.monotonic() - asked > CROWDED_SECONDS
        with self._explained("read rootDSE"):
            return int(values["highestCommittedUSN"][0])

    def changes(self, cookie: bytes) -> Changes:
        """What changed in users' passwords since the cookie; all users for an empty one."""
        control = dir_sync_control(True, False, False, False, False, _DIRSYNC_BYTES, cookie)  # noqa: FBT003
        entries, answer = self._search(self.base_dn, _USERS, _WATCHED, [control])
        with self._explained("DirSync"):
            items = [Change(_guid(entry), bool(entry["raw_attributes"].get("unicodePwd"))) for entry in entries]
            value = answer["controls"][_DIRSYNC]["value"]
            return Changes(items, value["cookie"], bool(value["more_results"]))

    def read(self, guid: UUID) -> Reading | None:
        """The account, or None when it no longer exists. UnreadableError concerns this account alone."""
        return self._reading(f"<GUID={guid}>")

    def read_sid(self, sid: str) -> Reading | None:
        """The same, by the account's SID."""
        return self._reading(f"<SID={sid}>")

    def _reading(self, dn: str) -> Reading | None:
        attributes = list(self.attributes)
        with self._explained(f"read {dn} with {ALL_GROUPS}"):
            try:
                found = self._looked_up(dn, [*attributes, ALL_GROUPS], [EXTENDED_DN])
            except LDAPOperationResult:  # groups that nobody can tell: `token_groups` says so of this account alone
                if hasattr(self._connection.strategy, "_auto_range_searching"):
                    raise  # in the middle of a long memberOf: ldap3 would not follow another one on this connection
                found = self._looked_up(dn, attributes, [EXTENDED_DN])
        return None if found is None else reading(found)

    def token_groups(self, guid: UUID) -> frozenset[str]:
        """SIDs of every security group that the account is in: itself, through others, and by its primary group.

        GroupsError concerns this account alone.
        """
        with self._explained(f"read {ALL_GROUPS}"):
            try:
                self._connection.search(f"<GUID={guid}>", "(objectClass=*)", ldap3.BASE, attributes=[ALL_GROUPS])
            except LDAPOperationResult as error:
                raise GroupsError(f"{error.description}: {error.message}") from None
            entries = [item for item in self._connection.response or [] if item["type"] == "searchResEntry"]
            if not entries:
                raise GroupsError("the account is gone, or may not be seen")
            return token_groups(entries[0])

    def accounts(self, guids: Sequence[UUID] | None = None) -> Iterator[tuple[UUID, Listed | None]]:
        """All users, or these accounts as far as they exist, without secrets; None for one that nobody can read."""
        which = _USERS
        if guids is not None:
            which = f"(|{''.join(f'(objectGUID={escape_bytes(guid.bytes_le)})' for guid in guids)})"
        for entry in self._paged(which, LISTED, [EXTENDED_DN]):
            with self._explained("search"):
                guid = _guid(entry)
            try:
                yield guid, listed(entry)
            except UnreadableError:
                yield guid, None

    def find(self, classes: str, attributes: str, name: str) -> list[Found]:
        """The objects of these classes that have `name` as one of the attributes; both space-separated."""
        name = escape_filter_chars(name)
        return self._found(f"(&{_any(classes)}(|{''.join(f'({item}={name})' for item in attributes.split())}))")

    def nested(self, group: Found) -> list[Found]:
        """The groups that are members of this one, directly or through others."""
        return self._found(f"(&(objectClass=group)(memberOf:{_IN_CHAIN}:={escape_filter_chars(group.dn)}))")

    def changed(self, classes: str, since: int) -> list[Found]:
        """The objects of these classes that were changed under this local USN or a later one; also deleted ones."""
        return self._found(f"(&(uSNChanged>={since}){_any(classes)})", [_SHOW_DELETED])

    def _found(self, search_filter: str, controls: Sequence[Any] = ()) -> list[Found]:
        entries = self._paged(search_filter, IDENTITY, [*controls, EXTENDED_DN])
        with self._explained("search"):
            return [found(entry) for entry in entries]

    def users(self, sam_account_name: str | None) -> Iterator[UUID]:
        """The GUIDs of one user or of all."""
        name = "*" if sam_account_name is None else escape_filter_chars(sam_account_name)
        for entry in self._paged(f"(&{_USERS}(sAMAccountName={name}))", ["objectGUID"], None):
            with self._explained("search"):
                guid = _guid(entry)
            yield guid

    def writes(self, since: int) -> dict[UUID, int | None]:
        """Accounts changed since this USN: the local USN of the last password write or must-change tick of each.

        None for deleted accounts, those without a password, and those whose metadata nobody can read.
        """
        attributes = ["objectGUID", "isDeleted", "replPropertyMetaData"]
        found = self._paged(f"(&{_USERS}(uSNChanged>={since}))", attributes, [_SHOW_DELETED])
        with self._explained("search"):
            return {
                _guid(entry): None
                if entry["raw_attributes"].get("isDeleted")
                else last_write(entry["raw_attributes"]["replPropertyMetaData"][0])
                for entry in found
            }

    def _base(self, dn: str, attributes: list[str]) -> dict[str, list[bytes]]:
        found = self._entry(dn, attributes)
        if found is None:
            raise UnavailableError(f"{self._where}: nothing at {dn or 'rootDSE'}: is this a domain controller?")
        values: dict[str, list[bytes]] = found["raw_attributes"]
        return values

    def _entry(self, dn: str, attributes: list[str], controls: list[Any] | None = None) -> dict[str, Any] | None:
        with self._explained(f"read {dn or 'rootDSE'}"):
            return self._looked_up(dn, attributes, controls)

    def _looked_up(self, dn: str, attributes: list[str], controls: list[Any] | None) -> dict[str, Any] | None:
        try:
            self._connection.search(dn, "(objectClass=*)", ldap3.BASE, attributes=attributes, controls=controls)
        except LDAPNoSuchObjectResult:
            return None
        return next((item for item in self._connection.response or [] if item["type"] == "searchResEntry"), None)

    def _paged(self, search_filter: str, attributes: list[str], controls: list[Any] | None) -> Iterator[dict[str, Any]]:
        cookie: bytes | None = b""
        while cookie is not None:
            entries, answer = self._search(self.base_dn, search_filter, attributes, controls, _SEARCH_PAGE, cookie)
            yield from entries
            cookie = answer.get("controls", {}).get(_PAGED, {}).get("value", {}).get("cookie") or None

    def _search(
        self,
        base: str,
        search_filter: str,
        attributes: list[str],
        controls: list[Any] | None,
        size: int | None = None,
        cookie: bytes | None = None,
    ) -> tuple[list[Any], dict[str, Any]]:
        with self._explained("search"):
            self._connection.search(
                base,
                search_filter,
                ldap3.SUBTREE,
                attributes=attributes,
                controls=controls,
                paged_size=size,
                paged_cookie=cookie,
            )
            entries = [item for item in self._connection.response or [] if item["type"] == "searchResEntry"]
            return entries, dict(self._connection.result or {})

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (LDAPException, OSError) as error:
            raise UnavailableError(f"{self._where}: {what}: {type(error).__name__}: {error}: {self.repair}") from None
        except (KeyError, IndexError, ValueError, struct.error) as error:
            raise UnavailableError(f"{self._where}: {what}: unexpected answer ({type(error).__name__})") from None


def _connection(path: Path) -> ldap3.Connection:
    # Without a limit a connect to a socket whose backlog is full waits for ever, and `stop` is not seen.
    server = ldap3.Server(f"ldapi://{quote(str(path), safe='')}", get_info=ldap3.NONE, connect_timeout=_CONNECT_SECONDS)
    return ldap3.Connection(server, receive_timeout=_TIMEOUT_SECONDS, raise_exceptions=True)


def _close(connection: ldap3.Connection) -> None:
    with contextlib.suppress(LDAPException, OSError):
        connection.unbind()
    if connection.socket is not None:
        connection.socket.close()


def _check_open(stream: socket.socket) -> None:
    """ConnectionError when the other end has closed it."""
    stream.settimeout(0)
    try:
        stream.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return
    raise ConnectionError("closed by the server")  # or a notice that it will be: nothing else was asked


def _guid(entry: Mapping[str, Any]) -> UUID:
    return UUID(bytes_le=entry["raw_attributes"]["objectGUID"][0])


def _any(classes: str) -> str:
    return f"(|{''.join(f'(objectClass={name})' for name in classes.split())})"
