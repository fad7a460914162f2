"""IdM's certificate authority as the directory itself publishes it, to be pinned after a person has compared it.

Before it is pinned nothing proves whom we talk to. So no password is sent, and what was fetched counts for nothing
until its fingerprint has been compared with /etc/ipa/ca.crt on an IdM server.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ldap3
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from passrelay_consumer.connection import PinnedTls, call, close, connect, server_words
from passrelay_consumer.result_codes import DirectoryError
from passrelay_schemas.errors import ConfigurationError, SafetyError
from passrelay_schemas.idm_settings import IdmSettings

_ATTRIBUTE = "cACertificate;binary"
_BY_HAND = "copy /etc/ipa/ca.crt from an IdM server"


class UnverifiedTls(ldap3.Tls):
    """TLS with whoever answers; good for nothing but fetching what a person compares."""

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        """Called by ldap3 with its open TCP connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        connection.socket = context.wrap_socket(connection.socket, do_handshake_on_connect=do_handshake)


@dataclass(frozen=True)
class Authority:
    """The certificates that one server publishes, usually one."""

    server: str
    certificates: tuple[x509.Certificate, ...]
    fault: str | None = None
    """Why the server's own certificate does not follow from them."""

    @property
    def pem(self) -> bytes:
        """As a ca_file holds them."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.certificates)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 in the form of `openssl x509 -fingerprint -sha256`."""
    return certificate.fingerprint(SHA256()).hex(":").upper()


def from_der(raw: bytes) -> x509.Certificate:
    """A certificate in DER; ValueError when it is none."""
    try:
        return x509.load_der_x509_certificate(raw)
    except x509.InvalidVersion as error:  # none of ValueError's
        raise ValueError(str(error)) from None


def fetch(url: str, idm: IdmSettings, suffix: str) -> Authority:
    """What cn=CAcert,cn=ipa,cn=etc holds at this server, read without a login.

    Raises DirectoryError when the server does not answer, ConfigurationError when it publishes none.
    """
    dn = f"cn=CAcert,cn=ipa,cn=etc,{suffix}"
    connection = connect(url, idm, UnverifiedTls(validate=ssl.CERT_NONE))
    try:
        call(connection, lambda: connection.search(dn, "(objectClass=*)", "BASE", attributes=[_ATTRIBUTE]))
        found = [item["raw_attributes"] for item in connection.response or [] if item["type"] == "searchResEntry"]
        words = server_words(connection)
    finally:
        close(connection)
    values = [value for attributes in found for name in attributes for value in attributes[name]]
    if not values:
        raise ConfigurationError(f"{url}: {dn}: no certificate can be read there without a login ({words}): {_BY_HAND}")
    try:
        certificates = tuple(from_der(value) for value in values)
    except ValueError:
        raise ConfigurationError(f"{url}: {dn}: holds no X.509 certificate: {_BY_HAND}") from None
    authority = Authority(url, certificates)
    return Authority(url, certificates, _fault(url, idm, authority.pem))


def _fault(url: str, idm: IdmSettings, pem: bytes) -> str | None:
    """Connect again, as consumers will with this CA."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pem)
        file.flush()
        try:
            close(connect(url, idm, PinnedTls(validate=ssl.CERT_REQUIRED, ca_certs_file=file.name)))
        except DirectoryError as error:
            return f"its own certificate is not good under that CA ({error}): {_BY_HAND}, or repair its certificate"
    return None


def pin(path: Path, authority: Authority, compared: str | None) -> bool:
    """Write ca_file, unless it holds these certificates already: then False.

    `compared` is the fingerprint that somebody compared: SafetyError when the server shows another. A file with other
    certificates is never overwritten.
    """
    shown = [fingerprint(certificate) for certificate in authority.certificates]
    if compared is not None and [_digits(compared)] != [_digits(one) for one in shown]:
        raise SafetyError(
            f"--fingerprint {compared:.100}: {authority.server} shows {', '.join(shown)}: nothing was pinned"
        )
    if path.exists():
        if set(shown) <= pinned(path):
            return False
        raise SafetyError(f"[idm] ca_file {path}: holds another CA: find out why, and move that file away first")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(handle, "wb") as file:
            # Whatever the umask: consumers run as another account, and nothing in it is secret.
            os.fchmod(handle, 0o644)
            file.write(authority.pem)
    except OSError as error:
        raise ConfigurationError(
            f"[idm] ca_file {path}: cannot be made ({error.strerror}): make its directory, or correct the path"
        ) from None
    return True


def pinned(path: Path) -> set[str]:
    """The fingerprints in a ca_file; ConfigurationError when it cannot be read."""
    try:
        return {fingerprint(certificate) for certificate in x509.load_pem_x509_certificates(path.read_bytes())}
    except OSError as error:
        raise ConfigurationError(
            f"[idm] ca_file {path}: cannot be read ({error.strerror}): check path and mode"
        ) from None
    except (ValueError, x509.InvalidVersion):
        raise ConfigurationError(f"[idm] ca_file {path}: holds no PEM certificate: move it away") from None


def _digits(text: str) -> str:
    """The hexadecimal digits, also of the whole line that openssl prints."""
    return "".join(sign for sign in text.rpartition("=")[2].upper() if sign in "0123456789ABCDEF")
