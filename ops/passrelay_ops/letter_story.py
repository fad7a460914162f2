"""A dead letter in plain words, for a helpdesk: what happened, what was done about it, and what to do now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from passrelay_ops.dead_letters import Letter, State, repair
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.verdict import Reason, Verdict

MEANINGS: dict[Reason, str] = {
    Reason.USER_MISSING: "IdM has no such user, or the match filter does not find him",
    Reason.AMBIGUOUS: "several IdM entries match this user, so none was written",
    Reason.PROTECTED: "accounts of this kind never get their password from AD",
    Reason.NOT_LISTED: "an IdM server would expire the password at once: passrelay's account is not listed there",
    Reason.IDENTITY: "the IdM entry of this name belongs to another AD account",
    Reason.POLICY: "IdM does not accept this password",
    Reason.BAD_SIGNATURE: "the message was changed on its way, or signed with another key than it says",
    Reason.UNTRUSTED: "the consumers do not know the key that it was signed with",
    Reason.REVOKED: "it was signed with a key that has been revoked",
    Reason.UNKNOWN_KEY: "the consumers do not have the key that it was sealed to",
    Reason.FOREIGN_DOMAIN: "its producer may not speak for this AD domain, or the account is of another one",
    Reason.MALFORMED: "it is no event that this version understands",
    Reason.TOO_LARGE: "it is larger than an event may be",
    Reason.EMPTY_PASSWORD: "the password is empty",
    Reason.ACCESS_DENIED: "IdM does not let passrelay's account write to this entry",
    Reason.REFUSED: "the IdM server refused the change",
    Reason.POISON: "consumers died on it again and again, so it was put aside unopened",
    Reason.DELIVERY_LIMIT: "the broker handed it out 1,000 times and nobody finished it",
    Reason.EARLY: "it only says that a password must be changed, and that password never arrived",
}
"""Why a change is not in IdM."""


def story(letter: Letter, entries: list[dict[str, Any]], now: datetime) -> Iterator[str]:
    """The letter's history in sentences; `entries` are its records (letter_pages.entry), oldest first."""
    whose = letter.account or "an account whose name is sealed"
    came = f", captured by {letter.producer}" if letter.producer else ""
    came += f" at {rfc3339(letter.captured_at)}" if letter.captured_at else ""
    where = f" in {letter.domain}" if letter.domain else ""
    yield f"A password change of {whose}{where}{came}, could not be carried to IdM."
    for fields in entries:
        yield f"{fields['received_at']}: {_what(fields)}"
    yield f"What to do: {_advice(letter, now)}"


def _what(fields: dict[str, Any]) -> str:
    if fields["verdict"] == Verdict.REPLAYED:
        return f"sent again by {fields['by'] or 'somebody'}: {fields['why'] or 'no reason given'}"
    if fields["verdict"] == Verdict.DISCARDED:
        return f"given up by {fields['by'] or 'somebody'}: {fields['why'] or 'no reason given'}"
    meaning = meaning_of(fields["reason"] or "")
    told = f" ({fields['diagnostic']})" if fields.get("diagnostic") else ""
    return f"given up after {fields['attempts']} tries, {fields['reason']}: {meaning}{told}"


def meaning_of(reason: str) -> str:
    """A reason in plain words; itself where this version does not know it."""
    return MEANINGS[Reason(reason)] if reason in set(Reason) else reason


def _advice(letter: Letter, now: datetime) -> str:
    match letter.state:
        case State.REPLAYED:
            return f"nothing here; `passrelay status {letter.account or 'USER'}` tells what became of it"
        case State.DISCARDED:
            return "nothing: the user's next change in AD is carried as ever"
        case State.LIVE:
            soon = "soon, for it" if letter.expires_soon(now) else "it"
            return f"{repair(letter.reason)} ({soon} is kept until {rfc3339(letter.expires_at)})"
