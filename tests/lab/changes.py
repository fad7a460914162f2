"""Users of a lab's domain controller and four real ways to change a password: none on a command line."""

from __future__ import annotations

import ssl
import struct
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

import ldap3
from ldap3.core.exceptions import LDAPException, LDAPOperationResult
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from tests.lab.directory_connection import PinnedTls
from tests.lab.process import LabError, run_tool

LDAPS_PORT = 636
_TIMEOUT_SECONDS = 30


class ChangeRefusedError(LabError):
    """The domain controller answered a request with an LDAP result other than success, kept in `result`."""

    def __init__(self, message: str, result: int) -> None:
        super().__init__(message)
        self.result = result


class AccountState(TypedDict):
    """What the controller holds now: kvno is the version of unicodePwd, pwdLastSet a FILETIME."""

    dn: str
    guid: str
    sid: str
    kvno: int
    pwdLastSet: int


class Accounts:
    """Makes and changes accounts on one running controller; safe to use from several threads."""

    def __init__(
        self,
        *,
        name: str,
        address: str,
        realm: str,
        domain: str,
        ca_file: Path,
        folder: Path,
        kdcs: list[str],
    ) -> None:
        self.name = name
        self.address = address
        self.realm = realm
        self.domain = domain
        self.dns_domain = realm.lower()
        self.base_dn = ",".join(f"DC={label}" for label in self.dns_domain.split("."))
        self.ca_file = ca_file
        self.ldapi_path = folder / "private" / "ldap_priv" / "ldapi"
        self.smb_conf = folder / "smb.conf"
        self.krb5_conf = folder / "krb5.conf"
        self.administrator_password = ""
        self.env: dict[str, str] = {}
        self._kdcs = kdcs

    # -- reading

    @contextmanager
    def local_connection(self) -> Iterator[ldap3.Connection]:
        """An open connection on the private socket: the rights of the system itself, as long as nobody binds."""
        server = ldap3.Server(f"ldapi://{quote(str(self.ldapi_path), safe='')}", get_info=ldap3.NONE)
        connection = ldap3.Connection(server, receive_timeout=_TIMEOUT_SECONDS, raise_exceptions=True)
        # Not `with connection`: that binds anonymously, and from then on every write is refused (50).
        try:
            connection.open(read_server_info=False)
            yield connection
        finally:
            _close(connection)

    def account(self, sam: str) -> AccountState:
        """Read the account's identity, kvno and pwdLastSet; LabError when there is none."""
        with self.local_connection() as connection:
            connection.search(
                self.base_dn,
                f"(sAMAccountName={escape_filter_chars(sam)})",
                attributes=["objectGUID", "objectSid", "msDS-KeyVersionNumber", "pwdLastSet"],
            )
            entries = [item for item in connection.response or [] if item["type"] == "searchResEntry"]
        if len(entries) != 1:
            raise LabError(f"{self.name}: {len(entries)} accounts with the sAMAccountName {sam!r}, not one")
        values = entries[0]["raw_attributes"]
        return AccountState(
            dn=entries[0]["dn"],
            guid=str(uuid.UUID(bytes_le=values["objectGUID"][0])),
            sid=sid_text(values["objectSid"][0]),
            kvno=int(values["msDS-KeyVersionNumber"][0]),
            pwdLastSet=int(values["pwdLastSet"][0]),
        )

    # -- users

    def add_user(self, sam: str, password: str, **attributes: str) -> AccountState:
        """Create an enabled user under CN=Users; attributes are added to, or replace, the usual ones."""
        dn = f"CN={escape_rdn(sam)},CN=Users,{self.base_dn}"
        values: dict[str, Any] = {
            "sAMAccountName": sam,
            "userPrincipalName": f"{sam}@{self.dns_domain}",
            "userAccountControl": "512",
            **attributes,
            "unicodePwd": unicode_pwd(password),
        }
        self._as_administrator(f"add {sam}", "add", dn, ["user"], values)
        return self.account(sam)

    def delete_user(self, sam: str) -> None:
        """Delete the account; LabError when there is none."""
        self._as_administrator(f"delete {sam}", "delete", self.account(sam)["dn"])

    def modify_user(self, sam: str, **attributes: str) -> None:
        """Replace attributes that are not secret (pwdLastSet="0" demands a change at the next logon)."""
        changes = {name: [(ldap3.MODIFY_REPLACE, [value])] for name, value in attributes.items()}
        self._as_administrator(f"modify {sam}", "modify", self.account(sam)["dn"], changes)

    # -- the four ways

    def samba_tool_set(self, sam: str, new: str, *, must_change: bool = False) -> None:
        """Run `samba-tool user setpassword` on the database itself; must_change makes a second commit."""
        command = ["samba-tool", "user", "setpassword", sam, "-s", str(self.smb_conf)]
        if must_change:
            command.append("--must-change-at-next-login")
        run_tool(command, env=self.env, stdin=f"{new}\n{new}\n".encode(), timeout_seconds=_TIMEOUT_SECONDS)

    def ldaps_reset(self, sam: str, new: str, *, must_change: bool = False) -> None:
        """Replace unicodePwd as Administrator (MS-ADTS 3.1.1.3.1.5.1); must_change: pwdLastSet 0 with it."""
        changes: dict[str, Any] = {"unicodePwd": [(ldap3.MODIFY_REPLACE, [unicode_pwd(new)])]}
        if must_change:
            changes["pwdLastSet"] = [(ldap3.MODIFY_REPLACE, ["0"])]
        self._as_administrator(f"reset {sam}", "modify", self.account(sam)["dn"], changes)

    def ldaps_change(self, sam: str, old: str, new: str) -> None:
        """Bind as the user, delete the old and add the new unicodePwd; ChangeRefusedError when refused."""
        values = [(ldap3.MODIFY_DELETE, [unicode_pwd(old)]), (ldap3.MODIFY_ADD, [unicode_pwd(new)])]
        dn = self.account(sam)["dn"]
        try:
            with self._ldaps(sam, old) as connection:
                connection.modify(dn, {"unicodePwd": values})
        except LDAPException as error:
            raise _refusal(f"{self.name}: change {sam}", error) from None

    def kpasswd(self, sam: str, old: str, new: str) -> None:
        """Run MIT `kpasswd` (RFC 3244) against this controller; LabError quotes what it answered."""
        run_tool(
            ["kpasswd", f"{sam}@{self.realm}"],
            env=self.env,
            stdin=f"{old}\n{new}\n{new}\n".encode(),
            timeout_seconds=_TIMEOUT_SECONDS,
        )

    # -- connections

    def binds(self, sam: str, password: str) -> bool:
        """True when the controller accepts this password now; a failure counts for a lockout policy."""
        try:
            with self._ldaps(sam, password):
                return True
        except LDAPOperationResult:
            return False

    def write_krb5_conf(self) -> None:
        """A krb5.conf that names this lab's servers by address, so that nothing asks a DNS server."""
        kdcs = "\n".join(f"        kdc = {address}" for address in self._kdcs)
        self.krb5_conf.write_text(
            f"[libdefaults]\n    default_realm = {self.realm}\n    dns_lookup_kdc = false\n"
            "    dns_lookup_realm = false\n    dns_canonicalize_hostname = false\n    rdns = false\n"
            f"    udp_preference_limit = 1\n[realms]\n    {self.realm} = {{\n{kdcs}\n"
            f"        kpasswd_server = {self.address}\n    }}\n"
        )

    @contextmanager
    def _ldaps(self, sam: str, password: str) -> Iterator[ldap3.Connection]:
        tls = PinnedTls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(self.ca_file))
        server = ldap3.Server(
            self.address,
            port=LDAPS_PORT,
            use_ssl=True,
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=_TIMEOUT_SECONDS,
        )
        connection = ldap3.Connection(
            server,
            user=f"{self.domain}\\{sam}",
            password=password,
            receive_timeout=_TIMEOUT_SECONDS,
            raise_exceptions=True,
        )
        try:
            connection.bind(read_server_info=False)
            yield connection
        finally:
            _close(connection)

    def _as_administrator(self, what: str, operation: str, *arguments: Any) -> None:
        # A connection for each call: a kept one would have to be renewed after every stop and kill.
        try:
            with self._ldaps("Administrator", self.administrator_password) as connection:
                getattr(connection, operation)(*arguments)
        except LDAPException as error:
            raise _refusal(f"{self.name}: {what}", error) from None


