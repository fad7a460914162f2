"""A key's successor: made and carried to its readers first, put to use only then, so that no event meets a stranger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from passrelay_ops.key_files import MadeKey, create, hook_registry
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, private_path, public_path, write_public
from passrelay_schemas.settings import KeysSettings


@dataclass(frozen=True)
class Rotation:
    """The key that is in use, and the one that waits to follow it."""

    current: KeyDocument
    following: KeyDocument | None


def find(keyring: Keyring, use: KeyUse, producer: str | None) -> Rotation:
    """What is to be rotated; ConfigurationError when there is nothing, or several producers' keys."""
    mine = [key for key in keyring.documents(use) if producer in (None, key.producer)]
    if use is KeyUse.SIGNING:
        mine = [key for key in mine if keyring.has_private(key)]
    active = [key for key in mine if key.status is KeyStatus.ACTIVE]
    owners = {key.producer for key in active}
    if len(owners) > 1:
        names = ", ".join(sorted(str(owner) for owner in owners))
        raise ConfigurationError(f"key directory {keyring.directory}: signing keys of {names}: name one of them")
    if not active:
        whose = f" of {producer}" if producer else ""
        raise ConfigurationError(
            f"key directory {keyring.directory}: no active {use} key{whose} to rotate: `passrelay keys init` makes one"
        )
    following = [key for key in mine if key.status is KeyStatus.NEXT and keyring.has_private(key)]
    return Rotation(active[-1], following[-1] if following else None)


def prepare(settings: KeysSettings, rotation: Rotation) -> MadeKey:
    """The successor's files, made now unless they wait already. It has the same algorithm."""
    key = rotation.following
    if key is None:
        current = rotation.current
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
    if use is KeyUse.SIGNING:
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
    if old.use is KeyUse.SIGNING:
        return (
            "nothing: the producer signs with it within seconds. On an operator's host, when its news say so: "
            f"passrelay keys retire {old.key_id}"
        )
    if old.use is KeyUse.HOOK:
        to_use = hook_registry(new) if new else ""
        return f"{to_use}. Later, on an operator's host: passrelay keys retire {old.key_id}"
    sealers = "producer" if old.use is KeyUse.RECIPIENT else "consumer"
    return (
        f"carry {public} to every {sealers} and operator's host and run there: passrelay keys enroll {public} --yes; "
        f"from then on it is sealed to. Later, on an operator's host: passrelay keys retire {old.key_id}"
    )
