"""What can become of an event: the closed lists of verdicts and reasons, and which reasons wait for a repair."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of one event. All but RETRY are final; the last two are an operator's acts on a dead letter."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    RETRY = "retry"
    DEAD = "dead"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


FINAL = frozenset({Verdict.APPLIED, Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.DEAD})
"""Verdicts that end an event in the consumer."""


class Reason(StrEnum):
    """Why an event waits or is dead."""

    USER_MISSING = "user_missing"
    AMBIGUOUS = "ambiguous"
    PROTECTED = "protected"
    NOT_LISTED = "not_listed"
    IDENTITY = "identity"
    POLICY = "policy"
    BAD_SIGNATURE = "bad_signature"
    UNTRUSTED = "untrusted"
    REVOKED = "revoked"
    UNKNOWN_KEY = "unknown_key"
    FOREIGN_DOMAIN = "foreign_domain"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    EMPTY_PASSWORD = "empty_password"  # noqa: S105 - a reason, not a password
    ACCESS_DENIED = "access_denied"
    REFUSED = "refused"
    POISON = "poison"
    DELIVERY_LIMIT = "delivery_limit"
    EARLY = "early"  # a must-change tick whose password change has not arrived yet (docs/adr/0004)


WAITING_REASONS = frozenset(
    {
        Reason.USER_MISSING,
        Reason.AMBIGUOUS,
        Reason.NOT_LISTED,
        Reason.UNTRUSTED,
        Reason.UNKNOWN_KEY,
        Reason.ACCESS_DENIED,
        Reason.REFUSED,
        Reason.EARLY,
    }
)
"""Entry trouble: a late key, a user created tomorrow or a repaired ACI heals it, so it waits in the tiers up to the
horizon before it is dead. Every other reason is the event's own fault and dead at once."""

REPAIRS: dict[Reason, str] = {
    Reason.USER_MISSING: "create the user in IdM, then replay",
    Reason.AMBIGUOUS: "make the [[domain]] match filter hit one entry only, then replay",
    Reason.PROTECTED: "nothing: accounts of this kind are never written to IdM; discard it",
    Reason.NOT_LISTED: "`passrelay idm managers add --yes`, then replay",
    Reason.IDENTITY: "the IdM entry belongs to another AD account: find out whose it is; if that one was deleted and "
    "made again under this name, `passrelay idm marker rebind USER --guid GUID --yes`, then replay",
    Reason.POLICY: "the user must choose another password in AD, and this one is discarded; or let IdM's policy allow "
    "this one, then replay",
    Reason.BAD_SIGNATURE: "somebody changed the message, or two producers share one key id: check the producer's keys, "
    "then republish from its spool",
    Reason.UNTRUSTED: "enroll the producer's signing key on the consumers: `passrelay keys enroll FILE`, then replay",
    Reason.REVOKED: "the producer's key was revoked: give it a new one and republish from its spool",
    Reason.UNKNOWN_KEY: "put the private recipient key into the consumers' key directory, then replay",
    Reason.FOREIGN_DOMAIN: "list the producer under [[domain]] producers, check the domain's name and sid, then replay",
    Reason.MALFORMED: "update the older of producer and consumer, then replay; if versions match, check who else can "
    "publish",
    Reason.TOO_LARGE: "the account's names are too long for an event: shorten them in AD, then recapture the user",
    Reason.EMPTY_PASSWORD: "the user must choose a password in AD; discard this one",
    Reason.ACCESS_DENIED: "give passrelay's service account rights on the entry (`passrelay idm check`), then replay",
    Reason.REFUSED: "read the server's words in the note, repair the entry, then replay",
    Reason.POISON: "consumers died more than 20 times on this event: report it with the event id; update, then replay",
    Reason.DELIVERY_LIMIT: "the broker handed it out 1,000 times: read the consumers' logs, then replay",
    Reason.EARLY: "the password change that this tick belongs to never arrived: recapture the user on the producer",
}
"""One repair for each reason, shown by `dead show` and `status`; to replay is `passrelay dead replay`."""
