"""A key's successor: made and carried to its readers first, put to use only then, so that no event meets a stranger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from passrelay_ops.key_files import MadeKey, create, hook_registry
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import (
    KeyDocument,
    KeyStatus,
    KeyUse,
    has_private,
    is_encrypted,
    private_path,
    public_path,
    write_public,
)
from passrelay_schemas.process_settings import KeysSettings


@dataclass(frozen=True)
class Rotation:
    """The key that is in use, or was until it was revoked or retired, and the one that waits to follow it."""

    current: KeyDocument
    following: KeyDocument | None


def find(keyring: Keyring, use: KeyUse, producer: str | None) -> Rotation:
    """What is to be rotated; ConfigurationError when there is nothing, or several producers' keys."""
    mine = [key for key in keyring.documents(use) if producer in (None, key.producer)]
    if use is KeyUse.SIGNING:
        mine = [key for key in mine if keyring.has_private(key)]
    waiting = [key for key in mine if key.status is KeyStatus.NEXT and keyring.has_private(key)]
    current = [key for key in mine if key.status is KeyStatus.ACTIVE]
    if not current and (use is KeyUse.SIGNING or waiting):
        # A key that `init` makes is used before anybody knows it: a revoked key has a successor as well.
        current = [key for key in mine if key.status is not KeyStatus.NEXT]
    owners = {key.producer for key in current}
    if len(owners) > 1:
        names = ", ".join(sorted(str(owner) for owner in owners))
        raise ConfigurationError(f"key directory {keyring.directory}: signing keys of {names}: name one of them")
    if not current:
        whose = f" of {producer}" if producer else ""
        repair = "`passrelay keys init` makes one"
        if mine:
            repair = (
                f"bring the {use} key that is in use now here, from a host that has it; only if there is none: {repair}"
            )
        raise ConfigurationError(f"key directory {keyring.directory}: no active {use} key{whose} to rotate: {repair}")
    following = [key for key in waiting if key.producer == current[-1].producer]
    return Rotation(current[-1], following[-1] if following else None)


def prepare(settings: KeysSettings, rotation: Rotation) -> MadeKey:
    """The successor's files, made now unless they wait already. It has the same algorithm.

    ConfigurationError when the key is encrypted and there is no passphrase: its successor would lie in clear.
    """
    key = rotation.following
    if key is None:
        current = rotation.current
        held = private_path(settings.directory, current.key_id)
        if settings.passphrase_file is None and has_private(settings.directory, current.key_id) and is_encrypted(held):
            raise ConfigurationError(
                f"key file {held}: it is encrypted, and so shall its successor be: name the passphrase's file in "
                "[keys] passphrase_file or with --passphrase-file"
            )
        key = create(
            settings,
            current.use,
            current.producer,
            algorithm=current.algorithm,
            status=KeyStatus.NEXT,
            after=current.created_at,
        )
    public, private = public_path(settings.directory, key.key_id), private_path(settings.directory, key.key_id)
    return MadeKey(key, public, private, _first_step(key))


def activation(rotation: Rotation) -> list[KeyDocument]:
    """The documents that putting the successor to use changes. ConfigurationError when none waits.

    A signing key is retired here at once: what is spooled is signed when it is published. A recipient or ops key stays
    active until `retire` has seen that everybody has the new one; the youngest active key is used all the same.
    """
    use = rotation.current.use
    if rotation.following is None:
        raise ConfigurationError(
            f"no {use} key waits here to be put to use: make it with `passrelay keys rotate {use}`, and carry it to "
            "its readers first"
        )
    changed = [rotation.following.with_status(KeyStatus.ACTIVE)]
    if use is KeyUse.SIGNING and rotation.current.status is KeyStatus.ACTIVE:
        changed.append(rotation.current.with_status(KeyStatus.RETIRED))
    return changed


def write(settings: KeysSettings, documents: Iterable[KeyDocument]) -> None:
    """Write changed documents, in their order."""
    for document in documents:
        write_public(settings.directory, document)


def _first_step(key: KeyDocument) -> str:
    public, private = f"{key.key_id}.pub.json", f"{key.key_id}.key"
    if key.use is KeyUse.SIGNING:
        return (
            f"carry {public} to every consumer and operator's host and run there: passrelay keys enroll {public} "
            f"--yes; then here: passrelay keys rotate signing {key.producer} --activate --yes"
        )
    readers = "operator's host" if key.use is KeyUse.OPS else "consumer"
    return (
        f"put {public} and {private} (mode 0600, by a safe way) into the key directory of every {readers}, where "
        f"`passrelay keys list` must show the private file; keep an offline copy; then here: "
        f"passrelay keys rotate {key.use} --activate --yes"
    )


def second_step(rotation: Rotation) -> str:
    """What is left to do after the activation."""
    old, new = rotation.current, rotation.following
    public = f"{new.key_id}.pub.json" if new else ""
    if old.status is KeyStatus.REVOKED and old.use is KeyUse.SIGNING:
        return (
            "the producer signs with it within seconds. What died of the revoked key: passrelay producer republish "
            "--since 72h (docs/runbooks/stolen-producer-key.md)"
        )
    if old.use is KeyUse.SIGNING:
        return (
            "nothing: the producer signs with it within seconds. On an operator's host, when its news say so: "
            f"passrelay keys retire {old.key_id}"
        )
    if old.use is KeyUse.HOOK:
        to_use = hook_registry(new) if new else ""
        return (
            f"{to_use}; carry {public}, as it is now, to every other consumer and operator's host and run there: "
            f"passrelay keys enroll {public} --yes. Later, on an operator's host: passrelay keys retire {old.key_id}"
        )
    others = "producer, other consumer and operator's host"
    if old.use is KeyUse.OPS:
        others = "consumer and other operator's host"
    return (
        f"carry {public}, as it is now, to every {others} and run there: passrelay keys enroll {public} --yes; "
        f"from then on it is sealed to. Later, on an operator's host: passrelay keys retire {old.key_id}"
    )
