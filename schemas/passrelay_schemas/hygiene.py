"""What a process that holds clear text does first: it leaves no memory image behind, and little in freed memory.

Python cannot wipe a str. What helps is that nothing refers to it any longer than needed, and that what is freed is
overwritten: by the C library for blocks above 512 bytes, which CPython takes from it, by chance for smaller ones.
"""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4
"""prctl(2). Not dumpable also means: no ptrace and no /proc/PID/mem for other processes of the same user."""
_M_PERTURB = -6
"""mallopt(3) of glibc: freed blocks are filled with this byte."""
_FILLED_WITH = 0x55
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
"""mlockall(2); on fault: what is never touched takes no memory."""


def forbid_core_dumps() -> None:
    """No core file of this process, whatever the system's core_pattern is; does nothing on Windows."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # A core_pattern that pipes to a program ignores RLIMIT_CORE; an undumpable process is not piped either.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def keep_out_of_swap() -> None:
    """Lock all memory of this process where the system sets no limit to that, as the shipped units do; else nothing.

    With a limit, memory beyond it would be refused later, and the process would end.
    """
    if sys.platform != "linux":
        return
    import resource

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        mlockall = getattr(ctypes.CDLL(None), "mlockall", None)
        if mlockall is not None:
            mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def wipe_freed_memory() -> None:
    """Overwrite what the C library gets back from now on; does nothing where it is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_PERTURB, _FILLED_WITH)
