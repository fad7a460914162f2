"""Only an enrolled producer speaks for a domain, and only about accounts of that domain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.enrolment import Enrolments, check_event, order_key
from passrelay_schemas.errors import ForeignDomainError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.order import Order, OrderKey
from tests.lab.folder import CANARY
from tests.unit.builders import CHANGED_AT, DOMAIN, DOMAIN_SID, EVENT_ID, event

AD = DomainSettings(name=DOMAIN, sid=DOMAIN_SID, producers=("dc1", "dc2"), epoch=3)
TIMED = DomainSettings(name="hr.example", order=Order.TIME, producers=("hr",))
ENROLMENTS = Enrolments([AD, TIMED])


def test_a_listed_producer_speaks_for_its_domain() -> None:
    assert ENROLMENTS.domain_of(producer="dc2", domain=DOMAIN) is AD
    assert ENROLMENTS.domain_of(producer="hr", domain="hr.example") is TIMED


@pytest.mark.parametrize(
    ("producer", "domain"),
    [
        ("dc1", "hr.example"),
        ("hr", DOMAIN),
        ("dc3", DOMAIN),
        ("dc", DOMAIN),
        ("DC1", DOMAIN),
        ("", DOMAIN),
        ("dc1", "other.example"),
        ("dc1", f"sub.{DOMAIN}"),
        ("dc1", "example"),
    ],
)
def test_everybody_else_is_foreign(producer: str, domain: str) -> None:
    with pytest.raises(ForeignDomainError):
        ENROLMENTS.domain_of(producer=producer, domain=domain)


def test_an_event_of_its_domain_is_taken() -> None:
    check_event(event(), AD)
    check_event(event(domain="hr.example", kvno=0, sid=None), TIMED)
    check_event(event(domain="hr.example", kvno=0), TIMED)


FOREIGN: dict[str, tuple[PasswordChanged, DomainSettings]] = {
    "another domain inside": (event(domain="other.example"), AD),
    "no sid": (event(sid=None), AD),
    "sid of another domain": (event(sid="S-1-5-21-1-2-4-1105"), AD),
    "sid of a longer domain": (event(sid=f"{DOMAIN_SID}4-1105"), AD),
    "sid below the domain": (event(sid=f"{DOMAIN_SID}-4-1105"), AD),
    "sid above the domain": (event(sid="S-1-5-21-1-2-1105"), AD),
    "the domain itself": (event(sid=DOMAIN_SID), AD),
    "well-known sid": (event(sid="S-1-5-32-544"), AD),
    "kvno 0 in a kvno domain": (event(kvno=0), AD),
    "kvno in a timed domain": (event(domain="hr.example"), TIMED),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_an_event_of_another_domain_or_order_is_foreign(case: str) -> None:
    change, domain = FOREIGN[case]
    with pytest.raises(ForeignDomainError) as caught:
        check_event(change, domain)
    assert CANARY not in str(caught.value)
    assert "alice" not in str(caught.value)


def test_the_key_takes_the_epoch_of_the_enrolment() -> None:
    assert order_key(event(), AD, EVENT_ID) == OrderKey.of(epoch=3, kvno=7, changed_at=CHANGED_AT, event_id=EVENT_ID)
    restored: Any = AD.model_copy(update={"epoch": 4})
    assert order_key(event(kvno=1, changed_at=0), restored, EVENT_ID) > order_key(event(kvno=99), AD, EVENT_ID)


def test_what_was_captured_before_the_restore_belongs_to_the_epoch_before() -> None:
    began = captured_at(EVENT_ID)
    restored: Any = AD.model_copy(update={"epoch": 4, "epoch_began_at": began})
    late: Any = AD.model_copy(update={"epoch": 4, "epoch_began_at": began + timedelta(milliseconds=1)})
    assert order_key(event(kvno=1), restored, EVENT_ID).epoch == 4
    # In a tier during the restore: a version of the forgotten history must not win.
    assert order_key(event(kvno=99), late, EVENT_ID) < order_key(event(kvno=1), restored, EVENT_ID)
    assert order_key(event(kvno=99), late, EVENT_ID).epoch == 3