def replace_values(connection: ldap3.Connection, dn: str, values: Mapping[str, str | bytes]) -> None:
    """One modify that replaces each attribute with one value; LDAPException when it is refused."""
    changes = {name: [(ldap3.MODIFY_REPLACE, [value])] for name, value in values.items()}
    connection.modify(dn, changes)


def sid_text(sid: bytes) -> str:
    """A binary SID as S-1-... (MS-DTYP 2.4.2)."""
    authority = int.from_bytes(sid[2:8], "big")
    parts = struct.unpack(f"<{sid[1]}I", sid[8:])
    return "-".join(map(str, ("S", sid[0], authority, *parts)))


def unicode_pwd(password: str) -> bytes:
    """The value that unicodePwd takes in a modify: quoted, UTF-16LE (MS-ADTS 3.1.1.3.1.5.1)."""
    return f'"{password}"'.encode("utf-16-le")


def _close(connection: ldap3.Connection) -> None:
    with suppress(LDAPException):  # the server may have gone away first
        connection.unbind()
    if connection.socket is not None:
        connection.socket.close()  # ldap3 forgets a socket that could not be opened


def _refusal(what: str, error: LDAPException) -> LabError:
    if isinstance(error, LDAPOperationResult):
        details: Mapping[str, Any] = vars(error)
        return ChangeRefusedError(f"{what}: {details['description']} {details['message']}", int(details["result"]))
    return LabError(f"{what}: {type(error).__name__}: {error}")
