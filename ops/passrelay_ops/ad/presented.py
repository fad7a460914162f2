"""The certificate that a domain controller presents, and why it is not trusted if it is not."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import ldap3
from cryptography import x509

from passrelay_consumer.connection import close, connect
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.idm.certificate import UnverifiedTls, from_der
from passrelay_schemas.domain_settings import AdSettings


class Distrust(StrEnum):
    """Which repair a refused certificate needs."""

    CA_FILE = "ca_file"
    EXPIRED = "expired"
    EARLY = "not valid yet"
    NAME = "name"
    CHAIN = "chain"


@dataclass(frozen=True)
class Presented:
    """What stands in the certificate; `refused` are OpenSSL's or the system's words, with the repair's kind."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_after: datetime
    distrust: Distrust | None = None
    refused: str = ""

    @classmethod
    def parse(cls, der: bytes, distrust: Distrust | None = None, refused: str = "") -> Presented:
        """From its DER bytes; ValueError when that is no certificate."""
        certificate = from_der(der)
        return cls(
            certificate.subject.rfc4514_string(),
            certificate.issuer.rfc4514_string(),
            _names(certificate),
            certificate.not_valid_after_utc,
            distrust,
            refused,
        )


def look(url: str, ad: AdSettings) -> Presented:
    """Shake hands as every other command does; DirectoryError when that fails for anything but the certificate.

    A certificate that is refused is fetched a second time without trust, to say what is wrong with it; nothing else is
    sent over that connection.
    """
    distrust, words = None, _unusable(ad)
    if words:
        distrust = Distrust.CA_FILE
    else:
        try:
            return _presented(connect(url, ad))
        except DirectoryError as error:
            distrust, words = kind(str(error)), str(error)
            if distrust is None:
                raise
    return _presented(connect(url, ad, UnverifiedTls(validate=ssl.CERT_NONE)), distrust, words)


def kind(words: str) -> Distrust | None:
    """What OpenSSL found wrong with a certificate (X509_verify_cert_error_string(3)); None: it was something else."""
    if "CERTIFICATE_VERIFY_FAILED" not in words:
        return None
    if "has expired" in words:
        return Distrust.EXPIRED
    if "not yet valid" in words:
        return Distrust.EARLY
    if "mismatch" in words or "not valid for" in words:
        return Distrust.NAME
    return Distrust.CHAIN


def _presented(connection: ldap3.Connection, distrust: Distrust | None = None, words: str = "") -> Presented:
    try:
        der: bytes = connection.socket.getpeercert(binary_form=True)
        return Presented.parse(der, distrust, words)
    except ValueError:
        raise DirectoryError(None, "its certificate cannot be read: it is no X.509 certificate") from None
    finally:
        close(connection)


def _unusable(ad: AdSettings) -> str:
    """Why ca_file cannot be used; empty when it can."""
    try:
        ssl.create_default_context(cafile=str(ad.ca_file))
    except ssl.SSLError:
        return "holds no PEM certificate"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Host names and addresses that it is good for (subjectAltName, RFC 5280 4.2.1.6)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from None
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)
