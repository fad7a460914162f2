"""A producer's news: once a minute it says, signed, that it lives and what waits in its spool. Never an account.

    {"news": b64url(document), "signature": b64url(Ed25519 over "passrelay.news/1." and that text)}

No algorithm travels: the keyring's entry for `signing_key_id` names it. The prefix is no base64url, so that no
signature of an envelope fits news, nor the other way round.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from passrelay_schemas import limits, signing
from passrelay_schemas.envelope import KeyId, ProducerName
from passrelay_schemas.errors import TooLargeError
from passrelay_schemas.event import DomainName
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.record import Count, Time
from passrelay_schemas.strict_json import b64url, from_b64url, parse_model

SCHEMA: Final = "passrelay.news/1"


def _once(key_ids: tuple[SpooledFor, ...]) -> tuple[SpooledFor, ...]:
    if len({item.recipient_key_id for item in key_ids}) != len(key_ids):
        raise ValueError("a recipient key stands twice")
    return key_ids


def _unquoted(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    # pydantic's own message names the key, and a key is whatever somebody has sent.
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("must be counts by reason") from None


class SpooledFor(BaseModel):
    """What a spool holds that is sealed to one recipient key."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    recipient_key_id: KeyId
    queued: Count
    """Events that are not published yet: they are sure to come."""
    oldest_at: Time | None = None
    """When the oldest of these was queued, by the producer's clock; None when there are none."""
    retained: Count
    """Events that are published and still kept: `producer republish` can bring them again."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.queued == 0) != (self.oldest_at is None):
            raise ValueError("oldest_at belongs to queued events")
        return self


class News(BaseModel):
    """What one producer knows of itself; the newest replaces all before it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    schema_: Literal["passrelay.news/1"] = Field(default=SCHEMA, alias="schema")
    signing_key_id: KeyId
    producer: ProducerName
    source: Literal["samba", "stdin", "hook"]
    domains: Annotated[tuple[DomainName, ...], Field(max_length=limits.MAX_NEWS_DOMAINS)] = ()
    """The domains that it captures in, as far as it knows them."""
    controller: DomainName | None = None
    """The domain controller's dnsHostName, lower case, as the source read it last; None where there is none (stdin)."""
    openpgp_fingerprints: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9A-F]{40,64}$")], ...], Field(max_length=limits.MAX_NEWS_FINGERPRINTS)
    ] = ()
    """Of every key that gpg_key_file can decrypt with, as GnuPG prints them: upper case hex, no blanks (Samba only)."""
    version: Annotated[str, Field(min_length=1, max_length=limits.MAX_NEWS_VERSION)]
    """passrelay's."""
    seals_to: KeyId | None = None
    """The recipient key that its next event is sealed to; None: none is active there, or the version is too old."""
    sent_at: Time
    """By the producer's clock, as all times here."""
    started_at: Time
    stopping: bool = Field(default=False, strict=True)
    """True in the last news of a process that ends cleanly."""
    source_up: Annotated[bool, Field(strict=True)] | None = None
    """The source could be read when this was written, and the Windows hook had no fault; None: too old a version."""
    last_capture_at: Time | None = None
    """None: never, as far as the spool remembers."""
    pending: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")], Count],
        Field(max_length=limits.MAX_NEWS_REASONS),
        WrapValidator(_unquoted),
    ] = Field(default_factory=dict)
    """Accounts, or records of the Windows hook, whose change cannot be captured now, by reason; zeros are left out."""
    spool: Annotated[tuple[SpooledFor, ...], Field(max_length=limits.MAX_NEWS_KEYS), AfterValidator(_once)] = ()

    @property
    def queued(self) -> int:
        """Events in the spool that are not published yet, whatever key they are sealed to."""
        return sum(item.queued for item in self.spool)

    def spooled_for(self, recipient_key_id: str) -> SpooledFor:
        """What the spool holds for one key."""
        nothing = SpooledFor(recipient_key_id=recipient_key_id, queued=0, retained=0)
        return next((item for item in self.spool if item.recipient_key_id == recipient_key_id), nothing)


class _Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    news: str
    signature: str


def encode(news: News, signer: signing.Signer) -> bytes:
    """The signed bytes for the stream; `news` must name the signer's key and producer."""
    text = b64url(news.model_dump_json(by_alias=True, exclude_none=True).encode())
    document = {"news": text, "signature": b64url(signer.signature(_signing_input(text)))}
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def peek(raw: bytes) -> News:
    """What somebody says, not verified: to name what `decode` refuses. MalformedError, TooLargeError."""
    return _parse(raw)[0]


def decode(raw: bytes, keyring: Keyring) -> News:
    """News that can be believed; EventError for anything else.

    MalformedError, TooLargeError; UntrustedError: the key is not in this keyring; RevokedError; BadSignatureError: it
    was changed, or another producer's key made it.
    """
    news, text, signature = _parse(raw)
    key = keyring.signing_key(news.signing_key_id)
    signing.check(key, producer=news.producer, signature=signature, message=_signing_input(text))
    return news


def _parse(raw: bytes) -> tuple[News, str, bytes]:
    if len(raw) > limits.MAX_NEWS_BYTES:
        raise TooLargeError(f"news: {len(raw)} bytes, the most is {limits.MAX_NEWS_BYTES}")
    outer = parse_model(_Outer, raw, what="news")
    signature = from_b64url(outer.signature, what="news: signature")
    if len(signature) > limits.MAX_SIGNATURE_BYTES:
        raise TooLargeError(f"news: signature has more than {limits.MAX_SIGNATURE_BYTES} bytes")
    return parse_model(News, from_b64url(outer.news, what="news: news"), what="news"), outer.news, signature


def _signing_input(text: str) -> bytes:
    return f"{SCHEMA}.{text}".encode("ascii")
