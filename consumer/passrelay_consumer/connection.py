"""TLS connections to IdM servers: one CA pinned, the name checked by OpenSSL, every wait limited."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import ldap3
from ldap3.core.exceptions import LDAPException

from passrelay_consumer.result_codes import DirectoryError
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret_file import read_secret_file


class Peer(Protocol):
    """How servers of one kind are reached: IdM's and AD's settings have it."""

    @property
    def ca_file(self) -> Path:
        """The one CA that is trusted."""

    @property
    def timeout_seconds(self) -> int:
        """For every call."""


class PinnedTls(ldap3.Tls):
    """TLS >= 1.2 that trusts one CA file and lets OpenSSL check the name.

    ldap3 itself checks names with ssl.match_hostname, which Python has deprecated and 3.12 removed.
    """

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        """Called by ldap3 with its open TCP connection."""
        context = ssl.create_default_context(cafile=self.ca_certs_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


def connect(url: str, settings: Peer, tls: ldap3.Tls | None = None) -> ldap3.Connection:
    """A connection that is not bound yet: LDAPS, or LDAP with StartTLS before anything else. Raises DirectoryError.

    `tls` replaces the pinned CA of the settings.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "ldaps"
    connection: ldap3.Connection | None = None
    try:
        server = ldap3.Server(
            parts.hostname or "",
            port=parts.port or (636 if secure else 389),
            use_ssl=secure,
            tls=tls or PinnedTls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(settings.ca_file)),
            get_info=ldap3.NONE,
            connect_timeout=settings.timeout_seconds,
        )
        connection = ldap3.Connection(
            server,
            receive_timeout=settings.timeout_seconds,
            check_names=False,
            auto_encode=False,
            auto_range=False,
            auto_referrals=False,
        )
        connection.open(read_server_info=False)
        # Nagle would hold a second request back until the server has acknowledged the first (up to 40 ms).
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure or connection.start_tls(read_server_info=False):
            return connection
        why = f"{url} refused StartTLS"
    except (LDAPException, OSError) as error:
        why = brief(error)
    close(connection)
    raise DirectoryError(None, why)


def bind(connection: ldap3.Connection, dn: str, password: str) -> None:
    """Simple bind (RFC 4513 5.1.3). Raises DirectoryError; the connection keeps no copy of the password."""
    try:
        # As bytes: ldap3 would change a text (SASLprep, RFC 4013) before it sends it.
        bound = call(connection, lambda: connection.rebind(dn, password.encode("utf-8"), authentication=ldap3.SIMPLE))
    finally:
        connection.password = None
    if not bound:
        raise DirectoryError(int(connection.result["result"]), f"bind as {dn}: {server_words(connection)}")


def connect_bound(url: str, settings: IdmSettings) -> ldap3.Connection:
    """A connection bound as the service account, whose password is read for it. Raises DirectoryError."""
    try:
        password = read_secret_file(settings.password_file, what="[idm] password_file")
    except ConfigurationError as error:
        raise DirectoryError(49, str(error)) from None
    connection = connect(url, settings)
    try:
        bind(connection, settings.bind_dn, password.reveal())
    except DirectoryError:
        close(connection)
        raise
    finally:
        connection.request = None  # ldap3 keeps the last one, with the password in it
    return connection


def call(connection: ldap3.Connection, operation: Callable[[], Any]) -> Any:
    """One operation; what fails below LDAP becomes a DirectoryError without a code."""
    try:
        return operation()
    except (LDAPException, OSError) as error:
        raise DirectoryError(None, brief(error)) from None


def server_words(connection: ldap3.Connection) -> str:
    """The server's diagnostic message for the last result, or the name of its code."""
    return str(connection.result.get("message") or connection.result.get("description") or "")[:500]


def close(connection: ldap3.Connection | None) -> None:
    """Unbind and close; also the socket that ldap3 leaves open when the server refused the connection."""
    if connection is None:
        return
    with contextlib.suppress(LDAPException, OSError):
        connection.unbind()
    if connection.socket is not None:
        with contextlib.suppress(OSError):
            connection.socket.close()


def brief(error: BaseException) -> str:
    """One line about a failure below LDAP."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
