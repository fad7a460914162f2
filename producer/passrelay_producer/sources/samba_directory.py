"""The domain controller's database through Samba's private LDAP socket: DirSync pages, and one account in one search.

The socket gives the rights of the system itself as long as nobody binds; it alone returns the secret attributes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID

import ldap3
from ldap3.core.exceptions import LDAPException, LDAPNoSuchObjectResult
from ldap3.protocol.microsoft import dir_sync_control
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from passrelay_producer.metadata import last_write
from passrelay_schemas.errors import UnavailableError

_TIMEOUT_SECONDS = 300
"""A first DirSync lists every user at once (measured: 2,000 in 0.2 s) and answers nothing before."""
_USERS = "(&(objectClass=user)(!(objectClass=computer)))"
_WATCHED = ["unicodePwd", "pwdLastSet"]
_DIRSYNC = "1.2.840.113556.1.4.841"
_PAGED = "1.2.840.113556.1.4.319"
_SHOW_DELETED = ("1.2.840.113556.1.4.417", True, None)
_DIRSYNC_BYTES = 1_000_000
_SEARCH_PAGE = 500
_ACCOUNT = [
    "objectGUID",
    "objectSid",
    "sAMAccountName",
    "userPrincipalName",
    "adminCount",
    "userAccountControl",
    "pwdLastSet",
    "unicodePwd",
    "supplementalCredentials",
    "replPropertyMetaData",
]


@dataclass(frozen=True)
class Reading:
    """One account as a single search returned it, so that password and version belong together."""

    guid: UUID
    sid: str | None
    sam_account_name: str
    user_principal_name: str | None
    admin_count: int
    user_account_control: int
    pwd_last_set: int
    unicode_pwd: bytes | None = field(repr=False)
    supplemental: bytes | None = field(repr=False)
    metadata: bytes = field(repr=False)


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


class UnreadableError(Exception):
    """One account's attributes have a form that nobody can read; the controller itself answers."""


