"""Which key directory a `passrelay keys` command works on, and with which passphrase."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from passrelay_ops.options import default_path, role_of
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.process_settings import KeysSettings
from passrelay_schemas.settings import ROLES
from passrelay_schemas.settings_file import load

Folder = Annotated[
    Path | None,
    typer.Option("--directory", metavar="PATH", help="The key directory, instead of the configuration's."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="PATH", help="Instead of the configuration's [keys] passphrase_file."),
]


def keys_settings(
    directory: Path | None, config: Path | None, role: str | None, passphrase_file: Path | None = None
) -> KeysSettings:
    """[keys] as told, or of the named configuration, or of the only one that this host's files name."""
    found = _configured(directory, config, role)
    return found if passphrase_file is None else found.model_copy(update={"passphrase_file": passphrase_file})


def _configured(directory: Path | None, config: Path | None, role: str | None) -> KeysSettings:
    if directory is not None:
        return KeysSettings(directory=directory)
    if config is not None:
        return load(ROLES[role_of(config, role)], config).keys
    paths = [path for name in ([role] if role in ROLES else ROLES) if (path := default_path(name)).exists()]
    found = {keys.directory: keys for path in paths if (keys := load(ROLES[path.stem], path).keys)}
    if len(found) > 1:
        names = ", ".join(str(path) for path in sorted(found))
        raise ConfigurationError(f"this host's configurations name several key directories ({names}): say --config")
    return next(iter(found.values()), KeysSettings())
