"""Small C clients of OpenLDAP's library, compiled where they are needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.process import MissingServerError, run_tool

_HEADER = Path("/usr/include/ldap.h")
_WARNINGS = ("-Wall", "-Wextra", "-Werror")


def compiled(source: Path, folder: Path) -> Path:
    """The program, in the folder; MissingServerError names the Debian package that is not there."""
    for package, found in {"gcc": shutil.which("gcc") is not None, "libldap-dev": _HEADER.exists()}.items():
        if not found:
            raise MissingServerError(f"Debian package {package} is not installed: `./run bench` installs it")
    program = folder / source.stem
    run_tool(["gcc", "-std=gnu11", "-O2", *_WARNINGS, "-o", program, source, "-lldap", "-llber", "-lpthread"])
    return program