class SambaDirectory:
    """One connection. Every method raises UnavailableError when the controller does not answer as it should."""

    def __init__(self, path: Path) -> None:
        self._path = path
        server = ldap3.Server(f"ldapi://{quote(str(path), safe='')}", get_info=ldap3.NONE)
        self._connection = ldap3.Connection(server, receive_timeout=_TIMEOUT_SECONDS, raise_exceptions=True)
        self.base_dn = ""
        self.domain = ""
        self.invocation_id = UUID(int=0)

    def __enter__(self) -> Self:
        """Open the socket and learn which domain and which database this is."""
        try:
            with self._explained("open"):
                # Never ldap3's own `with connection`: it binds anonymously, and then the secrets are gone.
                self._connection.open(read_server_info=False)
            root = self._base("", ["defaultNamingContext", "dsServiceName"])
            self.base_dn = root["defaultNamingContext"][0].decode()
            self.domain = ".".join(value for _, value, _ in parse_dn(self.base_dn)).lower()
            settings = self._base(root["dsServiceName"][0].decode(), ["invocationId"])
            self.invocation_id = UUID(bytes_le=settings["invocationId"][0])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, also one that could not be opened (ldap3 forgets it)."""
        with contextlib.suppress(LDAPException, OSError):
            self._connection.unbind()
        if self._connection.socket is not None:
            self._connection.socket.close()

    def highest_usn(self) -> int:
        """highestCommittedUSN: moves with every commit on this controller, and costs next to nothing to ask."""
        return int(self._base("", ["highestCommittedUSN"])["highestCommittedUSN"][0])

    def changes(self, cookie: bytes) -> Changes:
        """What changed in users' passwords since the cookie; all users for an empty one."""
        control = dir_sync_control(True, False, False, False, False, _DIRSYNC_BYTES, cookie)  # noqa: FBT003
        items: list[Change] = []
        entries, answer = self._search(self.base_dn, _USERS, _WATCHED, [control])
        for entry in entries:
            values = entry["raw_attributes"]
            items.append(Change(UUID(bytes_le=values["objectGUID"][0]), bool(values.get("unicodePwd"))))
        value = answer["controls"][_DIRSYNC]["value"]
        return Changes(items, value["cookie"], bool(value["more_results"]))

    def read(self, guid: UUID) -> Reading | None:
        """The account, or None when it no longer exists. UnreadableError concerns this account alone."""
        values = self._entry(f"<GUID={guid}>", _ACCOUNT)
        if values is None:
            return None
        try:
            return Reading(
                guid=guid,
                sid=_sid_text(values["objectSid"][0]) if values["objectSid"] else None,
                sam_account_name=_text(values["sAMAccountName"]) or "",
                user_principal_name=_text(values["userPrincipalName"]),
                admin_count=_number(values["adminCount"]),
                user_account_control=_number(values["userAccountControl"]),
                pwd_last_set=_number(values["pwdLastSet"]),
                unicode_pwd=next(iter(values["unicodePwd"]), None),
                supplemental=next(iter(values["supplementalCredentials"]), None),
                metadata=next(iter(values["replPropertyMetaData"]), b""),
            )
        except (KeyError, IndexError, ValueError, struct.error) as error:
            raise UnreadableError(f"{self._path}: account {guid}: {type(error).__name__}") from None

    def users(self, sam_account_name: str | None) -> Iterator[UUID]:
        """The GUIDs of one user or of all."""
        name = "*" if sam_account_name is None else escape_filter_chars(sam_account_name)
        for values in self._paged(f"(&{_USERS}(sAMAccountName={name}))", ["objectGUID"], None):
            yield UUID(bytes_le=values["objectGUID"][0])

    def writes(self, since: int) -> dict[UUID, int | None]:
        """Accounts changed since this USN: the local USN of the last password write or must-change tick of each.

        None for deleted accounts, those without a password, and those whose metadata nobody can read.
        """
        attributes = ["objectGUID", "isDeleted", "replPropertyMetaData"]
        return {
            UUID(bytes_le=values["objectGUID"][0]): None
            if values.get("isDeleted")
            else last_write(values["replPropertyMetaData"][0])
            for values in self._paged(f"(&{_USERS}(uSNChanged>={since}))", attributes, [_SHOW_DELETED])
        }

    def _base(self, dn: str, attributes: list[str]) -> dict[str, list[bytes]]:
        found = self._entry(dn, attributes)
        if found is None:
            raise UnavailableError(f"{self._path}: nothing at {dn or 'rootDSE'}: is this a domain controller?")
        return found

    def _entry(self, dn: str, attributes: list[str]) -> dict[str, list[bytes]] | None:
        with self._explained(f"read {dn or 'rootDSE'}"):
            try:
                self._connection.search(dn, "(objectClass=*)", ldap3.BASE, attributes=attributes)
            except LDAPNoSuchObjectResult:
                return None
            for item in self._connection.response or []:
                if item["type"] == "searchResEntry":
                    found: dict[str, list[bytes]] = {name: [] for name in attributes}
                    found.update((name, values or []) for name, values in item["raw_attributes"].items())
                    return found
        return None

    def _paged(
        self, search_filter: str, attributes: list[str], controls: list[Any] | None
    ) -> Iterator[dict[str, list[bytes]]]:
        cookie: bytes | None = b""
        while cookie is not None:
            entries, answer = self._search(self.base_dn, search_filter, attributes, controls, _SEARCH_PAGE, cookie)
            for entry in entries:
                yield entry["raw_attributes"]
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
            raise UnavailableError(
                f"{self._path}: {what}: {type(error).__name__}: {error}: is samba running, and is this process root?"
            ) from None
        except (KeyError, IndexError, ValueError, struct.error) as error:
            raise UnavailableError(f"{self._path}: {what}: unexpected answer ({type(error).__name__})") from None


def _text(values: Sequence[bytes]) -> str | None:
    # What is not UTF-8 becomes lone surrogates, which no event takes: that account waits, the others go on.
    return values[0].decode("utf-8", "surrogateescape") if values else None


def _number(values: Sequence[bytes]) -> int:
    return int(values[0]) if values else 0


def _sid_text(sid: bytes) -> str:
    """A binary SID as S-1-... ([MS-DTYP] 2.4.2.1)."""
    authority = int.from_bytes(sid[2:8], "big")
    return "-".join(map(str, ("S", sid[0], authority, *struct.unpack(f"<{sid[1]}I", sid[8:]))))
