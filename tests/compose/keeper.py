"""What the timer of docs/compose.md does, in the place of systemd and more often."""

from __future__ import annotations

import shlex
import threading
from typing import Self

from tests.compose.engine import Engine
from tests.compose.project import ROOT
from tests.lab.process import LabError, run_tool, wait_for

UNIT = ROOT / "ops/systemd/passrelay-containers.service"
_EVERY_SECONDS = 1


class Keeper:
    """The unit's command, again and again until the context ends."""

    def __init__(self, engine: Engine) -> None:
        (line,) = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
        self._command = shlex.split(line.removeprefix("ExecStart=").replace("$$", "$"))
        self._engine = engine
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._looks = 0
        self.faults: list[LabError] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait_for_looks(self) -> None:
        """Until it has looked twice more: once after everything that was done before this."""
        seen = self._looks
        wait_for(lambda: self._looks >= seen + 2, what="the containers were looked at twice")

    def _work(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            try:
                run_tool(self._command, env=self._engine.environment, timeout_seconds=120)
            except LabError as error:
                self.faults.append(error)
            self._looks += 1
