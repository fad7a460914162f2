"""The program that calls the DLL as LSASS does (wine/harness.c), from Python."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from passrelay_schemas.keys import KeyDocument
from tests.lab.process import LabError, Process, wait_for
from tests.windows.wine import Wine, windows_path

_ANSWER_SECONDS = 300
DOMAIN_SID = "S-1-5-21-1004336348-1177238915-682003330"
PRODUCER = "dc1"


def utf16(text: str) -> str:
    """A text as the harness reads it."""
    return text.encode("utf-16-le").hex() or "@"


class Harness:
    """One process with the DLL in it. `made` has every (RID, number) of `many` whose call has returned."""

    def __init__(
        self, wine: Wine, program: Path, dll: Path, *, log: Path, overrides: str = "", wrapper: Sequence[str] = ()
    ) -> None:
        environment = dict(wine.environment)
        environment["WINEDLLOVERRIDES"] += overrides
        self.process = Process(
            "harness",
            [*wrapper, wine.program, program, windows_path(dll)],
            log=log,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.made: list[tuple[int, int]] = []
        self._rest = b""

    def start(self) -> None:
        """Start it and wait until the DLL is loaded.

        Once in thousands of starts the program ended without a word. Where wine did not even begin with it, once more.
        """
        self.process.start()
        if self.read_line() is None:
            self.close()
            self._rest = b""
            self.process.start()
        self.wait_for("ready")

    def send(self, *words: str | int) -> None:
        """Give a command without waiting for its answer."""
        child = self.process.child
        assert child is not None
        assert child.stdin is not None
        child.stdin.write((" ".join(str(word) for word in words) + "\n").encode())
        child.stdin.flush()

    def ask(self, *words: str | int) -> str:
        """Give a command; what follows its name in the answer."""
        self.send(*words)
        return self.wait_for(str(words[0]))

    def wait_for(self, name: str) -> str:
        """The next answer to a command of that name."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        others: deque[str] = deque(maxlen=5)
        while time.monotonic() < deadline:
            line = self.read_line(deadline - time.monotonic())
            if line is None:
                code = self.process.stop()
                said = "; ".join([*others, self.process.tail()])
                raise LabError(f"the harness ended with {code} before it answered {name}: {said}")
            word, _, rest = line.partition(" ")
            if word == name:
                return rest
            others.append(line)
        raise LabError(f"the harness did not answer {name} within {_ANSWER_SECONDS} s: {self.process.tail()}")

    def read_line(self, seconds: float = _ANSWER_SECONDS) -> str | None:
        """The next line, None at the end of its output; lines of `many` are kept in `made`."""
        child = self.process.child
        assert child is not None
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(seconds):
                    raise LabError(f"the harness said nothing within {seconds:.0f} s: {self.process.tail()}")
                chunk = os.read(child.stdout.fileno(), 65536)
                if not chunk:
                    return None
                self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\n")
        line = raw.decode().rstrip("\r")
        if line.startswith("made "):
            _, rid, number = line.split()
            self.made.append((int(rid), int(number)))
        return line

    def configure(self, key: KeyDocument, folder: Path, *, producer: str = PRODUCER, sid: str = DOMAIN_SID) -> None:
        """Write the settings anew, as the installer does."""
        self.ask("clear")
        self.set_key(key)
        self.set_text("Producer", producer)
        self.set_text("DomainSid", sid)
        self.set_text("Folder", windows_path(folder))

    def set_key(self, key: KeyDocument) -> None:
        """Another recipient key."""
        self.ask("set", "binary", "RecipientKey", key.public_bytes.hex())
        self.set_text("RecipientKeyId", key.key_id)

    def set_text(self, name: str, text: str) -> None:
        """One REG_SZ value."""
        self.ask("set", "text", name, text.encode("utf-16-le").hex())

    def initialize(self) -> bool:
        """InitializeChangeNotify."""
        return self.ask("initialize") == "1"

    def change(self, rid: int, password: str, name: str | None = "erika") -> None:
        """PasswordChangeNotify, which always answers 0."""
        assert self.ask("change", rid, "-" if name is None else utf16(name), utf16(password)) == "0"

    def hold(self, path: Path, share: int) -> None:
        """Open a file as another program would, with these share modes, until `release`."""
        assert self.ask("hold", share, utf16(windows_path(path))) == ""

    def status(self, value: str) -> str:
        """One value of the DLL's status key; empty when it is not there."""
        return self.ask("status", value)

    @property
    def lost(self) -> int:
        """How many changes the DLL says it has not captured."""
        return int(self.status("Lost") or 0)

    def event_log(self) -> list[str]:
        """All strings that were handed to the event log so far; wine prints them."""
        text = self.process.log.read_text(errors="replace")
        return [line.partition('L"')[2].rpartition('"')[0] for line in text.splitlines() if "ReportEventW" in line]

    def wait_for_event(self, *strings: str) -> None:
        """Wait until these strings stand one after another in the event log."""

        def there() -> bool:
            log = self.event_log()
            return any(log[start : start + len(strings)] == list(strings) for start in range(len(log)))

        wait_for(there, what=f"the event log has {strings}", alive=self.process)

    def kill(self) -> None:
        """SIGKILL, and read what it had said."""
        self.process.kill()
        while self.read_line() is not None:
            pass
        self.close()

    def close(self) -> None:
        """End it; quietly if it has ended."""
        child = self.process.child
        if child is not None and child.stdin is not None and child.stdout is not None:
            child.stdin.close()
            self.process.stop()
            child.stdout.close()
