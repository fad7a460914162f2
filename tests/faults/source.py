"""A simulated domain controller: a producer that reads lines, and whoever writes them again until each was answered."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.lab.load import Change
from tests.lab.relay import Service

_TURN_SECONDS = 0.1
_AT_ONCE = 32


class _Life:
    """One process, from its start to its end: the lines it got, and what it said of them."""

    def __init__(self, child: subprocess.Popen[bytes], captured: dict[str, Change]) -> None:
        self.child = child
        self._captured = captured
        self._sent: list[Change] = []
        self._answered: set[int] = set()
        self.refused: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def write(self, changes: list[Change]) -> None:
        """OSError or ValueError when the process is gone: what was not answered is in `left_over`."""
        self._sent += changes
        stdin = self.child.stdin
        assert stdin is not None
        stdin.write(b"".join(json.dumps(made.line()).encode() + b"\n" for made in changes))
        stdin.flush()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "event_id" in answer:
                self._captured[answer["event_id"]] = self._sent[answer["line"] - 1]
            else:
                self.refused.append(answer["error"])
            self._answered.add(answer["line"])

    @property
    def unanswered(self) -> int:
        """Lines."""
        return len(self._sent) - len(self._answered)

    def left_over(self) -> list[Change]:
        """What a process that has ended never answered; it may be in the spool or not."""
        self._reader.join(90)
        with suppress(OSError):
            if self.child.stdin is not None:
                self.child.stdin.close()
        return [made for number, made in enumerate(self._sent, 1) if number not in self._answered]


class Source(Service):
    """One of the controllers. What `take` is given is captured at least once, whatever happens to the process."""

    def __init__(self, name: str, config: Path, log: Path) -> None:
        super().__init__(name, ["producer", "run"], config, log, pipes=True)
        self.captured: dict[str, Change] = {}
        """By event id: what was answered."""
        self._given: queue.SimpleQueue[Change] = queue.SimpleQueue()
        self._todo: deque[Change] = deque()
        self._lives: list[_Life] = []
        self._fed = 0
        """The life that the feeder writes to, by its place."""
        self._over = threading.Event()
        self._feeder = threading.Thread(target=self._feed, daemon=True)

    def start(self) -> None:
        """Start the process; the first time the feeder too."""
        super().start()
        assert self.process.child is not None
        self._lives.append(_Life(self.process.child, self.captured))
        if not self._feeder.ident:
            self._feeder.start()

    def take(self, change: Change) -> None:
        """One more change of this controller."""
        self._given.put(change)

    @property
    def waiting(self) -> int:
        """Changes that were not answered yet."""
        lives = self._lives[self._fed :]
        return self._given.qsize() + len(self._todo) + sum(life.unanswered for life in lives)

    @property
    def refused(self) -> list[str]:
        """What the producer said of lines that it did not take: there must be none."""
        return [error for life in self._lives for error in life.refused]

    def end(self) -> None:
        """No more lines."""
        self._over.set()
        if self._feeder.ident:
            self._feeder.join(10)

    def _feed(self) -> None:
        while not self._over.is_set():
            if self._fed < len(self._lives) - 1:
                self._todo.extendleft(reversed(self._lives[self._fed].left_over()))
                self._fed += 1
            with suppress(queue.Empty):
                self._todo.append(self._given.get(timeout=0 if self._todo else _TURN_SECONDS))
                while True:
                    self._todo.append(self._given.get_nowait())
            if self._todo:
                self._write(self._lives[self._fed])

    def _write(self, life: _Life) -> None:
        if life.child.poll() is not None:
            self._over.wait(_TURN_SECONDS)  # until another one is started
            return
        part = [self._todo.popleft() for _ in range(min(_AT_ONCE, len(self._todo)))]
        with suppress(OSError, ValueError):  # it died meanwhile: what it did not answer comes back as left over
            life.write(part)
