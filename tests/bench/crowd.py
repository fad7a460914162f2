"""Many producers at once, in a few processes (crowd_host.py): a thousand of their own would need some 60 GB."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import IO, Self

from tests.bench.proc import peak_bytes
from tests.lab.process import LabError, Process
from tests.lab.relay import Relay

_PROCESSES = 10
"""So 10 producers have a process each."""
_ROOT = Path(__file__).resolve().parents[2]


class Crowd:
    """A context with these producers, connected to the broker; they must be enrolled, and the relay prepared."""

    def __init__(self, relay: Relay, names: Sequence[str], events: int) -> None:
        configs = [str(_config(relay, name)) for name in names]
        parts = [configs[start::_PROCESSES] for start in range(min(_PROCESSES, len(configs)))]
        self._orders = [{"configs": part, "events": events} for part in parts]
        self._hosts = [
            Process(
                f"crowd-{number}",
                [sys.executable, "-m", "tests.bench.crowd_host"],
                log=relay.folder / f"crowd-{len(names)}-{number}.log",
                cwd=_ROOT,
                stdin=PIPE,
                stdout=PIPE,
            )
            for number in range(len(parts))
        ]

    def __enter__(self) -> Self:
        try:
            for host, order in zip(self._hosts, self._orders, strict=True):
                host.start()
                _say(host, json.dumps(order))
            for host in self._hosts:
                _await_connected(host)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def go(self) -> None:
        """Every producer's controller has its changes now."""
        for host in self._hosts:
            _say(host, "go")

    @property
    def peak_bytes(self) -> int:
        """Of all the processes together."""
        return sum(peak_bytes(host.pid) for host in self._hosts)

    def _end(self) -> None:
        for host in self._hosts:
            if host.child is not None:
                with contextlib.suppress(BrokenPipeError):
                    _pipe(host, "stdin").close()
        for host in self._hosts:
            if host.child is not None:
                with contextlib.suppress(Exception):
                    host.child.wait(60)
                host.kill()
                _pipe(host, "stdout").close()


def _await_connected(host: Process) -> None:
    if _pipe(host, "stdout").readline() != b"connected\n":
        raise LabError(f"{host.name} does not connect:\n{host.tail()}")


def _say(host: Process, line: str) -> None:
    pipe = _pipe(host, "stdin")
    pipe.write(line.encode() + b"\n")
    pipe.flush()


def _pipe(host: Process, name: str) -> IO[bytes]:
    pipe = getattr(host.child, name)
    assert pipe is not None
    found: IO[bytes] = pipe
    return found


def _config(relay: Relay, name: str) -> Path:
    return relay.write_config(
        name,
        {
            "broker": relay._broker(name),
            "spool": {"path": relay.spool(name)},
            "keys": {"directory": relay.enrolment.producer_keys(name)},
            "source": {"stdin": {}},
            "log": {"level": "warning"},
            "domain": [{key: domain[key] for key in ("name", "sid")} for domain in relay.domains],
        },
    )
