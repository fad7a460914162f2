"""Everything about a configuration file that can be told without a server: its keys, and the files that it names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from passrelay_ops.config_files import Fault, certificate_faults, login_faults, owner_only_faults, pair_faults
from passrelay_ops.config_keys import key_faults
from passrelay_ops.options import role_of
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret_file import mode_fault
from passrelay_schemas.settings import ROLES, ConsumerSettings, OpsSettings, ProducerSettings, RoleSettings
from passrelay_schemas.settings_file import load


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
    yield from key_faults(settings)
    if isinstance(settings, ProducerSettings):
        yield from _producer(settings)
    if isinstance(settings, ConsumerSettings | OpsSettings) and settings.idm is not None:
        yield from login_faults("idm", settings.idm.ca_file, settings.idm.password_file)
    if isinstance(settings, ConsumerSettings):
        yield from _epochs(settings.domain)
    elif isinstance(settings, OpsSettings):
        for domain in settings.domain:
            if domain.ad is not None:
                for fault in login_faults("domain.ad", domain.ad.ca_file, domain.ad.password_file):
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
        yield from certificate_faults("broker.ca_file", broker.ca_file)
    if broker.certificate_file is None or broker.key_file is None:
        return
    faults = [*certificate_faults("broker.certificate_file", broker.certificate_file)]
    faults += owner_only_faults("broker.key_file", broker.key_file)
    yield from faults
    if not faults:
        yield from pair_faults(broker.certificate_file, broker.key_file)


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
        yield from login_faults("source.hook", hook.ca_file, hook.password_file)
    samba = settings.source.samba
    if samba is None:
        return
    if not samba.ldapi_path.exists():
        yield Fault(
            "source.samba.ldapi_path",
            f"{samba.ldapi_path}: no such socket: is samba running on this host, and is this account root?",
        )
    yield from owner_only_faults("source.samba.gpg_key_file", samba.gpg_key_file)
