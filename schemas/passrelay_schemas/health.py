"""What a process answers at /healthz and /readyz: nothing is wrong, or what is. No account, no secret."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Troubles = Callable[[], list[str]]
"""Everything that is wrong at this moment, one short line each; empty when nothing is. Never waits for a server."""


@dataclass(frozen=True)
class Health:
    """The two questions that a service manager or a monitor asks."""

    alive: Troubles
    """The process does its work. When it does not, a restart is the repair."""
    ready: Troubles
    """It can do its main job now. When it cannot, what it needs is missing; a restart does not bring that back."""


class Pulse:
    """Beaten by a loop each time it turns, so that others can see that it does. Not on any wall clock."""

    def __init__(self, name: str, *, most_seconds: float) -> None:
        self._name = name
        self._most_seconds = most_seconds
        self._at = time.monotonic()

    def beat(self) -> None:
        """The loop has turned."""
        self._at = time.monotonic()

    def troubles(self) -> list[str]:
        """That the loop has not turned for longer than it may take."""
        quiet = time.monotonic() - self._at
        return [] if quiet <= self._most_seconds else [f"{self._name}: has not turned for {quiet:.0f} s"]


def dead(threads: Iterable[threading.Thread]) -> list[str]:
    """The threads that have ended, or never began."""
    return [f"thread {thread.name}: not running" for thread in threads if not thread.is_alive()]
