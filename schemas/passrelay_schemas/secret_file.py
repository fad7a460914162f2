"""Files that hold a secret: readable by their owner alone, or not used.

Two places have wider modes and are private all the same, because nobody else can get to them: what systemd hands to
one service (LoadCredential=: with User= the service's ACL shows as mode 0440) and what a container engine hands to one
container (/run/secrets, 0444 by default). On Windows the access list is looked at instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from passrelay_schemas import windows_acl
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret import Secret

_MOST_BYTES = 4096
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""systemd.exec(5) sets it for the processes of a unit that has credentials."""
_CONTAINER_SECRETS = Path("/run/secrets")
_ROOT = 0


def mode_fault(path: Path) -> str | None:
    """What is wrong with the file's mode and how to repair it; None when nobody but its owner can get at it."""
    if sys.platform == "win32":
        return windows_acl.read_fault(path)
    found = path.stat()
    mode = found.st_mode & 0o777
    if not mode & 0o077:
        return None
    if not mode & _refused_bits(path.resolve()) and found.st_uid in (_ROOT, os.geteuid()):
        return None
    return f"mode {mode:04o} lets others read it: `chmod 600 {path}`, and change the secret if they did"


def _refused_bits(path: Path) -> int:
    credentials = os.environ.get(_CREDENTIALS)
    if credentials and path.is_relative_to(Path(credentials).resolve()):
        return 0o037
    return 0o033 if path.is_relative_to(_CONTAINER_SECRETS) else 0o077


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
