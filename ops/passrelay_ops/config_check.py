"""Everything about a configuration file that can be told without a server: its keys, and the files that it names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from passrelay_ops.options import role_of
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, PassrelayError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, private_path
from passrelay_schemas.secret_file import mode_fault, read_secret_file
from passrelay_schemas.settings import ROLES, ConsumerSettings, OpsSettings, ProducerSettings, RoleSettings
from passrelay_schemas.settings_file import load


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and how to repair it. A hint does not stop a service from starting."""

    subject: str
    detail: str
    hint: bool = False


def files(directory: Path) -> list[Path]:
    """The configuration files of a directory; ConfigurationError when there is none."""
    found = sorted(directory.glob("*.toml"))
    if not found:
        raise ConfigurationError(
            f"{directory}: no *.toml there: write {', '.join(f'{role}.toml' for role in ROLES)} as this host's roles "
            "need them, or name a file with --config"
        )
    return found


def check(path: Path, role: str | None = None) -> list[Fault]:
    """All faults of one file; empty when the service can start from it."""
    try:
        name = role_of(path, role)
        settings = load(ROLES[name], path)
    except ConfigurationError as error:
        return [Fault(str(path), line) for line in _lines(str(error), path)]
    return [*_own_mode(path, settings.broker), *_files(settings)]


def _lines(message: str, path: Path) -> list[str]:
    """One fault a line, without the file's name in front of each."""
    first, *rest = message.split("\n")
    first = first.removeprefix(f"configuration {path}:").strip()
    return [line.strip() for line in ([first, *rest] if first else rest)]


def _own_mode(path: Path, broker: BrokerSettings) -> Iterator[Fault]:
    if "@" in broker.url.reveal() and (fault := mode_fault(path)):
        yield Fault(str(path), f"broker.url may hold a password, and {fault}")


def _files(settings: RoleSettings) -> Iterator[Fault]:
    yield from _broker(settings.broker)
    yield from _keys(settings)
    if isinstance(settings, ProducerSettings):
        yield from _producer(settings)
    if isinstance(settings, ConsumerSettings | OpsSettings) and settings.idm is not None:
        yield from _login("idm", settings.idm.ca_file, settings.idm.password_file)
    if isinstance(settings, ConsumerSettings):
        yield from _epochs(settings.domain)
    elif isinstance(settings, OpsSettings):
        for domain in settings.domain:
            if domain.ad is not None:
                for fault in _login("domain.ad", domain.ad.ca_file, domain.ad.password_file):
                    yield replace(fault, subject=f"domain {domain.name}: {fault.subject}")


def _epochs(domains: Iterable[DomainSettings]) -> Iterator[Fault]:
    for domain in domains:
        if domain.epoch and domain.epoch_began_at is None:
            yield Fault(
                f"domain {domain.name}",
                f"epoch {domain.epoch} without epoch_began_at: events from before the restore that still wait would "
                "count as new ones: set epoch_began_at to the time when the restored domain went into service",
                hint=True,
            )


def _broker(broker: BrokerSettings) -> Iterator[Fault]:
    if broker.ca_file is not None:
        yield from _certificates("broker.ca_file", broker.ca_file)
    if broker.certificate_file is None or broker.key_file is None:
        return
    faults = [*_certificates("broker.certificate_file", broker.certificate_file)]
    faults += _owner_only("broker.key_file", broker.key_file)
    yield from faults
    if not faults:
        yield from _pair(broker.certificate_file, broker.key_file)


def _pair(certificate_file: Path, key_file: Path) -> Iterator[Fault]:
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError):
        yield Fault("broker.key_file", f"{key_file}: not a PEM private key without a passphrase: write one, mode 0600")
        return
    certificate = x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]
    if certificate.public_key() != key.public_key():
        yield Fault("broker.key_file", f"{key_file}: does not belong to {certificate_file}: name the key made with it")


def _certificates(setting: str, path: Path) -> Iterator[Fault]:
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


def _owner_only(setting: str, path: Path) -> list[Fault]:
    try:
        with path.open("rb") as source:
            source.read(1)
        fault = mode_fault(path)
    except OSError as error:
        return [Fault(setting, f"{path}: cannot be read ({error.strerror}): check path, owner and mode")]
    return [Fault(setting, f"{path}: {fault}")] if fault else []


