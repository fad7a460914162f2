"""The envelope: what the broker sees. As in JWS, the signature covers encoded text: nothing needs canonical JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from passrelay_schemas import limits
from passrelay_schemas.errors import MalformedError, TooLargeError
from passrelay_schemas.event import DomainName
from passrelay_schemas.strict_json import b64url_bytes, from_b64url, parse_model

SCHEMA: Final = "passrelay.envelope/1"
CONTENT_TYPE = "application/json"

ProducerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""The name a producer is enrolled under; also its certificate's common name."""
KeyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


def _version_7(value: UUID) -> UUID:
    if value.version != 7:
        raise ValueError("not a UUIDv7 (RFC 9562)")
    return value


def _not_a_number(value: Any) -> Any:
    if not isinstance(value, datetime) and not (isinstance(value, str) and "T" in value):
        raise ValueError("not an RFC 3339 time")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:  # 0001-01-01T00:00:00+14:00 would stop whoever prints it
        raise ValueError("outside the years 1 to 9999 in UTC") from None


EventId = Annotated[UUID, AfterValidator(_version_7)]
Moment = Annotated[AwareDatetime, BeforeValidator(_not_a_number), AfterValidator(_in_utc)]
"""An RFC 3339 time, kept in UTC."""


class ProtectedHeader(BaseModel):
    """A: fixed when the event is sealed; its exact bytes are HPKE's `info`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    schema_: Literal["passrelay.envelope/1"] = Field(default=SCHEMA, alias="schema")
    suite: Annotated[str, Field(min_length=1, max_length=limits.MAX_SUITE)]
    recipient_key_id: KeyId
    producer: ProducerName
    domain: DomainName
    event_id: EventId

    def encode(self) -> bytes:
        """The header's bytes, once and for all."""
        return self.model_dump_json(by_alias=True).encode("utf-8")


class SignedHeader(BaseModel):
    """B: made when the event is published."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    signing_key_id: KeyId
    alg: Annotated[str, Field(min_length=1, max_length=limits.MAX_SUITE)]
    signed_at: Moment

    def encode(self) -> bytes:
        """The header's bytes, once and for all."""
        return self.model_dump_json().encode("utf-8")


class _Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    protected: str
    sealed: Annotated[list[str], Field(min_length=1, max_length=limits.MAX_SEALED_PARTS)]
    signed: str
    signature: str


@dataclass(frozen=True)
class SealedEvent:
    """What the spool keeps: sealed, not yet signed."""

    protected: bytes
    sealed: tuple[bytes, ...]

    @property
    def header(self) -> ProtectedHeader:
        """The parsed protected header."""
        return parse_model(ProtectedHeader, self.protected, what="protected header")


@dataclass(frozen=True)
class Envelope:
    """A parsed envelope; nothing in it is trusted before `signing.verify`."""

    protected: bytes
    sealed: tuple[bytes, ...]
    signed: bytes
    signature: bytes
    signing_input: bytes
    header: ProtectedHeader
    signer: SignedHeader

    @property
    def event_id(self) -> UUID:
        """The event's id."""
        return self.header.event_id

    @property
    def signed_at(self) -> datetime:
        """When it was published first (after a republish: last)."""
        return self.signer.signed_at

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Limits and shape, nothing else: MalformedError or TooLargeError."""
        if len(raw) > limits.MAX_ENVELOPE_BYTES:
            raise TooLargeError(f"envelope: {len(raw)} bytes, the most is {limits.MAX_ENVELOPE_BYTES}")
        outer = parse_model(_Outer, raw, what="envelope")
        protected = _part(outer.protected, limits.MAX_PROTECTED_BYTES, "protected")
        signed = _part(outer.signed, limits.MAX_SIGNED_BYTES, "signed")
        signature = _part(outer.signature, limits.MAX_SIGNATURE_BYTES, "signature")
        sealed = tuple(_part(part, limits.MAX_SEALED_PART_BYTES, "sealed") for part in outer.sealed)
        return cls(
            protected=protected,
            sealed=sealed,
            signed=signed,
            signature=signature,
            signing_input=".".join([outer.protected, *outer.sealed, outer.signed]).encode("ascii"),
            header=parse_model(ProtectedHeader, protected, what="protected header"),
            signer=_signer(signed),
        )


@lru_cache(maxsize=64)
def _signer(signed: bytes) -> SignedHeader:
    # A producer signs many events at one moment.
    return parse_model(SignedHeader, signed, what="signed header")


def _part(text: str, most: int, name: str) -> bytes:
    if len(text) > most * 4 // 3 + 4:
        raise TooLargeError(f"envelope: {name} has more than {most} bytes")
    raw = from_b64url(text, what=name)
    if not raw:
        raise MalformedError(f"envelope: {name} is empty")
    if len(raw) > most:
        raise TooLargeError(f"envelope: {name} has more than {most} bytes")
    return raw


def signing_input(event: SealedEvent, signed: bytes) -> bytes:
    """The bytes that are signed: every part as base64url text, joined by dots."""
    # A dot is not in the base64url alphabet, and the first and last parts are fixed: the join is unambiguous.
    return b".".join(_encoded(event, signed))


def assemble(event: SealedEvent, signed: bytes, signature: bytes) -> bytes:
    """The envelope's bytes for the broker."""
    return _document(_encoded(event, signed), signature)


def finish(event: SealedEvent, signed: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The envelope's bytes for the broker, with the signature that `sign` makes of the signing input."""
    parts = _encoded(event, signed)  # once for both: encoding costs more than all but the signature
    return _document(parts, sign(b".".join(parts)))


def _encoded(event: SealedEvent, signed: bytes) -> list[bytes]:
    return [b64url_bytes(part) for part in (event.protected, *event.sealed, signed)]


def _document(parts: Sequence[bytes], signature: bytes) -> bytes:
    # Base64url has nothing that JSON escapes.
    protected, *sealed, signed = parts
    return b'{"protected":"%b","sealed":["%b"],"signed":"%b","signature":"%b"}' % (
        protected,
        b'","'.join(sealed),
        signed,
        b64url_bytes(signature),
    )
