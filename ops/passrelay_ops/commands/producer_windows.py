"""`passrelay producer windows`: set hook and service up on this Windows domain controller, and take them away."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from passrelay_ops.check import Result
from passrelay_ops.doctor import windows as checks
from passrelay_ops.options import AsJson, ProducerConfig, Yes, default_path
from passrelay_ops.report import Report
from passrelay_producer.spool import Spool
from passrelay_producer.windows import DLL, folders, machine, plan
from passrelay_producer.windows.facts import Facts
from passrelay_producer.windows.hands import WindowsHands
from passrelay_producer.windows.plan import Plan, Wanted
from passrelay_schemas import windows_acl
from passrelay_schemas.errors import KeyFileError, SafetyError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import read_public
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.source_settings import SpoolSettings

app = typer.Typer(help="The hook and the service on a Windows domain controller.", no_args_is_help=True)
_CONFIG = default_path("producer")


@app.command()
def install(
    hook_key: Annotated[
        Path | None, typer.Option("--hook-key", metavar="FILE", help="The hook key's *.pub.json, from a consumer.")
    ] = None,
    dll: Annotated[Path | None, typer.Option("--dll", metavar="FILE", help="Default: beside this Python.")] = None,
    signed_by_microsoft: Annotated[
        bool, typer.Option("--signed-by-microsoft", help="The DLL is: install it although RunAsPPL is on.")
    ] = False,
    config: ProducerConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Folders, registry, DLL, LSA's list, event log and service; may be repeated, also to repair or to update."""
    with Report("windows", as_json=as_json) as report:
        settings = _settings(config)
        facts = machine.look(_records(settings))
        config = _absolute(config)
        wanted = Wanted(
            config=config,
            settings=settings,
            producer=None if settings is None else _producer(settings),
            hook_key=None if hook_key is None else read_public(hook_key),
            dll=machine.dll_file(dll or Path(sys.executable).parent / DLL),
            python=Path(sys.executable),
            folders=[folders.look(path) for path in plan.own_folders(config, settings)],
            occupied=folders.occupied(os.environ),
            in_environment=sys.prefix != sys.base_prefix,
            trusted=windows_acl.trusted_here(),
            signed_by_microsoft=signed_by_microsoft,
        )
        _carry_out(report, plan.install(facts, wanted), yes=yes)


@app.command()
def remove(
    remove_data: Annotated[
        bool, typer.Option("--remove-data", help="Also keys, spool and log; refused while anything waits.")
    ] = False,
    config: ProducerConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Service, LSA's entry and DLL; the rest after a restart. Keys, spool and records stay unless --remove-data."""
    with Report("windows", as_json=as_json) as report:
        settings = _settings(config)
        config = _absolute(config)
        facts = machine.look(_records(settings), also=config.parent / "records")
        chosen = plan.remove(
            facts,
            data=[folders.look(path) for path in _data(config, settings, facts)],
            occupied=folders.occupied(os.environ),
            queued=_queued(config, settings),
            with_data=remove_data,
        )
        _carry_out(report, chosen, yes=yes)


@app.command()
def status(config: ProducerConfig = _CONFIG, as_json: AsJson = False) -> None:
    """What `doctor` checks of hook and service, alone; exit code 1 when a check fails."""
    with Report("windows", as_json=as_json) as report:
        settings = _settings(config)
        facts = machine.look(_records(settings))
        rows = checks.rows(str(config), facts, producer=None if settings is None else _producer(settings))
        if settings is not None and settings.source.hook is not None:
            rows.append(checks.controller(str(config), facts, settings.source.hook))
        report["facts"] = _described(facts)
        report["checks"] = [row.document() for row in rows]
        for row in rows:
            report.say(f"{row.result.value:8}{row.id}: {row.detail}")
            if row.result is Result.FAIL:
                report.fail(row.id, row.subject, f"{row.id}: {row.detail}: {row.repair}")


def _carry_out(report: Report, chosen: Plan, *, yes: bool) -> None:
    report["refused"] = list(chosen.refused)
    report["steps"] = [step.text for step in chosen.steps]
    report["after"] = list(chosen.after)
    report["done"] = yes and not chosen.refused
    if chosen.refused:
        raise SafetyError("; ".join(chosen.refused))
    hands = WindowsHands()
    for step in chosen.steps:
        report.say(step.text)
        if yes:
            step.act(hands)
    if not yes and chosen.steps:
        report.say("nothing was done: add --yes")
    for text in chosen.after:
        report.say(f"then: {text}")


def _settings(config: Path) -> ProducerSettings | None:
    return load(ProducerSettings, config) if config.exists() else None


def _producer(settings: ProducerSettings) -> str | None:
    try:
        return Keyring.of(settings.keys).signer().document.producer
    except KeyFileError:
        if settings.keys.directory.exists() and any(settings.keys.directory.glob("*.key")):
            raise  # a key that is there and cannot be used is no beginning
        return None


def _records(settings: ProducerSettings | None) -> Path | None:
    hook = settings.source.hook if settings is not None else None
    return None if hook is None else hook.folder


def _absolute(config: Path) -> Path:
    """Without `..` too, or a drive's root could have another name."""
    return Path(os.path.abspath(config))  # noqa: PTH100 - absolute() keeps `..`


def _data(config: Path, settings: ProducerSettings | None, facts: Facts) -> Sequence[Path]:
    """What --remove-data removes, the base last."""
    named = [] if settings is None else [settings.spool.path.parent, settings.keys.directory]
    named += [] if facts.configured is None else [facts.configured]
    named += [Path(facts.settings.folder)] if facts.settings is not None and facts.settings.folder else []
    return [*dict.fromkeys([*named, config.parent])]


def _queued(config: Path, settings: ProducerSettings | None) -> int:
    """Of the configured spool, and of one where the first installation makes it: producer.toml may be gone."""
    first = SpoolSettings(path=config.parent / "spool" / "spool.sqlite")
    spools = [first] if settings is None else [settings.spool, first]
    found = 0
    for path, spool_settings in {_absolute(spool.path): spool for spool in reversed(spools)}.items():
        if path.exists():
            with Spool(spool_settings) as spool:
                found += spool.queued_count()
    return found


def _described(facts: Facts) -> dict[str, object]:
    loaded = facts.loaded_dll
    return {
        "role": facts.role.value,
        "hook": facts.status.state or "not loaded",
        "loaded_version": facts.status.version or None,
        "loaded_sha256": loaded.sha256 if loaded else None,
        "seals_to": (facts.status.key_id or None) if facts.loaded else None,
        "installed_version": facts.dll.version if facts.dll else None,
        "installed_sha256": facts.dll.sha256 if facts.dll else None,
        "service": facts.service.state.value if facts.service else None,
        "records": facts.waiting.records,
        "quarantined": facts.waiting.quarantined,
        "lost": facts.status.lost,
        "run_as_ppl": facts.protected,
    }
