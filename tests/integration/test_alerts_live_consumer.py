"""Alerts on what consumers meet, really caused and repaired: wrong clocks, rights taken away, a policy for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE

from tests.integration.test_watch import NAME
from tests.integration.watched import MonitoredSite, Watched, monitored
from tests.lab.clock import environment_of, set_clock
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, modify
from tests.lab.process import wait_for
from tests.lab.prometheus import FACTOR
from tests.lab.tiers import short_tiers

__all__ = ["monitored"]  # a fixture

pytestmark = pytest.mark.integration

HOUR, RIGHT = timedelta(hours=1), timedelta()
WRITE_RULE = 'acl "passrelay: set a password and its marker"'
"""As ops/idm/access.ldif names it."""
LONGER_THAN_A_CANARY = "40"
"""And shorter than what the probe sets."""
BRAKE = 20
CLOCK_ALERTS = 'ALERTS{alertname="PassrelayClockOff", alertstate="firing"}'


def test_clocks_that_are_off(monitored: MonitoredSite) -> None:
    watched = Watched(monitored)
    producers, consumers = (monitored.folder / f"{name}.clock" for name in ("producer", "consumer"))
    watched.producer.process.env = environment_of(producers)
    watched.consumer.process.env = environment_of(consumers)
    firing = watched.prometheus.wait_until_firing
    with watched.run():
        set_clock(consumers, HOUR)
        firing("PassrelayClockOff")
        assert [sample["metric"]["server"] for sample in watched.prometheus.query(CLOCK_ALERTS)] == [
            monitored.directory.ldaps_url
        ]
        set_clock(consumers, RIGHT)
        firing()

        # As after a boot without a battery: its news are of the future too, so nobody can say whether it lives.
        watched.producer.stop()
        set_clock(producers, HOUR)
        watched.producer.start()
        watched.change()
        firing("PassrelayClockOff", "PassrelayProducerSilent")
        assert [sample["metric"]["producer"] for sample in watched.prometheus.query(CLOCK_ALERTS)] == ["dc1"]
        watched.producer.stop()
        set_clock(producers, RIGHT)
        watched.producer.start()
        watched.change()
        firing()  # at once, not after an hour


def test_what_waits_and_what_stops_the_consumer(monitored: MonitoredSite) -> None:
    watched = Watched(monitored)
    directory, firing = monitored.directory, watched.prometheus.wait_until_firing
    with short_tiers(monitored.broker, factor=FACTOR), watched.run():
        with _without_the_right_to_write(directory):
            for _ in range(25):
                watched.change()
            firing("PassrelayRetriesGrow", "PassrelayNoApply", meanwhile=watched.change)
        newest = watched.change()
        firing()
        wait_for(lambda: directory.binds(NAME, newest), what="the newest arrives")

        people = [f"{NAME}{number}" for number in range(BRAKE)]
        directory.add_users(people)
        with _policy(directory, passwordCheckSyntax="on", passwordMinLength=LONGER_THAN_A_CANARY):
            passwords = {name: watched.change(name) for name in people}
            firing("PassrelayConsumerBrake", "PassrelayDeadLetters")
        watched.consumer.stop()
        watched.consumer.start()
        watched.dead("replay", "--reason", "policy")
        firing()
        wait_for(lambda: all(directory.binds(*each) for each in passwords.items()), what="all have arrived")


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
