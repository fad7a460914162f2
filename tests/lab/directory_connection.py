"""LDAPS connections of the lab: the CA pinned, the name checked, every wait limited."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from ldap3 import SIMPLE, Connection, Server, Tls

_TIMEOUT_SECONDS = 10


class PinnedTls(Tls):
    """TLS that trusts one CA file and lets OpenSSL check the name.

    ldap3 itself checks names with ssl.match_hostname, which Python has deprecated and 3.12 removed.
    """

    def wrap_socket(self, connection: Connection, do_handshake: bool = False) -> None:
        """Called by ldap3 with its open TCP connection."""
        context = ssl.create_default_context(cafile=self.ca_certs_file)
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


def ldaps_connection(port: int, ca_file: Path, dn: str, password: str | bytes) -> Connection:
    """A connection to 127.0.0.1 that is not yet open; no wait in it lasts longer than ten seconds."""
    tls = PinnedTls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(ca_file))
    server = Server("127.0.0.1", port=port, use_ssl=True, tls=tls, get_info="NO_INFO", connect_timeout=_TIMEOUT_SECONDS)
    # ldap3 takes bytes too, though its stubs do not say so.
    return Connection(server, dn, password, receive_timeout=_TIMEOUT_SECONDS, check_names=False)  # type: ignore[arg-type]


def refused_logins(port: int, ca_file: Path, passwords: Mapping[str, str]) -> list[str]:
    """The DNs that cannot log in with their passwords, tried one after the other over one connection."""
    refused = []
    connection = ldaps_connection(port, ca_file, "", "")
    try:
        connection.open()
        for dn, password in passwords.items():
            if not connection.rebind(dn, password.encode(), authentication=SIMPLE):
                refused.append(dn)
    finally:
        close(connection)
    return refused


def close(connection: Connection) -> None:
    """Unbind and close; also what ldap3 leaves open when the server refused the connection."""
    connection.unbind()
    if connection.socket is not None:
        connection.socket.close()
