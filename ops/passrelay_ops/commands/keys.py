"""`passrelay keys`: make keys where they are used, and enroll the public halves on the other side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from passrelay_ops import key_files
from passrelay_ops.options import AnyConfig, AsJson, RoleName, Yes, default_path, role_of
from passrelay_ops.report import Report
from passrelay_schemas.envelope import ProducerName
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.settings import ROLES, KeysSettings
from passrelay_schemas.settings_file import load

app = typer.Typer(help="Signing, recipient and ops keys.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option("--directory", metavar="PATH", help="The key directory, instead of the configuration's."),
]


def _directory(directory: Path | None, config: Path | None, role: str | None) -> Path:
    """The key directory: as told, or of the named configuration, or of the only one that this host's files name."""
    if directory is not None:
        return directory
    if config is not None:
        return load(ROLES[role_of(config, role)], config).keys.directory
    paths = [path for name in ([role] if role in ROLES else ROLES) if (path := default_path(name)).exists()]
    found = {load(ROLES[path.stem], path).keys.directory for path in paths}
    if len(found) > 1:
        names = ", ".join(str(path) for path in sorted(found))
        raise ConfigurationError(f"this host's configurations name several key directories ({names}): say --config")
    return found.pop() if found else KeysSettings().directory


@app.command()
def init(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="consumer, producer or ops.")],
    producer: Annotated[
        str | None, typer.Argument(metavar="[PRODUCER]", help="The producer's name, with ROLE producer.")
    ] = None,
    recipient_only: Annotated[
        bool, typer.Option("--recipient-only", help="consumer: no ops key, it is made on an operator's host.")
    ] = False,
    algorithm: Annotated[str | None, typer.Option("--algorithm", help="Of the recipient key.")] = None,
    directory: Folder = None,
    config: AnyConfig = None,
    yes: Annotated[bool, typer.Option("--yes", help="Make a second key although one is active.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a role's keys on this host: consumer (recipient and ops key), producer NAME (signing key), ops (ops key)."""
    with Report("keys", as_json=as_json) as report:
        uses = key_files.uses_of(role, recipient_only=recipient_only)
        _check_producer(role, producer)
        target = _directory(directory, config, role)
        made = key_files.make(target, uses, producer=producer, algorithm=algorithm, again=yes)
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
        target = _directory(directory, config, role)
        plan = key_files.plan(target, files)
        table = Table("file", "key", "use", "producer", "algorithm", "change", "fingerprint")
        for enrolment in plan:
            key = enrolment.document
            owner = key.producer or "-"
            table.add_row(
                str(enrolment.source), key.key_id, key.use, owner, key.algorithm, enrolment.change, key.fingerprint
            )
        report.say(table)
        if yes:
            key_files.enroll(target, plan)
            report.say(f"enrolled in {target}")
        elif any(enrolment.changes for enrolment in plan):
            report.say(f"nothing was written to {target}: compare the fingerprints, then add --yes")
        report["directory"] = str(target)
        report["written"] = yes
        report["keys"] = [
            {
                **key_files.describe(target, enrolment.document),
                "change": enrolment.change,
                "file": str(enrolment.source),
            }
            for enrolment in plan
        ]


@app.command("list")
def list_(directory: Folder = None, config: AnyConfig = None, role: RoleName = None, as_json: AsJson = False) -> None:
    """Every key of this host's key directory."""
    with Report("keys", as_json=as_json) as report:
        target = _directory(directory, config, role)
        keys = [key_files.describe(target, document) for document in Keyring(target).documents()]
        table = Table("key", "use", "algorithm", "producer", "status", "created", "private here", "fingerprint")
        for key in keys:
            table.add_row(
                key["key_id"],
                key["use"],
                key["algorithm"],
                key["producer"] or "-",
                key["status"],
                key["created_at"],
                "yes" if key["private_here"] else "no",
                key["fingerprint"],
            )
        report.say(table)
        report["directory"] = str(target)
        report["keys"] = keys
