"""Which cores the lab's servers and this benchmark run on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.process import LabError

_CORES = sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def directory_alone(lab: Lab, *more: int) -> Iterator[None]:
    """Inside, the directory has the first core and all else the others, as if it were another machine.

    All else is this process, the broker, `more` process ids, and what is started inside. LabError on a machine with one
    core, where no such thing can be had.
    """
    if len(_CORES) < 2:
        raise LabError("a directory with a core of its own needs a machine with at least two")
    others = (os.getpid(), *lab.broker.pids, *more)
    try:
        _keep_on(lab.directory.pid, _CORES[:1])
        for process in others:
            _keep_on(process, _CORES[1:])
        yield
    finally:
        for process in (lab.directory.pid, *others):
            _keep_on(process, _CORES)


def _keep_on(process: int, cores: Sequence[int]) -> None:
    """Every thread of the process; those to come inherit it."""
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), cores)
