"""What a process that holds clear text does first: it leaves no memory image behind."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4
"""prctl(2). Not dumpable also means: no ptrace and no /proc/PID/mem for other processes of the same user."""


def forbid_core_dumps() -> None:
    """No core file of this process, whatever the system's core_pattern is; does nothing on Windows."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # A core_pattern that pipes to a program ignores RLIMIT_CORE; an undumpable process is not piped either.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
