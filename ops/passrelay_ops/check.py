"""One thing that was looked at, and what came out: the row of every check that an operator can ask for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Result(StrEnum):
    """What a check found. `unknown`: it could not be looked at, often because an earlier check failed."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Row:
    """One check of one subject; `repair` is what to do about it, a command where there is one."""

    id: str
    subject: str
    result: Result
    detail: str = ""
    repair: str = ""

    def document(self) -> dict[str, str]:
        """As it stands in a document."""
        return {name: str(value) for name, value in asdict(self).items()}
