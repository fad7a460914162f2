"""Certificate requests for a domain controller: Microsoft's request.inf, or a key and a PKCS#10 made here.

Windows takes a certificate for LDAPS that names the controller (FQDN, in the subject or as a DNS name), has Server
Authentication among its uses and a key of the SChannel provider in the computer's store (Microsoft, "Enable LDAP over
SSL with a third-party certification authority", KB 321051; the RHEL guide, 15.6.1, refers to it).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from passrelay_schemas.errors import ConfigurationError, SafetyError

KEY_BITS = 3072
"""RSA, which every CA signs; as strong as AES-128 (NIST SP 800-57)."""
MOST_NAMES = 50
_LONGEST_NAME = 253
_LONGEST_COMMON_NAME = 64
"""ub-common-name (RFC 5280 A.1)."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PUBLIC, _PRIVATE = 0o644, 0o600


def host_name(name: str, option: str) -> str:
    """A fully qualified DNS name (RFC 1123 2.1) in lower case; ConfigurationError names the option and the repair."""
    plain = name.strip().rstrip(".").lower()
    try:
        ipaddress.ip_address(plain)
    except ValueError:
        pass
    else:
        raise ConfigurationError(
            f"{option} {name!r}: an address: write the controller's DNS name, and use it in [domain.ad] servers"
        )
    labels = plain.split(".")
    if len(plain) > _LONGEST_NAME or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigurationError(
            f"{option} {name!r:.300}: not a full DNS name: write it like dc1.ad.example (letters, digits and hyphens; "
            "no wildcard; an international name in its xn-- form)"
        )
    return plain


def all_names(controller: str, others: Sequence[str]) -> tuple[str, ...]:
    """The controller's own name first, then the others, each once."""
    names = [host_name(controller, "--controller"), *(host_name(other, "--name") for other in others)]
    if len(set(names)) > MOST_NAMES:
        raise ConfigurationError(f"--name: {len(set(names))} names: a certificate takes at most {MOST_NAMES} here")
    return tuple(dict.fromkeys(names))


def common_name(names: Sequence[str]) -> str:
    """The subject's; only the host's label where the whole name is too long: the DNS names count anyway."""
    return names[0] if len(names[0]) <= _LONGEST_COMMON_NAME else names[0].partition(".")[0]


def request_inf(names: Sequence[str]) -> str:
    """The request.inf of KB 321051, with the names as subjectAltName and a key that cannot be exported."""
    lines = [
        "; certreq -new request.inf request.csr     on the domain controller, as an administrator",
        "[Version]",
        'Signature="$Windows NT$"',
        "",
        "[NewRequest]",
        f'Subject = "CN={common_name(names)}"',
        "; AT_KEYEXCHANGE",
        "KeySpec = 1",
        f"KeyLength = {KEY_BITS}",
        "HashAlgorithm = SHA256",
        "Exportable = FALSE",
        "; the computer's key, not the user's",
        "MachineKeySet = TRUE",
        "SMIME = FALSE",
        "PrivateKeyArchive = FALSE",
        "UserProtected = FALSE",
        "UseExistingKeySet = FALSE",
        'ProviderName = "Microsoft RSA SChannel Cryptographic Provider"',
        "ProviderType = 12",
        "RequestType = PKCS10",
        "; digital signature, key encipherment",
        "KeyUsage = 0xa0",
        "",
        "[EnhancedKeyUsageExtension]",
        "; Server Authentication",
        "OID = 1.3.6.1.5.5.7.3.1",
        "",
        "[Extensions]",
        "; subjectAltName",
        '2.5.29.17 = "{text}"',
        *(f'_continue_ = "dns={name}&"' for name in names),
    ]
    return "\r\n".join([*lines, ""])


def new_key() -> rsa.RSAPrivateKey:
    """A new private key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def pkcs10(names: Sequence[str], key: rsa.RSAPrivateKey) -> bytes:
    """The request (RFC 2986) as PEM, with what request.inf asks for too."""
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(names))]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def key_pem(key: rsa.RSAPrivateKey) -> bytes:
    """The private key as Samba reads it: PKCS#8 without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write(files: dict[Path, bytes], *, private: Path | None = None) -> None:
    """Write new files, `private` with mode 0600. Either all are there afterwards, or none that was not there before.

    SafetyError when one exists already; ConfigurationError when one cannot be made.
    """
    refuse_existing(files)
    made: list[Path] = []
    try:
        for path, content in files.items():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE if path == private else _PUBLIC)
            made.append(path)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
    except OSError as error:
        for unfinished in made:
            unfinished.unlink(missing_ok=True)
        raise ConfigurationError(
            f"{path}: cannot be made ({error.strerror}): make the directory, or name another with --directory"
        ) from None


def refuse_existing(paths: Sequence[Path] | dict[Path, bytes]) -> None:
    """SafetyError when one of the files exists: it could be a key that is in use."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise SafetyError(f"{path}: is there already: move it away, or name another --directory")