def _keys(settings: RoleSettings) -> Iterator[Fault]:
    try:
        keyring = Keyring.of(settings.keys)
    except PassrelayError as error:
        yield Fault("keys.directory", str(error))
        return
    if sys.platform != "win32" and settings.keys.directory.stat().st_mode & 0o022:
        yield Fault(
            "keys.directory",
            f"{settings.keys.directory}: others may write there and enroll keys of their own: "
            f"`chmod 700 {settings.keys.directory}`",
        )
    if isinstance(settings, ProducerSettings):
        yield from _wanted(keyring.signer)
        yield from _wanted(keyring.recipient)
    elif isinstance(settings, ConsumerSettings):
        yield from _consumer_keys(keyring, settings)
    elif not _private(keyring, KeyUse.OPS):
        yield Fault(
            "keys.directory",
            f"{keyring.directory}: no private ops key here, so account names in letters stay sealed: "
            "`passrelay keys init ops`, or copy the .key file of the one that is in use",
            hint=True,
        )


def _wanted(get: Callable[[], object]) -> Iterator[Fault]:
    try:
        get()
    except PassrelayError as error:
        yield Fault("keys.directory", str(error))


def _consumer_keys(keyring: Keyring, settings: ConsumerSettings) -> Iterator[Fault]:
    where = keyring.directory
    if not _private(keyring, KeyUse.RECIPIENT):
        yield Fault(
            "keys.directory",
            f"{where}: no recipient key with its private file: `passrelay keys init consumer` on the first consumer, "
            "and copy its files to the others",
        )
    if keyring.newest(KeyUse.OPS) is None:
        yield Fault(
            "keys.directory",
            f"{where}: no ops key is enrolled, so letters cannot name accounts: `passrelay keys enroll FILE`",
            hint=True,
        )
    for document in keyring.documents(KeyUse.HOOK):
        if document.status in (KeyStatus.ACTIVE, KeyStatus.NEXT) and not keyring.has_private(document):
            yield Fault(
                "keys.directory",
                f"{where}: hook key {document.key_id} is enrolled without its private file, so what Windows "
                "controllers seal to it waits as unknown_key: copy its .key from the consumer where it was made "
                "(mode 0600)",
                hint=True,
            )
    signers = {document.producer for document in keyring.documents(KeyUse.SIGNING)}
    for domain in settings.domain:
        for producer in sorted(set(domain.producers) - signers):
            yield Fault(
                f"domain.{domain.name}.producers",
                f"no signing key of {producer} is enrolled in {where}: `passrelay keys enroll FILE`",
                hint=True,
            )
    yield from _unlisted(keyring, settings.domain)


def _unlisted(keyring: Keyring, domains: Iterable[DomainSettings]) -> Iterator[Fault]:
    """Producers whose key is enrolled and in use, and who may speak for no domain."""
    in_use = [key for key in keyring.documents(KeyUse.SIGNING) if key.status in (KeyStatus.ACTIVE, KeyStatus.NEXT)]
    listed = {producer for domain in domains for producer in domain.producers}
    for producer in sorted({key.producer for key in in_use if key.producer is not None} - listed):
        yield Fault(
            "domain.producers",
            f"a signing key of {producer} is enrolled in {keyring.directory}, and no [[domain]] lists {producer}, so "
            "all that it sends becomes dead letters (foreign_domain): add it to producers on every consumer and "
            "restart them, or take the key away: `passrelay keys revoke KEY`",
            hint=True,
        )


def _private(keyring: Keyring, use: KeyUse) -> bool:
    return any(private_path(keyring.directory, document.key_id).exists() for document in keyring.documents(use))


def _producer(settings: ProducerSettings) -> Iterator[Fault]:
    folder = settings.spool.path.parent
    if not folder.is_dir():
        yield Fault("spool.path", f"{folder}: no such directory: make it, mode 0700, owned by the producer's account")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Fault("spool.path", f"{folder}: not writable for this account: `chown` it to the producer's account")
    hook = settings.source.hook
    if hook is not None:
        if not hook.folder.is_dir():
            yield Fault(
                "source.hook.folder", f"{hook.folder}: no such directory: name the hook's registry value Folder"
            )
        yield from _login("source.hook", hook.ca_file, hook.password_file)
    samba = settings.source.samba
    if samba is None:
        return
    if not samba.ldapi_path.exists():
        yield Fault(
            "source.samba.ldapi_path",
            f"{samba.ldapi_path}: no such socket: is samba running on this host, and is this account root?",
        )
    yield from _owner_only("source.samba.gpg_key_file", samba.gpg_key_file)


def _login(section: str, ca_file: Path, password_file: Path) -> Iterator[Fault]:
    """The two files of a directory's section."""
    yield from _certificates(f"{section}.ca_file", ca_file)
    try:
        read_secret_file(password_file, what=f"[{section}] password_file")
    except PassrelayError as error:
        yield Fault(f"{section}.password_file", str(error))
