"""`passrelay keys`: make keys where they are used, and enroll the public halves on the other side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from passrelay_ops import key_enrolment, key_files
from passrelay_ops.commands import keys_retire, keys_revoke, keys_rotate
from passrelay_ops.key_options import Folder, PassphraseFile, keys_settings
from passrelay_ops.options import AnyConfig, AsJson, RoleName, Yes
from passrelay_ops.report import Report
from passrelay_schemas.envelope import ProducerName
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.keyring import Keyring

app = typer.Typer(help="Signing, recipient and ops keys.", no_args_is_help=True)

app.command("rotate")(keys_rotate.rotate)
app.command("retire")(keys_retire.retire)
app.command("revoke")(keys_revoke.revoke)


@app.command()
def init(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="consumer, producer, ops or hook.")],
    producer: Annotated[
        str | None, typer.Argument(metavar="[PRODUCER]", help="The producer's name, with ROLE producer.")
    ] = None,
    recipient_only: Annotated[
        bool, typer.Option("--recipient-only", help="consumer: no ops key, it is made on an operator's host.")
    ] = False,
    algorithm: Annotated[str | None, typer.Option("--algorithm", help="Of the recipient key.")] = None,
    directory: Folder = None,
    passphrase_file: PassphraseFile = None,
    config: AnyConfig = None,
    yes: Annotated[bool, typer.Option("--yes", help="Make a second key although one is active.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a role's keys on this host.

    consumer: recipient and ops key. producer NAME: signing key. ops: ops key. hook (on a consumer): what the Windows
    hook seals to.
    """
    with Report("keys", as_json=as_json) as report:
        uses = key_files.uses_of(role, recipient_only=recipient_only)
        _check_producer(role, producer)
        settings = keys_settings(directory, config, role, passphrase_file)
        target = settings.directory
        made = key_files.make(settings, uses, producer=producer, algorithm=algorithm, again=yes)
        for key in made:
            report.say(
                f"{key.document.use} key {key.document.key_id} ({key.document.algorithm})\n"
                f"  fingerprint {key.document.fingerprint}\n"
                f"  public  {key.public}\n  private {key.private}\n  next: {key.next_step}"
            )
        if hint := key_files.owner_hint(target):
            report.progress(hint)
        report["keys"] = [
            {**key_files.describe(target, key.document), "public_file": str(key.public), "next": key.next_step}
            for key in made
        ]


def _check_producer(role: str, producer: str | None) -> None:
    if (role == "producer") != (producer is not None):
        raise ConfigurationError("keys init: `keys init producer NAME` needs a name, the other roles have none")
    try:
        TypeAdapter(ProducerName | None).validate_python(producer)
    except ValidationError:
        raise ConfigurationError(
            f"producer {producer!r}: must be 1 to 64 letters, digits, dots, dashes, underscores: its certificate's name"
        ) from None


@app.command()
def enroll(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Public documents (*.pub.json).")],
    directory: Folder = None,
    config: AnyConfig = None,
    role: RoleName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show whose keys these are; with --yes, trust them on this host. Compare the fingerprint by voice first."""
    with Report("keys", as_json=as_json) as report:
        target = keys_settings(directory, config, role).directory
        plan = key_enrolment.plan(target, files)
        table = Table("file", "key", "use", "producer", "algorithm", "change", "fingerprint")
        for enrolment in plan:
            key = enrolment.document
            owner = key.producer or "-"
            table.add_row(
                str(enrolment.source), key.key_id, key.use, owner, key.algorithm, enrolment.change, key.fingerprint
            )
        report.say(table)
        lost = key_enrolment.left_without(target, plan)
        for warning in lost:
            report.say(f"warning: {warning}")
        if yes:
            key_enrolment.enroll(target, plan)
            report.say(f"enrolled in {target}")
        elif any(enrolment.changes for enrolment in plan):
            report.say(f"nothing was written to {target}: compare the fingerprints, then add --yes")
        report["directory"] = str(target)
        report["written"] = yes
        report["warnings"] = lost
        report["keys"] = [
            {
                **key_files.describe(target, enrolment.document),
                "change": enrolment.change,
                "file": str(enrolment.source),
            }
            for enrolment in plan
        ]


@app.command("list")
def list_(
    directory: Folder = None,
    passphrase_file: PassphraseFile = None,
    config: AnyConfig = None,
    role: RoleName = None,
    as_json: AsJson = False,
) -> None:
    """Every key of this host's key directory, and until when the private file of a retired one must stay."""
    with Report("keys", as_json=as_json) as report:
        settings = keys_settings(directory, config, role, passphrase_file)
        target = settings.directory
        keys = [
            key_files.describe(target, document) | {"private_fault": key_files.private_fault(settings, document)}
            for document in Keyring.of(settings, private=False).documents()
        ]
        table = Table(
            "key", "use", "algorithm", "producer", "status", "created", "since", "private here", "fingerprint"
        )
        for key in keys:
            table.add_row(
                key["key_id"],
                key["use"],
                key["algorithm"],
                key["producer"] or "-",
                key["status"],
                key["created_at"],
                key["status_since"] or "-",
                _private(key),
                key["fingerprint"],
            )
        report.say(table)
        report["directory"] = str(target)
        report["keys"] = keys


def _private(key: dict[str, Any]) -> str:
    if not key["private_here"]:
        return "no"
    if key["private_fault"]:
        return f"yes, but not for this account: {key['private_fault']}"
    return f"keep until {key['private_kept_until']}" if key["private_kept_until"] else "yes"
