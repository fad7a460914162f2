"""Who may look at an IdM server's configuration and change it; the password comes from a file or a terminal."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path

from passrelay_schemas.distinguished_name import canonical
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret import Secret
from passrelay_schemas.secret_file import read_secret_file

DIRECTORY_MANAGER = "cn=Directory Manager"


@dataclass(frozen=True)
class Login:
    """A DN and its password."""

    dn: str
    password: Secret


def ask(dn: str, password_file: Path | None) -> Login:
    """The login with the password in the file (mode 0600), or as it is typed; ConfigurationError without either."""
    try:
        spelled = canonical(dn)
    except ValueError as error:
        raise ConfigurationError(f"--bind-dn {error}") from None
    if password_file is not None:
        return Login(spelled, read_secret_file(password_file, what="--bind-password-file"))
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{spelled}: there is no terminal to ask for the password: name a file that holds it (mode 0600) with "
            "--bind-password-file"
        )
    typed = getpass.getpass(f"Password of {spelled}: ")
    if not typed:
        # A bind with an empty password succeeds and is anonymous (RFC 4513 5.1.2).
        raise ConfigurationError(f"{spelled}: the password is empty: type it, or use --bind-password-file")
    return Login(spelled, Secret(typed))
