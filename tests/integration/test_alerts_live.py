"""Faults that are really caused make the shipped alerts fire in a real Prometheus, and their repair ends them.

Before and after each test no alert fires (`quiet`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import keys, topology
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.verdict import Reason
from tests.integration.test_watch import NAME, PRODUCER
from tests.integration.watched import MonitoredSite, Watched, monitored
from tests.lab.certificates import Certificate
from tests.lab.dead_mail import DeadMail
from tests.lab.process import wait_for
from tests.lab.prometheus import RULES, quicker

__all__ = ["monitored"]  # a fixture

pytestmark = pytest.mark.integration

THIRTEEN_DAYS = timedelta(days=13)
EIGHTY_DAYS = timedelta(days=80)
"""The dead stream drops a letter after 90 days."""


@pytest.fixture(scope="module")
def watched(monitored: MonitoredSite) -> Iterator[Watched]:
    made = Watched(monitored)
    with made.run():
        yield made


def test_letters_that_nobody_handles(watched: Watched) -> None:
    site, firing = watched.site, watched.prometheus.wait_until_firing
    mail = DeadMail(site.broker, site.enrolment, site.sender, 1, prefix=NAME)
    with watched.prometheus.quiet():
        mail.write(iter([Reason.POLICY, Reason.USER_MISSING]))
        mail.write(iter([Reason.REFUSED, Reason.USER_MISSING]), began=utc_now() - EIGHTY_DAYS)
        firing("PassrelayDeadLetters", "PassrelayDeadLettersExpire")
        watched.dead("discard", "--reason", "refused")
        firing("PassrelayDeadLetters")
        watched.dead("discard", "--reason", "policy")


def test_directory_queue_and_broker(watched: Watched) -> None:
    site, firing = watched.site, watched.prometheus.wait_until_firing
    with watched.prometheus.quiet():
        site.directory.stop()
        password = watched.change()
        firing("PassrelayDirectoryDown", "PassrelayConsumerPaused")
        site.directory.start()
        firing()
        wait_for(lambda: site.directory.binds(NAME, password), what="the change arrives")

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


def test_services_that_end_and_a_disk_that_fills_up(watched: Watched) -> None:
    firing = watched.prometheus.wait_until_firing
    stray = watched.site.spool(PRODUCER).parent / "core.12345"
    with watched.prometheus.quiet():
        watched.consumer.stop()
        firing("PassrelayNoConsumer", "PassrelayTargetDown")
        watched.producer.stop()
        firing("PassrelayNoConsumer", "PassrelayTargetDown", "PassrelayProducerSilent")
        watched.consumer.start()
        firing("PassrelayTargetDown", "PassrelayProducerSilent")
        watched.producer.start()
        with stray.open("wb") as file:
            for _ in range(150):
                file.write(bytes(10**6))
        firing("PassrelaySpoolLow")
        stray.unlink()


def test_a_key_and_a_certificate_near_their_end(watched: Watched) -> None:
    site, firing = watched.site, watched.prometheus.wait_until_firing
    key = site.sender.signer.document.model_copy(update={"expires_at": utc_now() + THIRTEEN_DAYS})
    with watched.prometheus.quiet():
        for directory in (site.enrolment.producer_keys(PRODUCER), site.enrolment.consumer_keys):
            keys.write_public(directory, key)
        certificate = _short_lived(watched)
        _start_again(watched)
        firing("PassrelayKeyExpires", "PassrelayCertificateExpires")
        assert _issue(watched, None) == certificate  # the new one, at the same path
        watched.rotate_signing_key()
        _start_again(watched)
        password = watched.change()
        wait_for(lambda: site.directory.binds(NAME, password), what="the new key and certificate are taken")


def _start_again(watched: Watched) -> None:
    """The consumer reads certificates at its start only; the producer looks at its keys when it needs them."""
    for service in (watched.consumer, watched.producer):
        service.stop()
        service.start()


def _short_lived(watched: Watched) -> Certificate:
    """The consumer logs in at the broker with a certificate that has thirteen days left."""
    config = watched.consumer.config
    usual, short = watched.site.broker.certificate("consumer"), _issue(watched, utc_now() + THIRTEEN_DAYS)
    text = config.read_text().replace(str(usual.certificate), str(short.certificate))
    config.write_text(text.replace(str(usual.key), str(short.key)))
    return short


def _issue(watched: Watched, ends: datetime | None) -> Certificate:
    return watched.site.broker.ca.issue("renewed-consumer", common_name="consumer", not_after=ends)


def test_every_wait_is_divided() -> None:
    text = "for: 2m\n expr: increase(x[70m]) > 0 and y offset 30m\n for: 1h\n for: 30s\n a_oldest_seconds > 900"
    quick = "for: 2000ms\n expr: increase(x[70000ms]) > 0 and y offset 30000ms\n for: 60000ms\n for: 500ms\n "
    assert quicker(text, 60) == quick + "a_oldest_seconds > 15"
    rules = re.sub(r'".*?"', "", quicker(RULES.read_text()))
    assert re.findall(r"\b\d+[smhd]\b", rules) == []
