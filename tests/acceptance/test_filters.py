"""Filters as an administrator meets them: one pilot group, people who come into it, and words for who is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.organisation import Organisation
from tests.lab.process import LabError, wait_for
from tests.lab.relay import Relay
from tests.lab.samba import DomainController

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "pilot", reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


def test_a_pilot_group_is_carried_and_who_joins_it_later_too(relay: Relay, controller: DomainController) -> None:
    organisation = Organisation(controller)
    relay.enrolment.enrol("dc1")
    domain = {"name": controller.dns_domain, "sid": controller.sid}
    relay.prepare(domains=[relay.enrolment.domain(relay.directory.search_base, **domain)])
    samba = {"ldapi_path": controller.ldapi_path, "gpg_key_file": controller.gpg_key_file, "poll_ms": 20}
    pilot = {"include_groups": ["pilot"], "exclude_patterns": ["svc-*"]}

    def arrives(name: str, password: str) -> None:
        wait_for(lambda: relay.directory.binds(name, password), what=f"{name} at IdM", timeout_seconds=60)

    # Before there is such a group, and while nobody is in it, nothing starts.
    with pytest.raises(LabError, match=r"(?s)exit 2.*\[filter\] include_groups: there is no group 'pilot'"):
        relay.samba_producer("dc1", samba, filters=pilot)
    for name in ("first", "second", "svc-third"):
        relay.directory.add_user(name)
        controller.add_user(name, canary_password())
    organisation.group("pilot")
    with pytest.raises(LabError, match=r"(?s)exit 2.*\[filter\] leaves nobody of \d users"):
        relay.samba_producer("dc1", samba, filters=pilot)

    organisation.join("pilot", "first", "svc-third")
    producer = relay.samba_producer("dc1", samba, filters=pilot)
    producer.start()
    relay.consumer("consumer").start()
    later, service = canary_password(), canary_password()
    controller.ldaps_reset("second", later)
    controller.ldaps_reset("svc-third", service)
    for reason in ("not_included", "exclude_pattern"):
        wait_for(
            lambda reason=reason: producer.metric("passrelay_events_total", outcome="excluded", reason=reason) == 1,  # type: ignore[misc]
            what=f"a change left out: {reason}",
        )
    password = canary_password()
    controller.ldaps_reset("first", password)
    arrives("first", password)
    assert not relay.directory.binds("second", later)
    with pytest.raises(LabError, match=r"(?s)exit 2.*'second': it is in none of \[filter\] include_groups"):
        relay.passrelay("producer", "capture", "--user", "second", "--config", producer.config)

    organisation.join("pilot", "second")
    arrives("second", later)
    said = relay.passrelay("producer", "capture", "--all", "--config", producer.config)
    assert "2 events were captured" in said
    assert re.search(r"\b[45] accounts were left out", said)  # svc-third, the built-in ones, and Samba's own for DNS
    assert not relay.directory.binds("svc-third", service)

    # The group goes while the producer runs: it waits and says so, and nothing is lost.
    dn = organisation.dn("pilot")
    organisation.delete(dn)
    wait_for(
        lambda: any("there is no group 'pilot'" in line["why"] for line in producer.lines("capture_failed")),
        what="the producer says what it misses",
    )
    password = canary_password()
    controller.ldaps_reset("first", password)
    organisation.group("pilot", "first")
    arrives("first", password)
    assert producer.stop() == 0
