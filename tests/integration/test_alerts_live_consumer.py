"""Alerts on what consumers meet, really caused and repaired: wrong clocks, rights taken away, a policy for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE

from passrelay_consumer.journal import made_up_id
from passrelay_schemas import filetime
from tests.integration.test_watch import NAME, PRODUCER
from tests.integration.watched import MonitoredSite, Watched, monitored
from tests.lab.clock import environment_of, set_clock
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, modify
from tests.lab.enrolment import change
from tests.lab.folder import canary_password
from tests.lab.process import wait_for
from tests.lab.relay import Service
from tests.lab.tiers import short_tiers

__all__ = ["monitored"]  # a fixture

pytestmark = pytest.mark.integration

HOUR, RIGHT = timedelta(hours=1), timedelta()
WRITE_RULE = 'acl "passrelay: set a password and its marker"'
"""As ops/idm/access.ldif names it."""
LONGER_THAN_A_CANARY = "40"
"""And shorter than what the probe sets."""
BRAKE = 20
TIER_FACTOR = 60
"""Less than the alerts': what waits in a long tier stays there while several looks are taken."""
CLOCK_ALERTS = 'ALERTS{alertname="PassrelayClockOff", alertstate="firing"}'


@pytest.fixture(scope="module")
def watched(monitored: MonitoredSite) -> Iterator[Watched]:
    made = Watched(monitored)
    for service in (made.producer, made.consumer):
        service.process.env = environment_of(_clock(service))
    with short_tiers(monitored.broker, factor=TIER_FACTOR), made.run():
        yield made


def _clock(service: Service) -> Path:
    return service.config.with_suffix(".clock")


def test_clocks_that_are_off(watched: Watched) -> None:
    firing, query = watched.prometheus.wait_until_firing, watched.prometheus.query
    with watched.prometheus.quiet():
        set_clock(_clock(watched.consumer), HOUR)
        firing("PassrelayClockOff")
        [alert] = query(CLOCK_ALERTS)
        assert alert["metric"]["server"] == watched.site.directory.ldaps_url
        set_clock(_clock(watched.consumer), RIGHT)
        firing()

        # As after a boot without a battery. Its news come from the future too: nobody can say whether it lives.
        _start_again(watched.producer, HOUR)
        watched.change()
        firing("PassrelayClockOff", "PassrelayProducerSilent")
        [alert] = query(CLOCK_ALERTS)
        assert alert["metric"]["producer"] == PRODUCER
        _start_again(watched.producer, RIGHT)
        watched.change()  # both end at once, not after an hour


def test_a_policy_that_refuses_everybody_pulls_the_brake(watched: Watched) -> None:
    directory, firing = watched.site.directory, watched.prometheus.wait_until_firing
    people = [f"{NAME}{number}" for number in range(BRAKE)]
    directory.add_users(people)
    with watched.prometheus.quiet():
        with _policy(directory, passwordCheckSyntax="on", passwordMinLength=LONGER_THAN_A_CANARY):
            passwords = {name: watched.change(name) for name in people}
            firing("PassrelayConsumerBrake", "PassrelayDeadLetters")
        _start_again(watched.consumer, RIGHT)
        watched.dead("replay", "--reason", "policy")
        wait_for(lambda: all(directory.binds(*each) for each in passwords.items()), what="all arrive")


def test_a_thief_uses_a_key_that_was_revoked(watched: Watched) -> None:
    site, firing = watched.site, watched.prometheus.wait_until_firing
    stolen = site.sender
    overheard = site.told()[0]
    forged = change(NAME, canary_password(), guid=uuid4(), kvno=10**6, changed_at=filetime.now())

    def forge() -> None:
        envelope = stolen.envelope(forged)
        site.publish([envelope])
        watched.sent.add(str(made_up_id(envelope)))  # nobody may put a record under another event's id

    with watched.prometheus.quiet():
        watched.rotate_signing_key()
        site.passrelay("keys", "revoke", stolen.signer.document.key_id, *watched.at_consumers, "--yes")
        for service in (watched.consumer, watched.watcher):
            wait_for(lambda: _has_read(service, site.enrolment.consumer_keys), what=f"{service.name} knows it")  # noqa: B023
        password = watched.change()
        firing("PassrelayRevokedKeyUsed", "PassrelayDeadLetters", meanwhile=forge)
        watched.wait_until_all_ended()
        watched.dead("discard", "--reason", "revoked")
        firing()
        site.tell(overheard)
        firing("PassrelayRevokedKeyUsed")
        assert site.directory.binds(NAME, password)


def test_everything_waits_because_a_right_is_gone(watched: Watched) -> None:
    """The last one here: what waits comes back within a minute."""
    directory, firing = watched.site.directory, watched.prometheus.wait_until_firing
    with watched.prometheus.quiet():
        with _without_the_right_to_write(directory):
            for _ in range(25):
                watched.change()
            firing("PassrelayRetriesGrow", "PassrelayNoApply", meanwhile=watched.change)
        newest = watched.change()
        wait_for(lambda: directory.binds(NAME, newest), what="the newest arrives")


def _has_read(service: Service, keys: Path) -> bool:
    """Whether it has read the keys since the last of them was written."""
    written = max(path.stat().st_mtime for path in keys.glob("*.pub.json"))
    return any(
        datetime.fromisoformat(line["timestamp"]).timestamp() > written for line in service.lines("keyring_read")
    )


def _start_again(service: Service, ahead: timedelta) -> None:
    service.stop()
    set_clock(_clock(service), ahead)
    service.start()


@contextmanager
def _without_the_right_to_write(directory: Directory) -> Iterator[None]:
    """Somebody took the rule away; the probe, which lies elsewhere, is still good."""
    [rule] = [rule for rule in directory.read_entry(directory.search_base)["aci"] if WRITE_RULE in rule]
    _change(directory, directory.search_base, {"aci": [(MODIFY_DELETE, [rule])]})
    try:
        yield
    finally:
        _change(directory, directory.search_base, {"aci": [(MODIFY_ADD, [rule])]})


@contextmanager
def _policy(directory: Directory, **values: str) -> Iterator[None]:
    """The password policy for everybody, and as it was."""
    as_it_was = {"passwordCheckSyntax": "off", "passwordMinLength": "8"}
    _change(directory, "cn=config", {name: [(MODIFY_REPLACE, [value])] for name, value in values.items()})
    try:
        yield
    finally:
        _change(directory, "cn=config", {name: [(MODIFY_REPLACE, [as_it_was[name]])] for name in values})


def _change(directory: Directory, dn: str, changes: Changes) -> None:
    with directory.manager() as manager:
        modify(manager, dn, changes)
