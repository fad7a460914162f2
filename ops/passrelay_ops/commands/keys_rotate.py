"""`passrelay keys rotate`: a successor first, then, when everybody who reads has it, its use."""

from __future__ import annotations

from typing import Annotated

import typer

from passrelay_ops import key_files, key_rotation
from passrelay_ops.key_options import Folder, PassphraseFile, keys_settings
from passrelay_ops.options import AnyConfig, AsJson, RoleName, Yes
from passrelay_ops.report import Report
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse


def rotate(
    use: Annotated[KeyUse, typer.Argument(metavar="USE", help="recipient, signing, ops or hook.")],
    producer: Annotated[
        str | None, typer.Argument(metavar="[PRODUCER]", help="Whose signing key, where several are here.")
    ] = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="The second step: put the waiting successor to use (with --yes).")
    ] = False,
    directory: Folder = None,
    passphrase_file: PassphraseFile = None,
    config: AnyConfig = None,
    role: RoleName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make the successor of the key in use; nothing uses it until, carried to its readers, it is activated."""
    with Report("keys", as_json=as_json) as report:
        settings = keys_settings(directory, config, role, passphrase_file)
        rotation = key_rotation.find(Keyring.of(settings, private=False), use, producer)
        if not activate:
            made = key_rotation.prepare(settings, rotation)
            state = "waits already" if rotation.following else "made, not in use yet"
            report.say(
                f"{use} key {made.document.key_id} ({made.document.algorithm}): {state}\n"
                f"  fingerprint {made.document.fingerprint}\n"
                f"  public  {made.public}\n  private {made.private}\n  next: {made.next_step}"
            )
            if hint := key_files.owner_hint(settings.directory):
                report.progress(hint)
            report["keys"] = [key_files.describe(settings.directory, made.document) | {"next": made.next_step}]
            return
        changes = key_rotation.activation(rotation)
        for key in changes:
            report.say(f"{use} key {key.key_id} {'is' if yes else 'would be'} {key.status} from now on")
        if yes:
            key_rotation.write(settings, changes)
            report.say(f"next: {key_rotation.second_step(rotation)}")
        else:
            report.say("nothing was written: add --yes when every reader of the new key has it (`keys list` there)")
        report["written"] = yes
        report["keys"] = [
            key_files.describe(settings.directory, key) | {"next": key_rotation.second_step(rotation)}
            for key in changes
        ]
