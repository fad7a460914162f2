"""One real process of the lab: started, waited for, stopped or killed, never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from passrelay_schemas.errors import PassrelayError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class LabError(PassrelayError):
    """A server of the lab did not do what was asked; the message names it and quotes the end of its log."""


class MissingServerError(LabError):
    """A program that the lab needs is not installed; `./run` would have installed it."""

    exit_code = 3


def _die_with_parent() -> None:
    # A lab that is itself killed must not leave servers behind. Runs in the child, between fork and exec.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """A child process in a session of its own, with its output in a log file.

    Start it from a thread that lives as long as the process should: the kernel stops it when that thread ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self.env = dict(env) if env is not None else None
        self.cwd = cwd
        self.user = user
        self.stdin = stdin
        self.stdout = stdout
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program; its stdout and stderr are appended to the log unless a pipe was asked for."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as sink:
            try:
                self.child = subprocess.Popen(
                    self.command,
                    stdin=self.stdin,
                    stdout=sink if self.stdout is None else self.stdout,
                    stderr=sink,
                    env=self.env,
                    cwd=self.cwd,
                    user=self.user,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - only one prctl call
                )
            except FileNotFoundError as error:
                raise MissingServerError(f"{self.command[0]} is not installed: run `./run test` once") from error

    @property
    def pid(self) -> int:
        """The process id; raises LabError before start."""
        if self.child is None:
            raise LabError(f"{self.name} was never started")
        return self.child.pid

    @property
    def running(self) -> bool:
        """True while the program has not ended."""
        return self.child is not None and self.child.poll() is None

    def tail(self, characters: int = 2000) -> str:
        """The end of the log, for error messages."""
        try:
            return self.log.read_text(errors="replace")[-characters:]
        except OSError:
            return ""

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout_seconds: float = 60) -> None:
        """Wait for a condition; LabError when the process ends first or the time is over."""
        wait_for(ready, what=f"{self.name}: {what}", timeout_seconds=timeout_seconds, alive=self)

    def signal(self, number: int) -> None:
        """Send a signal to the process itself (not its group); a process that has ended is left alone."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a power cut would do it, and reap."""
        self._signal_group(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()
            _forget_clock(self.child.pid)

    def stop(self, timeout_seconds: float = 30) -> int | None:
        """SIGTERM to the program, then SIGKILL to what is left of its group; returns its exit code."""
        if self.child is None:
            return None
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout_seconds)
        self._signal_group(signal.SIGKILL)
        code = self.child.wait()
        _forget_clock(self.child.pid)
        return code

    def _signal_group(self, number: int) -> None:
        if self.child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, number)


def _forget_clock(pid: int) -> None:
    """Remove what libfaketime (tests/lab/clock.py) leaves behind where its process was killed."""
    for path in Path("/dev/shm").glob(f"*faketime_*_{pid}"):
        path.unlink(missing_ok=True)


def wait_for(
    ready: Callable[[], bool],
    *,
    what: str,
    timeout_seconds: float = 60,
    interval_seconds: float = 0.02,
    alive: Process | None = None,
) -> None:
    """Poll a condition until it holds; LabError names what was waited for."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if alive is not None and not alive.running:
            code = alive.child.returncode if alive.child else None
            raise LabError(f"{what}: the process ended with {code}; log {alive.log}:\n{alive.tail()}")
        if time.monotonic() > deadline:
            end = f"; log {alive.log}:\n{alive.tail()}" if alive is not None else ""
            raise LabError(f"{what}: not within {timeout_seconds:.0f} s{end}")
        time.sleep(interval_seconds)


def run_tool(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    user: str | None = None,
    timeout_seconds: float = 120,
    check: bool = True,
) -> str:
    """Run a tool to its end and return its stdout; LabError quotes its output if it fails. Secrets go through stdin."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            user=user,
            timeout=timeout_seconds,
            check=False,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except FileNotFoundError as error:
        raise MissingServerError(f"{command[0]} is not installed: run `./run test` once") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command[0]}: not within {timeout_seconds:.0f} s") from error
    if check and done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
        raise LabError(f"{' '.join(str(part) for part in command)}: exit {done.returncode}\n{output}")
    return done.stdout.decode(errors="replace")
