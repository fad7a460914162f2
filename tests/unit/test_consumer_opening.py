"""Several deliveries are opened together, and none is another's misfortune or luck."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from passrelay_consumer.opening import Opened, Opening, Trusted
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.filetime import now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.message import Counters
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.enrolment import Enrolment, Sender, change
from tests.lab.folder import canary_password
from tests.unit.builders import GUID, changed

WRITTEN_AT = datetime(2026, 11, 27, 12, tzinfo=UTC)


class Site:
    """One producer that is enrolled, one whose key is not here, and the opening under test."""

    def __init__(self, folder: Path) -> None:
        enrolment = Enrolment(folder / "known")
        self.sender = enrolment.enrol("dc1")
        self.stranger = Enrolment(folder / "unknown").enrol("dc1")
        domain = DomainSettings.model_validate(enrolment.domain("cn=users,dc=lab"))
        self.opening = Opening((domain,), Keyring(enrolment.consumer_keys))

    def envelope(self, sam: str, *, sender: Sender | None = None, password: str | None = None) -> bytes:
        made = change(sam, password or canary_password(), guid=GUID, kvno=3, changed_at=now())
        return (sender or self.sender).envelope(made)

    def open(self, *bodies: bytes) -> list[Opened]:
        return self.opening.open([Delivery(body, Counters(), datetime.now(UTC)) for body in bodies])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def told(opened: Opened) -> str:
    if isinstance(opened, Outcome):
        return f"{opened.verdict} {opened.reason}"
    return f"{opened.event.account.sam_account_name}"


def test_each_gets_its_own_answer_in_its_own_place(site: Site) -> None:
    another = json.loads(site.envelope("alice"))
    bodies = (
        site.envelope("anna"),
        b"no envelope",
        site.envelope("bert", sender=site.stranger),
        changed(site.envelope("alice"), signature=another["signature"]),
        site.envelope("PC1$"),
        site.envelope("carl", password=f"{canary_password()}\0"),
        site.envelope("dora"),
    )
    found = [told(opened) for opened in site.open(*bodies)]
    assert found == [
        "anna",
        f"{Verdict.DEAD} {Reason.MALFORMED}",
        f"{Verdict.RETRY} {Reason.UNTRUSTED}",
        f"{Verdict.DEAD} {Reason.BAD_SIGNATURE}",
        f"{Verdict.DEAD} {Reason.PROTECTED}",
        f"{Verdict.DEAD} {Reason.POLICY}",
        "dora",
    ]
    assert found == [told(site.open(body)[0]) for body in bodies], "alone it is the same"


def test_each_keeps_its_own_password_and_counters(site: Site) -> None:
    passwords = [canary_password() for _ in range(5)]
    counters = [Counters(), Counters(settle=2, settle_since=WRITTEN_AT), Counters(), Counters(), Counters(settle=1)]
    deliveries = [
        Delivery(site.envelope(f"user{number}", password=password), counters[number], datetime.now(UTC))
        for number, password in enumerate(passwords)
    ]
    trusted = [opened for opened in site.opening.open(deliveries) if isinstance(opened, Trusted)]
    assert [one.event.password.reveal() for one in trusted if one.event.password] == passwords
    assert [one.progress.settling for one in trusted] == [False, True, False, False, True]
    assert trusted[1].progress.settle_since == WRITTEN_AT
    assert len({one.progress.header.event_id for one in trusted if one.progress.header}) == len(passwords)


def test_what_is_refused_says_how_far_it_came(site: Site) -> None:
    malformed, unknown, protected = site.open(
        b"{}", site.envelope("bert", sender=site.stranger), site.envelope("krbtgt")
    )
    assert isinstance(malformed, Outcome)
    assert (malformed.header, malformed.authentic) == (None, False)
    assert isinstance(unknown, Outcome)
    assert unknown.header is not None
    assert (unknown.authentic, unknown.account) == (False, None)
    assert isinstance(protected, Outcome)
    assert (protected.authentic, protected.account) == (True, "krbtgt")


def test_nothing_to_open(site: Site) -> None:
    assert site.open() == []
