"""`passrelay keys revoke`: a key that somebody else has is never believed, sealed to or opened with again."""

from __future__ import annotations

from typing import Annotated

import typer

from passrelay_ops import key_files
from passrelay_ops.key_options import Folder, PassphraseFile, keys_settings
from passrelay_ops.options import AnyConfig, AsJson, RoleName, Yes
from passrelay_ops.report import Report
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, write_public

_MEANING = {
    KeyUse.SIGNING: "every event that it has signed and that is not applied yet becomes a dead letter (revoked); the "
    "producer needs a new key: docs/runbooks/stolen-producer-key.md",
    KeyUse.RECIPIENT: "nothing that is sealed to it is opened here any more: events on their way wait as unknown_key "
    "and die after the horizon. For a key that was only copied, rotate and retire lose nothing: docs/runbooks/"
    "lost-consumer-key.md",
    KeyUse.HOOK: "no record of the Windows hook that is sealed to it is opened here any more: events on their way wait "
    "as unknown_key and die after the horizon. For a key that was only copied, rotate and retire it instead",
    KeyUse.OPS: "notes that are sealed to it are not opened here any more. For a key that was only copied, rotate and "
    "retire it instead: the notes are out anyway",
}


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    directory: Folder = None,
    passphrase_file: PassphraseFile = None,
    config: AnyConfig = None,
    role: RoleName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say what revoking the key means; with --yes, do it on this host. There is no way back."""
    with Report("keys", as_json=as_json) as report:
        settings = keys_settings(directory, config, role, passphrase_file)
        key = key_files.known(Keyring.of(settings, private=False), key_id)
        done = key.status is KeyStatus.REVOKED
        changed = key if done else key.with_status(KeyStatus.REVOKED)
        if yes and not done:
            write_public(settings.directory, changed)
        whose = f" of {key.producer}" if key.producer else ""
        state = "is revoked already" if done else "is revoked" if yes else "would be revoked"
        report.say(f"{key.use} key {key.key_id}{whose} {state} here: {_MEANING[key.use]}")
        public = f"{key.key_id}.pub.json"
        step = (
            f"carry {public} to every other host that knows the key, consumers first, and run there: "
            f"passrelay keys enroll {public} --yes"
        )
        report.say(f"next: {step}" if yes or done else "nothing was written: add --yes")
        report["written"] = yes and not done
        report["keys"] = [key_files.describe(settings.directory, changed) | {"next": step}]
