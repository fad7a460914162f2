"""Files that hold a secret: readable by their owner alone, or not used."""

from __future__ import annotations

import os
from pathlib import Path

from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret import Secret

_MOST_BYTES = 4096


def mode_fault(path: Path) -> str | None:
    """What is wrong with the file's mode and how to repair it; None when only its owner can read it."""
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        return f"mode {mode:04o} lets others read it: `chmod 600 {path}`, and change the secret if they did"
    return None


def read_secret_file(path: Path, *, what: str) -> Secret:
    """The secret in a text file, without the final newline. ConfigurationError names the file and the repair."""
    try:
        fault = mode_fault(path)
        with path.open("rb") as source:
            raw = source.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{what} {path}: cannot be read ({error.strerror}): check path, owner and mode"
        ) from None
    if fault is not None:
        raise ConfigurationError(f"{what} {path}: {fault}")
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{what} {path}: not UTF-8 text") from None
    if not text or len(raw) > _MOST_BYTES:
        raise ConfigurationError(f"{what} {path}: must hold one secret of 1 to {_MOST_BYTES} bytes")
    return Secret(text)
