#!/usr/bin/env python3
"""Make every file of the demo, once: certificates, keys, passwords, configuration.

`files.py PRODUCT FILES`: PRODUCT is the folder ops of the checkout, FILES the folder in which each service gets one of
its own. A folder that somebody else has filled is left alone (exit code 4); a second run changes nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pysequoia import Tsk

PASSRELAY, RABBITMQ, DIRECTORY, ROOT = 10001, 999, 389, 0
OWNERS = {
    "samba": ROOT,
    "directory": DIRECTORY,
    "operator": PASSRELAY,
    "producer": ROOT,
    "watch": PASSRELAY,
    "consumer": PASSRELAY,
    "broker": RABBITMQ,
}
"""The accounts that the containers run as. In this order the folders appear; files.sh waits for the last three."""
STAMP = "DEMO"
_DAYS = 825


class Authority:
    """A CA whose key is gone when this program ends: a new certificate means a new demo."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # noqa: FBT003
        builder = self._builder(self._name, self._key.public_key(), ca=True).add_extension(usage, critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(self, certificate: Path, key: Path, common_name: str, names: Sequence[str] = ()) -> None:
        """Write a certificate and its key: for a server with these DNS names, without any for a client."""
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._builder(subject, private.public_key(), ca=False)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        write(certificate, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), mode=0o644)
        write(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=_DAYS))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a new file that nobody else could read even for a moment."""
    path.touch(mode=mode, exist_ok=False)
    path.write_bytes(content)


def say(text: str) -> None:
    """A line in the log."""
    sys.stderr.write(f"demo-files: {text}\n")


def passrelay(*arguments: str | Path) -> None:
    """Run a command of passrelay; what it advises for by-hand work does not apply here."""
    subprocess.run(["passrelay", *map(str, arguments)], check=True, capture_output=True)


def make_certificates(new: Path) -> None:
    """Two CAs, as in real life: the broker's own, whose certificates are logins, and the directory servers'."""
    broker, directories = Authority("passrelay broker CA"), Authority("demo directory CA")
    broker.issue(new / "broker/broker.pem", new / "broker/broker.key", "broker", ["broker"])
    write(new / "broker/ca.pem", broker.pem, mode=0o644)
    for service, file, user in (
        ("consumer", "consumer", "consumer"),
        ("watch", "watch", "watch"),
        ("operator", "ops", "ops"),
        ("producer", "producer", "dc1"),
    ):
        write(new / service / "broker-ca.pem", broker.pem, mode=0o644)
        broker.issue(new / service / f"{file}.pem", new / service / f"{file}.key", user)
    for service, name in (("directory", "directory"), ("samba", "dc1.ad.example")):
        directories.issue(new / service / "server.pem", new / service / "server.key", name, [name])
    for path in (
        "directory/ca.pem",
        "samba/ca.pem",
        "consumer/idm-ca.pem",
        "operator/idm-ca.pem",
        "operator/ad-ca.pem",
    ):
        write(new / path, directories.pem, mode=0o644)


def make_keys(new: Path) -> None:
    """The keys of passrelay, each where it is used, and their public halves where they are trusted."""
    consumer, producer, operator, watch = (
        new / name / "keys" for name in ("consumer", "producer", "operator", "watch")
    )
    passrelay("keys", "init", "consumer", "--recipient-only", "--directory", consumer)
    passrelay("keys", "init", "ops", "--directory", operator)
    passrelay("keys", "init", "producer", "dc1", "--directory", producer)
    watch.mkdir(mode=0o700)
    public = [path for folder in (consumer, operator, producer) for path in folder.glob("*.pub.json")]
    for folder in (consumer, operator, producer, watch):
        for path in public:
            if path.parent != folder:
                write(folder / path.name, path.read_bytes(), mode=0o644)


def make_passwords(new: Path) -> None:
    """Random passwords of accounts; each file lies with whoever logs in and with whoever makes the account."""
    for places in (
        ("consumer/idm.password", "operator/idm.password"),
        ("directory/manager.password", "operator/manager.password"),
        ("samba/reader.password", "operator/ad.password"),
    ):
        # Complexity rules ask for more kinds of characters than chance may give.
        password = f"{secrets.token_urlsafe(24)}-aA1".encode()
        for place in places:
            write(new / place, password)


def make_openpgp_key(new: Path) -> None:
    """Samba encrypts clear text to the public half; the producer alone has the private one."""
    key = Tsk.generate("Samba passwords")
    write(new / "producer/samba-gpg.key", str(key).encode())
    write(new / "samba/samba-gpg.pub", str(key.extract_certificate()).encode(), mode=0o644)


def copy_configuration(product: Path, new: Path) -> None:
    """The configuration as it is shipped."""
    for source, target in (
        ("compose/consumer.toml", "consumer/consumer.toml"),
        ("compose/watch.toml", "watch/ops.toml"),
        ("compose/operator.toml", "operator/ops.toml"),
        ("compose/producer.toml", "producer/producer.toml"),
        ("rabbitmq/definitions.json", "broker/definitions.json"),
    ):
        write(new / target, (product / source).read_bytes(), mode=0o644)


def make(product: Path, files: Path) -> None:
    """Everything, in a folder aside; then each service's part in its place."""
    new = files / ".new"
    for folder in (new, *(files / name for name in OWNERS)):
        shutil.rmtree(folder, ignore_errors=True)
    for name in OWNERS:
        (new / name).mkdir(parents=True)
    make_certificates(new)
    make_keys(new)
    make_passwords(new)
    make_openpgp_key(new)
    copy_configuration(product, new)
    for name, owner in OWNERS.items():
        for path in (new / name, *(new / name).rglob("*")):
            os.chown(path, owner, owner)
        (new / name).rename(files / name)
    new.rmdir()


def main() -> int:
    """Exit code 0: the files are there; 4: they are somebody else's."""
    product, files = map(Path, sys.argv[1:])
    stamp = files / STAMP
    if stamp.exists() and stamp.read_text() == "complete\n":
        say("everything is there")
        return 0
    foreign = [name for name in OWNERS if any((files / name).glob("*"))]
    if foreign and not stamp.exists():
        say(f"{', '.join(foreign)} hold files that are not the demo's: give PASSRELAY_FILES an empty folder")
        return 4
    os.umask(0o022)
    stamp.write_text("incomplete\n")
    make(product, files)
    stamp.write_text("complete\n")
    say("made certificates, keys, passwords and configuration")
    return 0


if __name__ == "__main__":
    sys.exit(main())
