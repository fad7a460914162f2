"""Faults that are really caused make the shipped alerts fire in a real Prometheus, and their repair ends them.

What each `watching()` adds: before and after, no alert fires.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import topology
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.verdict import Reason
from tests.integration.test_watch import NAME, PRODUCER
from tests.integration.watched import MonitoredSite, Watched, monitored
from tests.lab.dead_mail import DeadMail
from tests.lab.process import wait_for
from tests.lab.prometheus import RULES, quicker

__all__ = ["monitored"]  # a fixture

pytestmark = pytest.mark.integration

OLD_ENOUGH = timedelta(days=80)
"""The dead stream drops a letter after 90 days."""


def test_letters_queues_directory_and_broker(monitored: MonitoredSite) -> None:
    watched = Watched(monitored)
    site, firing = monitored, watched.prometheus.wait_until_firing
    with watched.run():
        mail = DeadMail(site.broker, site.enrolment, site.sender, 1, prefix=NAME)
        mail.write(iter([Reason.POLICY, Reason.USER_MISSING]))
        mail.write(iter([Reason.REFUSED, Reason.USER_MISSING]), began=utc_now() - OLD_ENOUGH)
        firing("PassrelayDeadLetters", "PassrelayDeadLettersExpire")
        watched.dead("discard", "--reason", "refused")
        firing("PassrelayDeadLetters")
        watched.dead("discard", "--reason", "policy")
        firing()

        site.directory.stop()
        password = watched.change()
        firing("PassrelayDirectoryDown", "PassrelayConsumerPaused")
        site.directory.start()
        firing()
        assert site.directory.binds(NAME, password)

        # A queue that is bound no more: the producer keeps the event, and nothing else is wrong.
        connection = BlockingConnection(site.broker.parameters())
        connection.channel().queue_unbind(topology.EVENTS, topology.EVENTS, "")
        connection.close()
        password = watched.change()
        firing("PassrelaySpoolOld")
        site.passrelay("topology", "apply", "--config", site.ops_config())
        firing()
        wait_for(lambda: site.directory.binds(NAME, password), what="the change arrives")

        site.broker.stop()
        firing("PassrelayBrokerUnreachable", "PassrelayWatchMissing")
        site.broker.start()


def test_services_that_end_and_a_disk_that_fills_up(monitored: MonitoredSite) -> None:
    watched = Watched(monitored)
    firing = watched.prometheus.wait_until_firing
    with watched.run():
        watched.consumer.stop()
        firing("PassrelayNoConsumer", "PassrelayTargetDown")
        watched.producer.stop()
        firing("PassrelayNoConsumer", "PassrelayTargetDown", "PassrelayProducerSilent")
        watched.consumer.start()
        firing("PassrelayTargetDown", "PassrelayProducerSilent")
        watched.producer.start()
        firing()

        stray = monitored.spool(PRODUCER).parent / "core.12345"
        with stray.open("wb") as file:
            file.truncate(0)
            for _ in range(150):
                file.write(bytes(10**6))
        firing("PassrelaySpoolLow")
        stray.unlink()


def test_every_wait_is_divided() -> None:
    text = "for: 2m\n expr: increase(x[70m]) > 0 and y offset 30m\n for: 1h\n for: 30s\n a_oldest_seconds > 900"
    quick = "for: 2000ms\n expr: increase(x[70000ms]) > 0 and y offset 30000ms\n for: 60000ms\n for: 500ms\n "
    assert quicker(text, 60) == quick + "a_oldest_seconds > 15"
    rules = re.sub(r'".*?"', "", quicker(RULES.read_text()))
    assert re.findall(r"\b\d+[smhd]\b", rules) == []
