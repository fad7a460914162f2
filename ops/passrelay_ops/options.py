"""Options that many commands share, and how their values are read."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.settings import ROLES
from passrelay_schemas.settings_section import DEFAULT_DIRECTORY

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def default_path(role: str) -> Path:
    """Where a role's file is unless --config says otherwise."""
    return DEFAULT_DIRECTORY / f"{role}.toml"


ProducerConfig = Annotated[
    Path, typer.Option("--config", metavar="PATH", help="The producer's configuration.", show_default=True)
]
ConsumerConfig = Annotated[
    Path, typer.Option("--config", metavar="PATH", help="The consumer's configuration.", show_default=True)
]
OpsConfig = Annotated[
    Path, typer.Option("--config", metavar="PATH", help="The operator's configuration.", show_default=True)
]
AnyConfig = Annotated[
    Path | None, typer.Option("--config", metavar="PATH", help="A configuration file of any role.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document as stdout's last line.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only the plan is shown.")]
RoleName = Annotated[
    str | None,
    typer.Option("--role", metavar="ROLE", help="producer, consumer or ops, where the file's name does not tell."),
]


def role_of(path: Path, role: str | None) -> str:
    """The role of a configuration file: as told, or by its name; ConfigurationError when neither helps."""
    name = role or path.stem
    if name not in ROLES:
        where = f"--role {role}" if role else f"configuration {path}: its name does not tell the role"
        raise ConfigurationError(f"{where}: name one of {', '.join(ROLES)} with --role")
    return name


def parse_duration(text: str, *, option: str) -> timedelta:
    """A duration such as 90s, 15m, 24h or 7d; ConfigurationError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(f"{option} {text!r}: not a duration: write 90s, 15m, 24h or 7d")
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    except OverflowError:
        raise ConfigurationError(f"{option} {text!r}: too long: write 90s, 15m, 24h or 7d") from None


def parse_moment(text: str, *, option: str) -> datetime:
    """A moment: RFC 3339 with its offset, or a duration before now; ConfigurationError for anything else."""
    if _DURATION.fullmatch(text.strip()):
        try:
            return utc_now() - parse_duration(text, option=option)
        except OverflowError:
            raise ConfigurationError(f"{option} {text!r}: lies before year 1") from None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option} {text!r}: not a time: write 2026-11-24T08:00:00Z, or 24h for a day ago"
        ) from None
    if moment.tzinfo is None:
        raise ConfigurationError(f"{option} {text!r}: has no offset: end it with Z for UTC, or +01:00")
    return moment
