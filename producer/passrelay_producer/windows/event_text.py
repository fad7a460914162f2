"""A line of the log as an entry of Windows' event log: warnings, errors, and the service's start and end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum

from passrelay_schemas.logs import Action

_MOST_CHARACTERS = 30_000
"""ReportEvent takes 31,839 characters in one string."""
_ALWAYS = frozenset({Action.STARTED.value, Action.STOPPED.value})
_LEFT_OUT = frozenset({"action", "level", "timestamp", "component", "event"})


class Kind(IntEnum):
    """EVENTLOG_*_TYPE of winnt.h."""

    ERROR = 1
    WARNING = 2
    INFORMATION = 4


IDS = {Kind.INFORMATION: 0x40000065, Kind.WARNING: 0x80000066, Kind.ERROR: 0xC0000067}
"""Messages 101 to 103 of the DLL with their severity (messages.mc)."""


@dataclass(frozen=True)
class Entry:
    """One entry for the event log."""

    kind: Kind
    text: str


def entry_of(line: str) -> Entry | None:
    """The entry that a JSON line makes; None when it belongs in the file only."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    action, level = str(fields.get("action", "")), fields.get("level")
    kind = {"warning": Kind.WARNING, "error": Kind.ERROR, "critical": Kind.ERROR}.get(str(level))
    if kind is None and action not in _ALWAYS:
        return None
    details = [f"{name}: {value}" for name, value in fields.items() if name not in _LEFT_OUT]
    return Entry(kind or Kind.INFORMATION, "\r\n".join([action, *details])[:_MOST_CHARACTERS])
