"""Waiting until servers do nothing: what one measurement leaves behind is not to count in the next one.

RabbitMQ 3.10 on Erlang 25: after about one in ten runs of a consumer a scheduler spins for 15 s on a dead socket
(EPOLLERR | EPOLLHUP, which nobody takes away) and takes a whole core.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.bench.proc import cpu_seconds
from tests.lab.process import wait_for

AFTER_A_RUN_SECONDS = 6
"""The spin was seen to begin up to some seconds after a consumer's run."""
_QUIET = 0.15
"""Of a core; an idle broker and directory take 0.03."""
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 90


def wait_until_quiet(pids: Sequence[int], seconds: float) -> None:
    """Return when these processes together took next to nothing for so long; LabError when they never do."""
    seen_at, seen = time.monotonic(), _used(pids)
    quiet_since = seen_at

    def quiet() -> bool:
        nonlocal seen_at, seen, quiet_since
        now, used = time.monotonic(), _used(pids)
        if used - seen > _QUIET * (now - seen_at):
            quiet_since = now
        seen_at, seen = now, used
        return now - quiet_since >= seconds

    wait_for(
        quiet,
        what="the servers quiet before a measurement",
        timeout_seconds=_PATIENCE_SECONDS,
        interval_seconds=_LOOK_SECONDS,
    )


def _used(pids: Sequence[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids)
