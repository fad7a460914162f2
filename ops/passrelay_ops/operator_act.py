"""An operator's act on a dead letter: who did it and why, for the record in the letter's own stream."""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import dataclass
from typing import Self

from passrelay_ops.dead_letters import Letter
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import Verdict

MOST_WORDS = 500
"""Characters of a reason text: a sentence or two; what is longer belongs in a ticket."""


@dataclass(frozen=True)
class Act:
    """Who acts, and why. Both stand in clear in the stream."""

    by: str
    why: str

    @classmethod
    def of(cls, why: str | None) -> Self:
        """The act of whoever runs this; ConfigurationError without a reason, or with one that is too long."""
        words = " ".join((why or "").split())
        if not words:
            raise ConfigurationError(
                "--reason-text: missing: say why, for those who read the stream later "
                "(it stands there in clear: name a ticket, no account)"
            )
        if len(words) > MOST_WORDS:
            raise ConfigurationError(f"--reason-text: {len(words)} characters, the most is {MOST_WORDS}: name a ticket")
        return cls(operator(), words)

    def record(self, letter: Letter, verdict: Verdict, *, replays: int) -> Record:
        """The act on one letter; `replays` tells which of its failures it answers (dead_letters.ends)."""
        return Record(
            event_id=letter.event_id,
            producer=letter.producer,
            domain=letter.domain,
            verdict=verdict,
            reason=letter.reason,
            attempts=letter.attempts,
            replays=replays,
            captured_at=letter.captured_at,
            received_at=utc_now(),
            by=self.by,
            why=self.why,
        )


def operator() -> str:
    """Who runs this, as user@host; behind sudo the user who called it."""
    name = os.environ.get("SUDO_USER")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # a container's user need not have a name
            name = f"uid {os.getuid()}"
    return f"{name}@{platform.node() or 'unknown'}"
