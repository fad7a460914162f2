"""The folder of keys: whether it holds what this host's role needs, and what its domains expect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from passrelay_ops.config_files import Fault
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, private_path
from passrelay_schemas.settings import ConsumerSettings, ProducerSettings, RoleSettings


def key_faults(settings: RoleSettings) -> Iterator[Fault]:
    """All faults of the folder of keys; the first one alone when its files cannot be read as keys."""
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
