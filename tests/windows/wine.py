"""wine as a place to run the DLL: one prefix and one wineserver for all tests of a run.

A prefix has 700 MB and takes seconds to make, so it is kept beside IPA's plugin, for each version of wine; a run that
finds it in use makes another one. `LAB_WINE` names another wine64 (with `wineserver64` beside it), so that the tests
run on both of Debian's versions.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
from pathlib import Path
from typing import IO

from tests.lab.ipa_plugin import default_cache
from tests.lab.process import LabError, MissingServerError, Process, run_tool, wait_for

_WINE = Path("/usr/lib/wine/wine64")


def wine_program() -> Path:
    """The wine64 that tests use; MissingServerError where there is none."""
    program = Path(os.environ.get("LAB_WINE", _WINE))
    if not program.exists():
        raise MissingServerError(f"{program} is not installed: `./run test --only windows` installs wine64, as root")
    return program


def wine_version() -> str:
    """As `wine --version` says it, without its package's name."""
    return run_tool([wine_program(), "--version"], env={"HOME": "/nonexistent"}).split()[0]


class Wine:
    """One prefix with its wineserver."""

    def __init__(self, folder: Path) -> None:
        self.program = wine_program()
        self.version = wine_version()
        self.prefix, self._lock = _own_prefix(default_cache(), self.version)
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(folder),
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all,+eventlog",
            "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe=d",
        }
        self._server = Process(
            "wineserver",
            [self.program.with_name("wineserver64"), "-f", "-p"],
            log=folder / "wineserver.log",
            env=self.environment,
        )

    def start(self) -> None:
        """Make the prefix if it is new; the server stays for all programs that follow."""
        made = self.prefix / "made"
        self._server.start()
        if not made.exists():
            # Its output is no pipe: wine's services inherit it, and outlive it.
            boot = Process("wineboot", [self.program, "wineboot", "--init"], log=self._server.log, env=self.environment)
            boot.start()
            wait_for(lambda: not boot.running, what="wineboot ended", timeout_seconds=600)
            made.touch()
        if not self._server.running:
            raise LabError(f"wineserver ended: {self._server.tail()}")

    def restart(self) -> None:
        """Like a restart of Windows: what its services read at their start is read again."""
        self._end()
        self.start()

    def stop(self) -> None:
        """End the server and every program of the prefix: that is what SIGINT means to it; TERM leaves them behind."""
        self._end()
        self._lock.close()

    def _end(self) -> None:
        self._server.signal(signal.SIGINT)
        wait_for(lambda: not self._server.running, what="wineserver ended")
        self._server.stop()


def _own_prefix(cache: Path, version: str) -> tuple[Path, IO[str]]:
    """A prefix that nobody else uses, and the lock that keeps it so."""
    for number in itertools.count(1):
        prefix = cache / f"{version}-{number}"
        prefix.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (prefix / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return prefix, lock
    raise AssertionError("unreachable")


def windows_path(path: Path) -> str:
    """A path of this machine as wine's programs see it."""
    return "Z:" + str(path).replace("/", "\\")
