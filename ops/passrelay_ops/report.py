"""What one command says: progress on stderr; on stdout its text, or with --json one document as the last line."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from passrelay_schemas import __version__
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.secret import Secret

FAULT = 1
"""Exit code: the command ran and found a fault."""
INTERRUPTED = 130


class Report:
    """A context in which a command runs; it turns failures into one line, one document and the exit code.

    No traceback ever leaves it: local values may hold what must not be printed.
    """

    def __init__(self, kind: str, *, as_json: bool = False) -> None:
        self.kind = kind
        self.as_json = as_json
        self.servers: dict[str, str | None] = {"rabbitmq": None, "directory": None, "samba": None}
        self._fields: dict[str, Any] = {}
        self._failures: list[dict[str, str]] = []
        self._exit_code = 0
        self._started_at = utc_now()
        self._clock = time.monotonic()

    def __setitem__(self, name: str, value: Any) -> None:
        """A field of the document beyond the common ones."""
        self._fields[name] = value

    def progress(self, text: str) -> None:
        """A line for whoever watches."""
        typer.echo(printable(text), err=True)

    def say(self, result: str | Table) -> None:
        """The result for people; nothing with --json, where the document carries it."""
        if not self.as_json:
            # Not a terminal: as wide as the longest row, so that `grep` and `less -S` see whole lines.
            width = None if sys.stdout.isatty() else 1000
            wrap = isinstance(result, str)
            _Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=wrap).print(result)

    def fail(self, check: str, subject: str, detail: str, *, exit_code: int = FAULT) -> None:
        """A fault to be listed; the command goes on and ends with the highest of its exit codes."""
        self._failures.append({"check": check, "subject": subject, "detail": detail})
        self._exit_code = max(self._exit_code, exit_code)
        self.progress(f"passrelay: {subject}: {detail}" if subject else f"passrelay: {detail}")

    def finish(self, exit_code: int) -> None:
        """End with this exit code, unless a failure has set a higher one."""
        self._exit_code = max(self._exit_code, exit_code)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, typer.Exit | BrokenPipeError) or (error is not None and _is_usage(error)):
            return
        if isinstance(error, KeyboardInterrupt):
            self._exit_code = INTERRUPTED
            self._failures.append({"check": self.kind, "subject": "", "detail": "interrupted"})
        elif isinstance(error, PassrelayError):
            self.fail(self.kind, "", str(error), exit_code=error.exit_code)
        elif isinstance(error, Exception):
            self.fail(self.kind, "", internal_error(error))
        elif error is not None:
            return
        if self.as_json:
            sys.stdout.writelines(_pieces(self._document()))
            sys.stdout.write("\n")
        raise typer.Exit(self._exit_code) from None

    def _document(self) -> dict[str, Any]:
        return {
            "schema": f"passrelay.{self.kind}/1",
            "ok": self._exit_code == 0,
            "version": __version__,
            "started_at": rfc3339(self._started_at),
            "duration_seconds": round(time.monotonic() - self._clock, 3),
            "machine": {"os": _os_name(), "python": platform.python_version(), "cores": os.cpu_count()},
            "servers": self.servers,
            "failures": self._failures,
            **self._fields,
        }


def printable(text: str) -> str:
    """The text with U+FFFD for every character that a terminal would obey (ESC, C1) or that would hide or turn others.

    These are Unicode's categories Cc, without newline and tab, and Cf; names and diagnostics come from other hosts.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(sign) in ("Cc", "Cf") and sign not in "\n\t" else sign
        for sign in text
    )


class _Console(Console):
    """Prints only what is printable; its own colours are no part of any text."""

    def render_str(self, text: str, **options: Any) -> Text:
        # rich makes every string with this, a line's and a table cell's, before it measures and lays it out.
        return super().render_str(printable(text), **options)


def internal_error(error: BaseException) -> str:
    """Type and place of an error that nobody expected; never its message or values."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "passrelay_" in frame.filename] or list(frames)
    place = f" at {'/'.join(Path(ours[-1].filename).parts[-2:])}:{ours[-1].lineno}" if ours else ""
    return f"internal error: {type(error).__name__}{place}: please report it"


def _is_usage(error: BaseException) -> bool:
    return isinstance(error, typer.BadParameter)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _pieces(document: dict[str, Any]) -> Iterator[str]:
    """One JSON object; its lists item by item, since there may be 100,000 letters in one."""
    opening = "{"
    for name, value in document.items():
        yield f"{opening}{json.dumps(name)}: "
        opening = ", "
        if isinstance(value, list):
            yield "["
            for place, item in enumerate(value):
                yield f"{', ' if place else ''}{json.dumps(item, default=_plain)}"
            yield "]"
        else:
            yield json.dumps(value, default=_plain)
    yield "}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID | Path | Secret):
        return str(value)
    if callable(document := getattr(value, "document", None)):
        return document()
    raise TypeError(type(value).__name__)
