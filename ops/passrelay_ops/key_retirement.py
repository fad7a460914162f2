"""Whether a key may be retired: what still uses it, or may. Pure; `key_evidence` looks.

What can be known of a recipient key: a producer's news say what its spool holds, and what it seals to. A queue cannot
be looked into without taking out of it; but what a tier holds came from a producer within the horizon and the longest
tier, unless it waited in the work queue. So: no spool holds anything, the work queue was seen empty, and either the
tiers are empty as well or no producer has held anything for that long. A retired key still opens, so that an event
that an outage kept for longer is no loss.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from passrelay_ops.key_evidence import Heard
from passrelay_ops.news import State, liveness
from passrelay_schemas.errors import ConfigurationError, SafetyError
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse
from passrelay_schemas.news import News
from passrelay_schemas.topology import EVENTS, TIERS

NOTE_WINDOW = timedelta(hours=1)
"""A consumer that has sealed no note to the key for so long is taken to have the new one."""


@dataclass(frozen=True)
class Objection:
    """Why not yet, and what ends it."""

    subject: str
    detail: str


def window(horizon_hours: float) -> timedelta:
    """How long an event can wait in the tiers: the horizon, the wait that passes it, and some minutes."""
    return timedelta(hours=horizon_hours, seconds=TIERS[-1].seconds, minutes=5)


def check_status(key: KeyDocument) -> None:
    """Only an active key is retired: ConfigurationError, SafetyError."""
    if key.status is KeyStatus.NEXT:
        raise ConfigurationError(
            f"key {key.key_id}: it was never in use: put it to use with `passrelay keys rotate {key.use} --activate`, "
            "or remove its two files wherever they are"
        )
    if key.status is KeyStatus.REVOKED:
        raise SafetyError(f"key {key.key_id}: it is revoked, and stays so")


def successor(key: KeyDocument, keyring: Keyring) -> Iterator[Objection]:
    """There must be a younger active key of its kind."""
    active = [
        other
        for other in keyring.documents(key.use)
        if other.status is KeyStatus.ACTIVE and other.producer == key.producer
    ]
    if not active or active[-1].key_id == key.key_id:
        rotate = f"passrelay keys rotate {key.use}" + (f" {key.producer}" if key.producer else "")
        where = f"on {key.producer}, and enroll the new document here" if key.producer else "first"
        yield Objection(f"key {key.key_id}", f"it is the one in use, no younger key is active here: `{rotate}` {where}")


def expected(keyring: Keyring, listed: Collection[str], heard: Heard) -> set[str]:
    """The producers that count: enrolled (one with a revoked key has a spool too), listed in [[domain]], heard."""
    return {*(str(key.producer) for key in keyring.documents(KeyUse.SIGNING)), *listed, *heard.strangers}


def revoked(keyring: Keyring) -> set[str]:
    """The producers whose every signing key is revoked here: what they say is not believed."""
    owners: dict[str, set[KeyStatus]] = {}
    for key in keyring.documents(KeyUse.SIGNING):
        owners.setdefault(str(key.producer), set()).add(key.status)
    return {owner for owner, found in owners.items() if found == {KeyStatus.REVOKED}}


def recipient(
    key: KeyDocument,
    *,
    producers: Collection[str],
    revoked: Collection[str] = (),
    heard: Heard,
    depths: Mapping[str, int],
    now: datetime,
    longest: timedelta,
) -> Iterator[Objection]:
    """What speaks against retiring a recipient key; `heard` are the news of the `longest` wait in the tiers."""
    if not producers:
        repair = "enroll every producer's signing key here, or list them under [[domain]] producers in ops.toml"
        yield Objection("producers", f"none is known on this host: {repair}")
    for name in sorted(producers):
        yield from _spool(key.key_id, name, heard, now, revoked=name in revoked)
    held_at = max((spoken.held_at for spoken in heard.spoken.values() if spoken.held_at), default=None)
    for queue, depth in depths.items():
        if depth and queue == EVENTS:
            yield Objection(
                queue, f"{depth} events wait, and any may be sealed to the key: let consumers empty it first"
            )
        elif depth and held_at is not None:
            until = rfc3339(held_at + longest)
            why = f"{depth} wait, and any may be sealed to the key: a producer held some until {rfc3339(held_at)}"
            yield Objection(queue, f"{why}: try again when the tiers are empty, or after {until}")


def _spool(key_id: str, name: str, heard: Heard, now: datetime, *, revoked: bool) -> Iterator[Objection]:
    subject, despite = f"producer {name}", f"if it is gone for good: --despite {name}"
    spoken = heard.spoken.get(name)
    life = liveness(spoken.newest if spoken else None, now)
    if spoken is None and name in heard.strangers:
        why = "it speaks, but its signing key is not enrolled on this host: enroll it, or find out who that is"
        yield Objection(subject, f"{why}; {despite}")
    elif revoked:
        repair = "give it a new one and enroll it here (docs/runbooks/stolen-producer-key.md)"
        yield Objection(subject, f"its key is revoked, so nobody knows what its spool holds: {repair}; {despite}")
    elif spoken is None or life.state is not State.ALIVE:
        yield Objection(subject, f"{life.detail}, so nobody knows what its spool holds: start it; {despite}")
    else:
        yield from _held(subject, key_id, spoken.newest)


def _held(subject: str, key_id: str, news: News) -> Iterator[Objection]:
    held = news.spooled_for(key_id)
    if news.seals_to == key_id:
        yield Objection(subject, "it seals new events to the key: enroll the new recipient key there")
    if news.seals_to is None:
        yield Objection(subject, "it does not say which key it seals to: update passrelay there, or enroll a key")
    if held.queued:
        yield Objection(subject, f"{held.queued} events that are sealed to the key are not published yet: wait")
    if held.retained:
        why = f"it keeps {held.retained} published events that are sealed to the key, for `producer republish`"
        yield Objection(subject, f"{why}: wait until its [spool] retention_hours are over")


def signing(key: KeyDocument, *, heard: Heard, now: datetime) -> Iterator[Objection]:
    """What speaks against retiring a signing key. What is on its way stays good: a retired key still verifies."""
    name = str(key.producer)
    spoken = heard.spoken.get(name)
    life = liveness(spoken.newest if spoken else None, now)
    if spoken is None or life.state is not State.ALIVE:
        repair = f"start it; if it is gone for good: --despite {name}"
        yield Objection(f"producer {name}", f"{life.detail}, so nobody knows what it signs with: {repair}")
    elif spoken.newest.signing_key_id == key.key_id:
        repair = f"there: passrelay keys rotate signing {name} --activate --yes"
        yield Objection(f"producer {name}", f"it still signs with the key: {repair}")


def hook(key: KeyDocument, *, producers: Collection[str], heard: Heard) -> Iterator[Objection]:
    """What speaks against retiring a hook key. No producer can tell what LSASS seals to: a person has to look."""
    for name in sorted(producers):
        spoken = heard.spoken.get(name)
        if spoken is None or spoken.newest.source == "hook":
            why = (
                "its hook may seal to the key: look there at `passrelay doctor`, row windows.settings (RecipientKeyId, "
                "and what the hook says itself), and for records that wait in its folder"
            )
            yield Objection(f"producer {name}", f"{why}; when neither has {key.key_id} any more: --despite {name}")


def ops(last_note: datetime | None) -> Iterator[Objection]:
    """What speaks against retiring an ops key: a consumer that seals notes to it."""
    if last_note is not None:
        hours = NOTE_WINDOW.total_seconds() / 3600
        why = f"at {rfc3339(last_note)} a consumer sealed a note to the key: enroll the new ops key on every consumer"
        yield Objection("consumers", f"{why}; retired when no note was sealed to it for {hours:.0f} h")
