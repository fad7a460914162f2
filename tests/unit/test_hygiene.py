"""No page of a process that holds clear text goes to swap where the system lets it lock its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mlockall(2)")

_UNITS = Path(__file__).resolve().parents[2] / "ops" / "systemd"
_PROGRAM = """
import resource, sys
from passrelay_schemas.hygiene import forbid_core_dumps, keep_out_of_swap
limit = int(sys.argv[1])
try:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
except (ValueError, PermissionError):
    # Only systemd may raise it here; root may lock all the same (CAP_IPC_LOCK, mlock(2)).
    resource.getrlimit, asked = lambda _: (limit, limit), resource.getrlimit
    keep_out_of_swap()
    resource.getrlimit = asked
    if "VmLck:\\t       0 kB" in open("/proc/self/status").read():
        sys.exit(77)
keep_out_of_swap()
forbid_core_dumps()
later = bytearray(b"x") * 50_000_000
import ctypes
print(ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE))
print(open("/proc/thread-self/status").read())
"""


def _run(limit: int) -> tuple[str, int]:
    """What prctl and the limit say of core files, and how many kilobytes are locked."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, str(limit)], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this host sets a limit to locked memory")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    return first, int(next(line.split()[1] for line in lines if line.startswith("VmLck:")))


def test_without_a_limit_what_comes_later_is_locked_too() -> None:
    _, kilobytes = _run(-1)
    assert kilobytes > 50_000_000 // 1024


def test_with_a_limit_nothing_is_locked_and_nothing_fails() -> None:
    assert _run(8_000_000)[1] == 0


def test_no_core_file_and_not_dumpable() -> None:
    assert _run(8_000_000)[0] == "0 0 0"


@pytest.mark.parametrize("unit", ["producer", "consumer"])
def test_the_shipped_units_set_no_limit(unit: str) -> None:
    lines = (_UNITS / f"passrelay-{unit}.service").read_text().splitlines()
    assert {"LimitMEMLOCK=infinity", "MemorySwapMax=0", "LimitCORE=0"} <= set(lines)
