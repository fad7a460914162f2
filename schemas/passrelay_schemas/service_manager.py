"""What systemd is told: started, alive, ending (sd_notify(3)). Where nobody asked to be told, nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator

from passrelay_schemas.health import Troubles

_MICROSECONDS = 1_000_000


@contextlib.contextmanager
def supervised(alive: Troubles) -> Iterator[None]:
    """READY=1, then WATCHDOG=1 twice in each WatchdogSec= as long as the process does its work, then STOPPING=1.

    While `alive` names a trouble the watchdog hears nothing, so that systemd restarts the service, and
    `systemctl status` shows the trouble.
    """
    seconds = _watchdog_seconds()
    ended = threading.Event()

    def beat() -> None:
        while True:
            troubles = alive()
            _tell(f"STATUS={'; '.join(troubles)}" if troubles else "STATUS=\nWATCHDOG=1")
            if ended.wait(seconds / 2):
                return

    _tell("READY=1")
    thread = threading.Thread(target=beat, name="watchdog", daemon=True)
    if seconds:
        thread.start()
    try:
        yield
    finally:
        _tell("STOPPING=1")
        ended.set()
        if seconds:
            thread.join()


def _watchdog_seconds() -> float:
    """Systemd's WatchdogSec= for this process; 0 without."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    return int(os.environ.get("WATCHDOG_USEC", "0")) / _MICROSECONDS


def _tell(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or sys.platform == "win32":
        return
    # A manager that went away must not end the service.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(state.encode())
