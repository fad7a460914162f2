"""A small disk of its own: a tmpfs, which is as full as it is filled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.process import run_tool


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """`folder` is one within the block; it is made if need be. Needs root. LabError when it cannot be mounted."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_tool(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", folder])
    try:
        yield
    finally:
        # Lazily: a process that still has a file open there must not keep it in the way of the next run.
        run_tool(["umount", "--lazy", folder])
