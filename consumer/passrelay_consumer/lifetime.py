"""How long a password of IPA lasts that a server expired in error: pure, from what the entry showed before."""

from __future__ import annotations

from datetime import datetime, timedelta

from passrelay_consumer.decide import Entry

_DAY = timedelta(days=1)


def password_life(before: Entry, *, probe: timedelta | None) -> timedelta | None:
    """How long the user's new password would have lasted; None for ever.

    The policy that holds for him shows in his last password, if that kept the life it was given. `probe` is what the
    probe's passwords get, so what the global policy says.
    """
    if before.last_change is None:
        return probe
    if before.expiration is None:
        return None
    life = before.expiration - before.last_change
    # A policy's life is in whole days (`ipa pwpolicy-mod --maxlife`), counted from the very second of the change. What
    # is not was set by hand, by a must-change step, by a reset in IdM (at once), or by a policy changed with kadmin.
    return life if life >= _DAY and not life % _DAY else probe


def expires_at(changed_at: datetime, life: timedelta | None) -> datetime | None:
    """When a password of this life ends; None for never, which is also what lies beyond the year 9999."""
    try:
        return None if life is None else changed_at + life
    except OverflowError:
        return None
