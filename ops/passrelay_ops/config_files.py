"""The files that a setting names: whether this account can use each of them, told without a server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.secret_file import mode_fault, read_secret_file


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and how to repair it. A hint does not stop a service from starting."""

    subject: str
    detail: str
    hint: bool = False


def certificate_faults(setting: str, path: Path) -> Iterator[Fault]:
    """A PEM file with certificates: it can be read, holds at least one, and none has expired."""
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        yield Fault(setting, f"{path}: cannot be read ({error.strerror}): check path, owner and mode")
        return
    except ValueError:
        yield Fault(setting, f"{path}: holds no PEM certificate: export it again (-----BEGIN CERTIFICATE-----)")
        return
    for certificate in certificates:
        expires = certificate.not_valid_after_utc
        if expires <= datetime.now(UTC):
            yield Fault(setting, f"{path}: a certificate in it expired on {expires:%Y-%m-%d}: renew it")


def pair_faults(certificate_file: Path, key_file: Path) -> Iterator[Fault]:
    """The broker's two files, each found good by itself: the key is the certificate's, and has no passphrase."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError):
        yield Fault("broker.key_file", f"{key_file}: not a PEM private key without a passphrase: write one, mode 0600")
        return
    certificate = x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]
    if certificate.public_key() != key.public_key():
        yield Fault("broker.key_file", f"{key_file}: does not belong to {certificate_file}: name the key made with it")


def owner_only_faults(setting: str, path: Path) -> list[Fault]:
    """A private file: it can be read, and by nobody else."""
    try:
        with path.open("rb") as source:
            source.read(1)
        fault = mode_fault(path)
    except OSError as error:
        return [Fault(setting, f"{path}: cannot be read ({error.strerror}): check path, owner and mode")]
    return [Fault(setting, f"{path}: {fault}")] if fault else []


def login_faults(section: str, ca_file: Path, password_file: Path) -> Iterator[Fault]:
    """The two files of a directory's section."""
    yield from certificate_faults(f"{section}.ca_file", ca_file)
    try:
        read_secret_file(password_file, what=f"[{section}] password_file")
    except PassrelayError as error:
        yield Fault(f"{section}.password_file", str(error))
