"""Which producer may speak for which AD domain: the consumer's [[domain]] tables."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ForeignDomainError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.order import Order, OrderKey


class Enrolments:
    """The enrolled domains by name."""

    def __init__(self, domains: Iterable[DomainSettings]) -> None:
        self._domains = {domain.name: domain for domain in domains}

    def domain_of(self, *, producer: str, domain: str) -> DomainSettings:
        """The enrolment of `domain`, if `producer` is listed there; ForeignDomainError otherwise."""
        found = self._domains.get(domain)
        if found is None:
            raise ForeignDomainError(f"domain {domain} is not enrolled here")
        if producer not in found.producers:
            raise ForeignDomainError(f"producer {producer} is not listed under [[domain]] {domain} producers")
        return found


def check_event(event: PasswordChanged, domain: DomainSettings) -> None:
    """The opened event must belong to the domain that its envelope named: ForeignDomainError."""
    if event.domain != domain.name:
        raise ForeignDomainError("the sealed event names another domain than its envelope")
    if domain.sid is not None:
        sid = event.account.sid
        if sid is None or sid.rpartition("-")[0] != domain.sid:
            raise ForeignDomainError(f"the account's SID does not belong to domain {domain.name} ({domain.sid})")
    if (domain.order is Order.KVNO) != (event.kvno > 0):
        raise ForeignDomainError(
            f"domain {domain.name} is ordered by {domain.order}, the event has kvno {event.kvno}: orders never mix"
        )


def order_key(event: PasswordChanged, domain: DomainSettings, event_id: UUID) -> OrderKey:
    """The event's place in its domain's order.

    What was captured before the domain's restore belongs to the epoch before, whenever it arrives: its versions count
    a history that AD has forgotten.
    """
    epoch = domain.epoch
    if domain.epoch_began_at is not None and captured_at(event_id) < domain.epoch_began_at:
        epoch -= 1
    return OrderKey.of(
        epoch=epoch, kvno=event.kvno, changed_at=event.changed_at, event_id=event_id, origin=event.origin
    )
