"""The service's log: JSON lines in a file that turns over, and what a person should see in Windows' event log too."""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

from passrelay_producer.windows import SERVICE
from passrelay_producer.windows.event_text import IDS, Entry, entry_of

FILE_BYTES = 10_000_000
FILES = 5
"""So many old files of that size are kept."""
NAME = "producer.log"


class _File(RotatingFileHandler):
    """A file that goes on when it cannot be turned over (a viewer holds it open) or written (the disk is full)."""

    def doRollover(self) -> None:  # noqa: N802
        """Start a new file if that can be done."""
        with contextlib.suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A service that stops for want of a log would be worse."""


class ServiceLog(io.TextIOBase):
    """Takes the place of stderr, which a service has not. OSError when the folder cannot be made."""

    def __init__(self, folder: Path, tell: Callable[[Entry], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _File(folder / NAME, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8", delay=True)
        self._tell = tell or report
        self._rest = ""

    def write(self, text: str) -> int:
        """Whole lines go on at once."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._file.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))
            entry = entry_of(line)
            if entry is not None:
                self._tell(entry)
        return len(text)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def report(entry: Entry) -> None:
    """Put an entry into Windows' event log; when it does not take it, the file has it."""
    if sys.platform != "win32":
        return
    import pywintypes
    import win32evtlogutil

    with contextlib.suppress(pywintypes.error):
        win32evtlogutil.ReportEvent(SERVICE, IDS[entry.kind], eventType=int(entry.kind), strings=[entry.text])
