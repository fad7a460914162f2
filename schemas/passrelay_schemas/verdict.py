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
    Reason.USER_MISSING: "create the user in IdM, then `passrelay producer capture --user USER` on a DC",
    Reason.AMBIGUOUS: "make the [[domain]] match filter hit one entry only, then recapture the user on a DC",
    Reason.PROTECTED: "nothing: accounts of this kind are never written to IdM",
    Reason.NOT_LISTED: "add passrelay's bind DN to passSyncManagersDNs on that IdM server",
    Reason.IDENTITY: "the IdM entry belongs to another AD account: find out whose it is; if that one was deleted and "
    "made again under this name, `passrelay idm marker rebind USER --guid GUID`, then recapture the user on a DC",
    Reason.POLICY: "the user must choose another password in AD, or IdM's policy must allow this one",
    Reason.BAD_SIGNATURE: "somebody changed the message, or two producers share one key id: check the producer's keys",
    Reason.UNTRUSTED: "enroll the producer's signing key on the consumers: `passrelay keys enroll FILE`",
    Reason.REVOKED: "the producer's key was revoked: give it a new one and republish from its spool",
    Reason.UNKNOWN_KEY: "put the private recipient key into the consumer's key directory",
    Reason.FOREIGN_DOMAIN: "list the producer under [[domain]] producers, and check the domain's name and sid",
    Reason.MALFORMED: "update the older of producer and consumer; if versions match, check who else can publish",
    Reason.TOO_LARGE: "the account's names are too long for an event: shorten them in AD",
    Reason.EMPTY_PASSWORD: "the user must choose a password in AD",
    Reason.ACCESS_DENIED: "give passrelay's service account its ACIs on this entry, then recapture the user on a DC",
    Reason.REFUSED: "read the server's words in the note, repair the entry, then recapture the user on a DC",
    Reason.POISON: "consumers died more than 20 times on this event: report it with the event id",
    Reason.DELIVERY_LIMIT: "consumers died on this event 1,000 times: read their logs, then recapture the user on a DC",
    Reason.EARLY: "the password change that this tick belongs to never arrived: recapture the user on the producer",
}
"""One repair for each reason, shown by `dead show` and `status`."""
