"""The directory's own limit: userPassword modifies by a bare C client (limit.c) over some connections, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.lab.directory import Directory
from tests.lab.folder import canary_password
from tests.lab.process import run_tool

SOURCE = Path(__file__).with_name("limit.c")


def limit(client: Path, directory: Directory, users: Sequence[str], *, connections: int) -> float:
    """One modify for each user, spread over so many connections that are open before the clock starts: per second.

    Passwords go in through a pipe; the service account's is read from its file by the client itself.
    """
    # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
    url = f"ldaps://127.0.0.1:{directory.listening.ldaps}"
    lines = "".join(f"{directory.user_dn(user)}\t{canary_password()}\n" for user in users)
    arguments: list[str | Path] = [
        url,
        directory.ca_file,
        directory.service_dn,
        directory.password_file,
        str(connections),
    ]
    said = run_tool([client, *arguments], stdin=lines.encode(), timeout_seconds=600)
    count, seconds = said.split()
    return int(count) / float(seconds)
