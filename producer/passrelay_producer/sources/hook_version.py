"""Which version of its account's password a record belongs to. Pure; docs/adr/0018-hook-part.md has the reasons.

A record says when LSASS called, which is just after AD's commit on this controller. AD says only its current version:
where and when that was made. So the newest record of an account is AD's current version, unless AD has moved past it
since; every other record comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from passrelay_producer.metadata import UNICODE_PWD, parse
from passrelay_producer.sources.samba_account import Reading
from passrelay_producer.sources.samba_change import changed_at
from passrelay_schemas.filetime import UNITS_PER_SECOND

CLOCK_SECONDS = 1
"""A clock that was set back by less between commit and call takes no version from the newest record."""


@dataclass(frozen=True)
class Version:
    """A record's place in its account's order."""

    kvno: int
    changed_at: int
    origin: UUID | None
    current: bool
    """AD's password is the record's, as far as anybody can know."""


def version_of(reading: Reading, *, calls: Sequence[int], controller: UUID, given: int | None) -> Version | None:
    """The version of an account's record; None when AD shows no version of the account.

    `calls`: FILETIMEs of the record's own call and of those of the account's later records, in their order.
    `controller`: this controller's invocationId. `given`: the highest version that a record of the account got before.
    MetadataError when AD's answer cannot be read.
    """
    newest = _newest(reading)
    if newest is None:
        return None
    kvno, time, origin = newest
    called_at, newer = calls[0], len(calls) - 1
    taken = given is not None and given >= kvno
    # Where a record has this version already, AD's time is believed to the last digit.
    tolerated = 0 if taken else CLOCK_SECONDS * UNITS_PER_SECOND
    past = time > calls[-1] + tolerated or origin not in (None, controller)
    if newer or past:
        # An upper bound: what was changed elsewhere in between took versions too. Its own time decides among equals.
        return Version(max(1, kvno - newer - past), called_at, None, current=False)
    if taken:
        # A record before was looked up when AD had this change already. It got its version with AD's time, at most
        # CLOCK_SECONDS after its own, and up to a second for the origin's rank: this one comes after that.
        return Version(kvno, called_at + (CLOCK_SECONDS + 1) * UNITS_PER_SECOND, None, current=True)
    return Version(kvno, time or called_at, origin, current=True)


def _newest(reading: Reading) -> tuple[int, int, UUID | None] | None:
    """Version, time and controller of AD's password. Windows shows the last to few: then pwdLastSet counts."""
    if not reading.metadata:
        return (reading.key_version, reading.pwd_last_set, None) if reading.key_version else None
    stamps = parse(reading.metadata)
    stamp = stamps.get(UNICODE_PWD)
    return None if stamp is None else (stamp.version, changed_at(reading.pwd_last_set, stamps), stamp.invocation_id)
