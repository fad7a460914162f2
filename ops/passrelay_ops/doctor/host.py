"""The configuration files of one host as checks: what can be read, and which tables name files that cannot be used."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from passrelay_ops import config_check
from passrelay_ops.check import Result, Row
from passrelay_ops.config_files import Fault
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.order import Order
from passrelay_schemas.settings import ROLES, OpsSettings, ProducerSettings, RoleSettings
from passrelay_schemas.settings_file import load

FILE = "config.file"
TABLES = ("broker", "keys", "spool", "source", "idm", "domain")
"""The tables of a configuration that name files."""


@dataclass(frozen=True)
class HostFile:
    """One configuration file; `settings` is None when it cannot be read."""

    path: Path
    role: str
    """Empty when nothing tells it."""
    settings: RoleSettings | None
    rows: Sequence[Row]

    @property
    def subject(self) -> str:
        """What a row about this file is about."""
        return str(self.path)

    def good(self, table: str) -> bool:
        """The files that this table names can be used."""
        return all(row.id != f"config.{table}" or row.result is Result.OK for row in self.rows)


def examine(path: Path) -> HostFile:
    """Read one file and look at those that it names."""
    role = _role(path)
    if role is None:
        detail = "neither its name nor its tables tell whose it is"
        repair = f"rename it {', '.join(f'{name}.toml' for name in ROLES)}: whichever role it is for"
        return HostFile(path, "", None, [Row(FILE, str(path), Result.FAIL, detail, repair)])
    try:
        settings = load(ROLES[role], path)
    except ConfigurationError as error:
        text = str(error).removeprefix(f"configuration {path}:").strip()
        row = Row(
            FILE, str(path), Result.FAIL, "; ".join(text.split("\n  ")), "correct the file: docs/configuration.md"
        )
        return HostFile(path, role, None, [row])
    return HostFile(path, role, settings, rows(path, settings, config_check.check(path, role)))


def _role(path: Path) -> str | None:
    """By the file's name; else by a table that only one role has. A guess could give a user rights it must not have."""
    if path.stem in ROLES:
        return path.stem
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "ops"  # any role says what is wrong with it
    if not document.keys().isdisjoint({"source", "spool", "filter"}):
        return "producer"
    if "consumer" in document:
        return "consumer"
    domains = document.get("domain")
    listed = domains if isinstance(domains, list) else []
    return "ops" if any(isinstance(domain, dict) and "ad" in domain for domain in listed) else None


def rows(path: Path, settings: RoleSettings, faults: Iterable[Fault]) -> list[Row]:
    """One row for the file, for each of its tables, and for what an operator lacks; hints do not make one fail."""
    of_table: dict[str, list[Fault]] = {table: [] for table in ("file", *_tables(settings))}
    for fault in faults:
        table = fault.subject.partition(".")[0].partition(" ")[0]
        of_table[table if table in of_table else "file"].append(fault)
    return [*(_row(table, path, found) for table, found in of_table.items()), *_absent(path, settings)]


def _absent(path: Path, settings: RoleSettings) -> Iterator[Row]:
    """What an operator's file leaves out, so that nobody looks there."""
    if not isinstance(settings, OpsSettings):
        return
    if settings.idm is None:
        why = "there is no [idm], so no IdM server was looked at"
        yield Row("idm.connect", str(path), Result.UNKNOWN, why, "write [idm] as in the consumers' file")
    # A domain that is ordered by time has no AD.
    blind = [domain.name for domain in settings.domain if domain.order is Order.KVNO and domain.ad is None]
    for subject in blind if settings.domain else [str(path)]:
        why = "there is no [domain.ad], so no domain controller was looked at"
        repair = "write [[domain]] with [domain.ad]: docs/runbooks/ad-setup.md"
        yield Row("ad.connect", subject, Result.UNKNOWN, why, repair)


def _tables(settings: RoleSettings) -> list[str]:
    given = {"broker", "keys"}
    if isinstance(settings, ProducerSettings):
        given |= {"spool"} | ({"source"} if settings.source.stdin is None else set())
    else:
        given |= {"domain"} if getattr(settings, "domain", ()) else set()
        given |= set() if isinstance(settings, OpsSettings) and settings.idm is None else {"idm"}
    return [table for table in TABLES if table in given]


def _row(table: str, path: Path, found: Sequence[Fault]) -> Row:
    wrong = [fault for fault in found if not fault.hint]
    if not wrong:
        return Row(f"config.{table}", str(path), Result.OK, "; ".join(_words(fault, path) for fault in found) or "good")
    # A fault says "what: repair"; each has its own.
    details, repairs = zip(*(_split(fault, path) for fault in wrong), strict=True)
    return Row(f"config.{table}", str(path), Result.FAIL, "; ".join(details), "; ".join(filter(None, repairs)))


def _words(fault: Fault, path: Path) -> str:
    return fault.detail if fault.subject == str(path) else f"{fault.subject}: {fault.detail}"


def _split(fault: Fault, path: Path) -> tuple[str, str]:
    what, _, repair = _words(fault, path).rpartition(": ")
    return (what, repair) if what else (repair, "")
