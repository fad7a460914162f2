"""The Windows domain controller beside the hook, asked over TLS as an ordinary account: who is this RID, which version.

Nothing secret is asked for: the passwords are in the hook's records.
"""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Self
from urllib.parse import urlsplit

import ldap3
from ldap3.core.exceptions import LDAPException, LDAPInvalidCredentialsResult

from passrelay_producer.sources.samba_account import VERSIONED, sid_text
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_producer.windows import registry
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.secret_file import read_secret_file
from passrelay_schemas.source_settings import HookSourceSettings

_PORTS = {"ldaps": 636, "ldap": 389}


def own_host() -> str | None:
    """This Windows machine's host name; None elsewhere, where only tests look a controller up."""
    # There it is GetComputerNameEx's ComputerNamePhysicalDnsHostname: whole, where NetBIOS ends after 15 characters.
    return socket.gethostname() if sys.platform == "win32" else None


class RefusedError(UnavailableError):
    """The controller answers, but does not let bind_user in, or is not of the hook's domain: waiting mends neither."""


class _PinnedTls(ldap3.Tls):
    """TLS >= 1.2 that trusts one CA file and lets OpenSSL check the name: ldap3's own way was removed from Python."""

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        """Called by ldap3 with its open TCP connection."""
        context = ssl.create_default_context(cafile=self.ca_certs_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


class HookDirectory(SambaDirectory):
    """One bound connection.

    UnavailableError when the controller does not answer; ConfigurationError: its files, or another controller.
    """

    repair = "is it this domain controller, and are bind_user and its password right?"
    attributes = (*VERSIONED, "msDS-KeyVersionNumber")

    def __init__(self, settings: HookSourceSettings) -> None:
        self._settings = settings
        self._where = settings.controller
        parts = urlsplit(settings.controller)
        self._secure = parts.scheme == "ldaps"
        try:
            tls = _PinnedTls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(settings.ca_file))
        except LDAPException:
            why = f"[source.hook] ca_file {settings.ca_file}: no such file: correct its path"
            raise ConfigurationError(why) from None
        server = ldap3.Server(
            parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            use_ssl=self._secure,
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=settings.timeout_seconds,
        )
        password = read_secret_file(settings.password_file, what="[source.hook] password_file")
        self._connection = ldap3.Connection(
            server,
            user=settings.bind_user,
            password=password.reveal(),
            receive_timeout=settings.timeout_seconds,
            raise_exceptions=True,
            check_names=False,
            auto_referrals=False,
        )
        self.domain_sid = ""

    def __enter__(self) -> Self:
        """Open, bind, and learn which domain this is."""
        super().__enter__()
        try:
            self._check_own()
            values = self._base(self.base_dn, ["objectSid"])
            with self._explained("read the domain's SID"):
                self.domain_sid = sid_text(values["objectSid"][0])
            self._check_domain()
        except BaseException:
            self.close()
            raise
        return self

    def _check_own(self) -> None:
        """Each controller dates and counts changes as they came to it: another one may not have this machine's yet."""
        own = own_host()
        if own is None:
            return
        if self.controller is None:
            raise UnavailableError(f"{self._where}: it does not say its dnsHostName: {self.repair}")
        if _host(self.controller) != _host(own):
            raise ConfigurationError(
                f"[source.hook] controller {self._where} is {self.controller}, this machine is {own}: name this domain "
                "controller itself"
            )

    def _check_domain(self) -> None:
        """Names of controllers in two domains may begin alike, and each good record would be foreign to the other.

        Waited for: a damaged DomainSid must not end a service whose records are good, the hook goes on with its last.
        """
        hooks = registry.hook_domain_sid()
        if hooks not in ("", self.domain_sid):
            raise RefusedError(
                f"[source.hook] controller {self._where} is of the domain {self.domain_sid}, the hook here of {hooks} "
                "(registry, DomainSid): name this domain controller itself; if DomainSid is wrong, run `passrelay "
                "producer windows install --yes`"
            )

    def _open(self) -> None:
        self._connection.open(read_server_info=False)
        if not self._secure and not self._connection.start_tls(read_server_info=False):
            raise UnavailableError(f"{self._where}: it refuses StartTLS: give it a certificate, or use ldaps://")
        try:
            self._connection.bind(read_server_info=False)
        except LDAPInvalidCredentialsResult:
            why = f"{self._where}: it does not let bind_user in: correct bind_user or its password"
            raise RefusedError(why) from None
        if not self._connection.bound:
            raise LDAPException("the bind was refused")


def _host(name: str) -> str:
    """Names of one domain differ in their first label; suffixes may not be the domain's."""
    return name.partition(".")[0].casefold()
