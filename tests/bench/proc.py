"""What the kernel knows of a process: its memory and its processor time (proc_pid_status(5), proc_pid_stat(5))."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.process import LabError

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads so far."""
    # The second field is a name in parentheses that may hold blanks and parentheses.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Memory that it holds now."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most memory that it has held."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LabError(f"process {pid} has no {name}: it has ended")
