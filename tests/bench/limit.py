"""The directory's own limit: userPassword modifies by OpenLDAP's C client over some connections, nothing else."""

from __future__ import annotations

import base64
import os
import subprocess
import time

from tests.lab.directory import Directory
from tests.lab.folder import canary_password
from tests.lab.process import LabError


def limit(directory: Directory, users: list[str], *, connections: int) -> float:
    """One modify for each user, spread over so many `ldapmodify` processes: modifies per second.

    The clock starts before the clients do, which costs them some milliseconds of several seconds. Passwords go in
    through a pipe; the service account's is read from its file by the client itself.
    """
    parts = [users[start::connections] for start in range(connections)]
    texts = [_ldif(directory, part) for part in parts]
    began = time.perf_counter()
    clients = [_client(directory) for _ in parts]
    for client, text in zip(clients, texts, strict=True):
        assert client.stdin is not None
        # Fits the pipe together with what the client reads at once; the client never waits for us.
        client.stdin.write(text)
        client.stdin.close()
    codes = [client.wait(600) for client in clients]
    seconds = time.perf_counter() - began
    if any(codes):
        raise LabError(f"ldapmodify ended with {codes}")
    return len(users) / seconds


def _client(directory: Directory) -> subprocess.Popen[bytes]:
    # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
    url = f"ldaps://127.0.0.1:{directory.listening.ldaps}"
    command = ["ldapmodify", "-x", "-H", url, "-D", directory.service_dn, "-y", str(directory.password_file)]
    environment = {**os.environ, "LDAPTLS_CACERT": str(directory.ca_file), "LDAPTLS_REQCERT": "demand"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)


def _ldif(directory: Directory, users: list[str]) -> bytes:
    parts = []
    for user in users:
        value = base64.b64encode(canary_password().encode()).decode()
        parts.append(
            f"dn: {directory.user_dn(user)}\nchangetype: modify\nreplace: userPassword\nuserPassword:: {value}\n\n"
        )
    return "".join(parts).encode()
