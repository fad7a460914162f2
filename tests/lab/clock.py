"""A wrong clock for one process: libfaketime moves its wall time; what waits on monotonic time is left alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from tests.lab.process import MissingServerError


def environment(ahead: timedelta, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process whose clock is so far ahead (negative: behind), and of all that it starts.

    `base` is the environment with the true time, by default this process's own.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise MissingServerError("faketime is not installed: run `./run test` once")
    return {
        **(os.environ if base is None else base),
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": f"{ahead.total_seconds():+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Samba's database modules would find the C library's time() before libfaketime's, and one password would get
        # two times.
        "LDB_MODULES_DISABLE_DEEPBIND": "1",
    }


def environment_of(file: Path) -> dict[str, str]:
    """The environment of a process whose clock `set_clock` moves while it runs; it follows within a second."""
    set_clock(file, timedelta())
    moving = environment(timedelta())
    del moving["FAKETIME"]  # it would win over the file
    return {**moving, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1"}


def set_clock(file: Path, ahead: timedelta) -> None:
    """Move the clock of every process that was started with `environment_of` this file; zero sets it right."""
    new = file.with_suffix(".new")
    new.write_text(f"{ahead.total_seconds():+.0f}\n")
    new.replace(file)  # at once: a half-written file would be some other time
