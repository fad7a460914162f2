"""The lock on a spool's directory: one running producer for each spool."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from passrelay_schemas.errors import SafetyError


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the spool's directory; SafetyError when another producer does. The lock ends with the process."""
    # Windows locks bytes of files, not directories.
    windows = sys.platform == "win32"
    path, flags = (directory / "producer.lock", os.O_RDWR | os.O_CREAT) if windows else (directory, os.O_RDONLY)
    descriptor = os.open(path, flags, 0o600)
    try:
        try:
            _lock(descriptor)
        except OSError:
            raise SafetyError(
                f"spool directory {directory}: another producer is running on it: stop that one, "
                "or give each its own [spool] path"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock; OSError when somebody has it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
