"""Records in the journal and dead streams: counters in clear, the account only sealed to the ops key."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from passrelay_schemas import limits
from passrelay_schemas.envelope import Moment
from passrelay_schemas.errors import TooLargeError
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.strict_json import b64url, from_b64url, parse_model
from passrelay_schemas.verdict import Reason, Verdict

SCHEMA: Final = "passrelay.record/1"

Count = Annotated[int, Field(ge=0, strict=True)]

Time = Annotated[Moment, PlainSerializer(rfc3339, return_type=str, when_used="json")]


class Record(BaseModel):
    """One outcome of one event, or one act of an operator on a dead letter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["passrelay.record/1"] = Field(default=SCHEMA, alias="schema")
    event_id: UUID
    """The event's id; a made-up one (and producer None) where the envelope cannot be parsed."""
    producer: str | None = None
    domain: str | None = None
    verdict: Verdict
    reason: str | None = None
    """For dead: one of Reason. For superseded: "newer", "version_back", "ahead", "idm_newer" or "not_carried"."""
    server: str | None = None
    attempts: Count = 0
    replays: Count = 0
    captured_at: Time | None = None
    received_at: Time
    applied_at: Time | None = None
    by: str | None = None
    """Operator's acts: who."""
    why: str | None = None
    """Operator's acts: the reason text."""
    note: str | None = None
    """Account and diagnostic, sealed to the ops key."""
    envelope: str | None = None
    """The envelope's bytes, base64url."""

    def encode(self) -> bytes:
        """The record's bytes for a stream."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    @property
    def envelope_bytes(self) -> bytes | None:
        """The envelope as it was received."""
        return None if self.envelope is None else from_b64url(self.envelope, what="record: envelope")

    @property
    def dead_reason(self) -> Reason | None:
        """The reason of a dead letter; None where it is not in this version's list."""
        if self.verdict is not Verdict.DEAD:
            return None
        return next((reason for reason in Reason if reason == self.reason), None)


def decode(raw: bytes) -> Record:
    """A record from a stream; EventError when it is not one."""
    if len(raw) > limits.MAX_RECORD_BYTES:
        raise TooLargeError(f"record: {len(raw)} bytes, the most is {limits.MAX_RECORD_BYTES}")
    return parse_model(Record, raw, what="record")


def envelope_text(raw: bytes) -> str:
    """Envelope bytes for the record's field; beyond the limit only what fits, the rest is no envelope anyway."""
    return b64url(raw[: limits.MAX_ENVELOPE_BYTES])


def note_text(*, account: str | None, guid: UUID | None, diagnostic: str) -> str:
    """The clear text of a note: account, guid and diagnostic on three lines."""
    return f"{account or '-'}\n{guid or '-'}\n{diagnostic}"


def parse_note(text: str) -> tuple[str | None, UUID | None, str]:
    """Account, guid and diagnostic of an opened note; a guid that is none counts as absent.

    Anybody who has the ops key's public document can seal a note, so its text may be anything.
    """
    account, _, rest = text.partition("\n")
    guid, _, diagnostic = rest.partition("\n")
    try:
        parsed = UUID(guid)
    except ValueError:
        parsed = None
    return (None if account == "-" else account), parsed, diagnostic
