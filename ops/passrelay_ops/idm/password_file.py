"""The file with the service account's password: made once, for its owner alone, and never printed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret_file import read_secret_file

_BYTES = 32


def ensure(path: Path) -> bool:
    """Make the file with a new random password, mode 0600, and tell whether it was made; one that is there is checked.

    ConfigurationError names the file and the repair. It ends without a newline, so that ldapmodify can read it too.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        read_secret_file(path, what="[idm] password_file")
        return False
    except OSError as error:
        raise ConfigurationError(
            f"[idm] password_file {path}: cannot be made ({error.strerror}): make its directory, or correct the path"
        ) from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(_BYTES))
        file.flush()
        # The account gets this password next: it must not be lost in a power cut.
        os.fsync(file.fileno())
    return True
