"""Ports and loopback addresses that the lab picks for itself, safe beside another lab on the same machine."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

from tests.lab.process import LabError

_LOCKS = Path(tempfile.gettempdir()) / f"passrelay-lab-{os.getuid()}"
# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port we have picked.
_PORTS = range(20000, 32000)


class Reservations:
    """Ports and addresses held under file locks until `release` or the end of the process, however it ends."""

    def __init__(self) -> None:
        self._held: list[IO[str]] = []
        _LOCKS.mkdir(mode=0o700, exist_ok=True)

    def _hold(self, name: str) -> bool:
        handle = (_LOCKS / name).open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return False
        if os.fstat(handle.fileno()).st_nlink == 0:  # its last holder has removed it since we opened it
            handle.close()
            return False
        self._held.append(handle)
        return True

    def port(self, address: str = "127.0.0.1") -> int:
        """A TCP port that nothing listens on and no other lab has reserved."""
        for _ in range(2000):
            port = random.choice(_PORTS)
            if _is_free(address, port) and self._hold(f"port-{port}"):
                return port
        raise LabError("no free TCP port between 20000 and 31999")

    def address(self, ports: tuple[int, ...] = (88, 135, 389, 445, 464, 636, 3268)) -> str:
        """A loopback address 127.77.x.y with free well-known ports: Samba cannot move its LDAP and Kerberos ports."""
        for _ in range(2000):
            address = f"127.77.{random.randint(1, 250)}.{random.randint(2, 250)}"
            if all(_is_free(address, port) for port in ports) and self._hold(f"address-{address}"):
                return address
        raise LabError("no free loopback address in 127.77.0.0/16: does a server listen on port 389 of all addresses?")

    def release(self) -> None:
        """Give everything back."""
        while self._held:
            handle = self._held.pop()
            Path(handle.name).unlink(missing_ok=True)  # before the lock is gone: nobody else can hold it yet
            handle.close()


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def accepts(address: str, port: int) -> bool:
    """True when a TCP connection is accepted there now."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
