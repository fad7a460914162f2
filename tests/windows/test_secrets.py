"""The password is in no file, no system call, no log, and in no memory after the call."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener
from tests.lab.folder import CANARY, find_canary
from tests.lab.process import MissingServerError, run_tool
from tests.windows.harness import Harness
from tests.windows.records import open_all
from tests.windows.wine import Wine


@pytest.mark.parametrize("how", ["good", "torn"])
def test_no_copy_is_left_in_memory(hook: Harness, how: str) -> None:
    """`torn` ends in a fault in the middle of copying."""
    assert hook.ask("traces", how, 1105) == "0"


def test_a_copy_that_is_left_would_be_found(hook: Harness) -> None:
    assert hook.ask("traces", "kept", 1105) != "0"


def test_nothing_readable_is_in_files_system_calls_and_logs(
    wine: Wine,
    start_harness: Callable[..., Harness],
    recipient: tuple[KeyDocument, Opener],
    spool: Path,
    opener: Opener,
    tmp_path: Path,
) -> None:
    try:
        run_tool(["strace", "--version"])
    except MissingServerError:
        pytest.skip("strace is not installed: `./run test --only windows` installs it, as root")
    began = time.time() - 1
    calls = tmp_path / "calls"
    harness = start_harness(("strace", "-f", "-xx", "-s", "65536", "-o", str(calls), "-e", "trace=!futex"))
    harness.configure(recipient[0], spool)
    assert harness.initialize()
    harness.ask("many", 2, 5, 2000)
    harness.ask("hostile", "password", "buffer_torn", 2001)
    harness.wait_for_event("2001")
    harness.close()
    assert len(open_all(spool, opener)) == 10

    seen = calls.read_bytes()
    assert _traced(b"passrelay.hook/1") in seen  # records' headers: so the writes were looked at
    assert seen.count(b"fsync(") == 10 + 1  # each record and the probe of the start went to the disk itself
    assert _traced(CANARY.encode()) not in seen
    assert _traced(CANARY.encode("utf-16-le")) not in seen
    written = [path for path in wine.prefix.rglob("*") if path.is_file() and path.stat().st_mtime >= began]
    _, _, hits = find_canary([spool, harness.process.log, calls, *written])
    assert hits == []


def _traced(content: bytes) -> bytes:
    """As `strace -xx` prints it."""
    return "".join(f"\\x{byte:02x}" for byte in content).encode()
