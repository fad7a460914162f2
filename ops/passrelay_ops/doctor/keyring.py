"""The keys of one host as checks: what is enrolled, what is revoked, and what is about to end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from passrelay_ops.check import Result, Row
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse

SOON = timedelta(days=30)


def expiry(subject: str, documents: Iterable[KeyDocument], now: datetime) -> Row:
    """Whether a key that is in use has expired; keys that do so soon are named."""
    ends = [(key.expires_at, key) for key in documents if key.status is KeyStatus.ACTIVE and key.expires_at is not None]
    over = [f"{key.use} key {key.key_id} expired on {end:%Y-%m-%d}" for end, key in ends if end <= now]
    if over:
        repair = "`passrelay keys rotate` makes its successor and says the steps (docs/keys.md)"
        return Row("keys.expiry", subject, Result.FAIL, "; ".join(over), repair)
    soon = [f"{key.use} key {key.key_id} ends on {end:%Y-%m-%d}" for end, key in ends if end <= now + SOON]
    return Row("keys.expiry", subject, Result.OK, "; ".join(soon) or f"none ends within {SOON.days} days")


def signing(subject: str, producer: str, documents: Sequence[KeyDocument]) -> Row:
    """Whether this producer has a signing key here that is believed."""
    keys = [key for key in documents if key.use is KeyUse.SIGNING and key.producer == producer]
    where = f"{producer} in {subject}"
    if any(key.status is KeyStatus.ACTIVE for key in keys):
        return Row("keys.signing", where, Result.OK, "an active signing key is enrolled")
    if keys:
        states = ", ".join(f"{key.key_id} is {key.status}" for key in keys)
        repair = (
            f"on {producer}: `passrelay keys init producer {producer}`, here: `passrelay keys enroll` its .pub.json"
        )
        return Row("keys.signing", where, Result.FAIL, f"no active signing key: {states}", repair)
    repair = f"carry {producer}'s signing key (.pub.json) here: `passrelay keys enroll FILE --yes`"
    return Row("keys.signing", where, Result.FAIL, "no signing key of it is enrolled", repair)
