"""Alerts on keys and certificates, each really caused and repaired, with the days that they ship with."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from passrelay_schemas import filetime, keys
from passrelay_schemas.filetime import utc_now
from tests.integration.test_watch import NAME, PRODUCER
from tests.integration.watched import MonitoredSite, Watched, monitored
from tests.lab.certificates import Certificate
from tests.lab.enrolment import change
from tests.lab.folder import canary_password
from tests.lab.process import wait_for

__all__ = ["monitored"]  # a fixture

pytestmark = pytest.mark.integration

THIRTEEN_DAYS = timedelta(days=13)


def test_a_key_and_a_certificate_near_their_end_and_a_revoked_key_that_is_used(monitored: MonitoredSite) -> None:
    watched = Watched(monitored)
    firing = watched.prometheus.wait_until_firing
    old = monitored.sender.signer.document.model_copy(update={"expires_at": utc_now() + THIRTEEN_DAYS})
    for directory in (monitored.enrolment.producer_keys(PRODUCER), monitored.enrolment.consumer_keys):
        keys.write_public(directory, old)
    certificate = _short_lived(watched)
    with watched.run():
        firing("PassrelayKeyExpires", "PassrelayCertificateExpires")
        _renew(watched, certificate)
        firing("PassrelayKeyExpires")
        _rotate(monitored, old.key_id)
        watched.producer.stop()  # it looks once a minute
        watched.producer.start()
        firing()
        password = watched.change()
        wait_for(lambda: monitored.directory.binds(NAME, password), what="the new key and certificate are taken")

        # The old key was stolen. Its thief has a login at the broker.
        monitored.passrelay("keys", "revoke", old.key_id, *_of_consumers(monitored), "--yes")
        forged = change(NAME, canary_password(), guid=uuid4(), kvno=99, changed_at=filetime.now())
        firing(
            "PassrelayRevokedKeyUsed",
            "PassrelayDeadLetters",
            meanwhile=lambda: monitored.publish([monitored.sender.envelope(forged)]),
        )
        watched.dead("discard", "--reason", "revoked")
        firing()
        monitored.tell(monitored.told()[0])  # from before the rotation, once more
        firing("PassrelayRevokedKeyUsed")
        assert monitored.directory.binds(NAME, password)


def _short_lived(watched: Watched) -> Certificate:
    """The consumer logs in at the broker with a certificate that has thirteen days left."""
    broker, config = watched.site.broker, watched.consumer.config
    usual, short = broker.certificate("consumer"), _issue(watched, utc_now() + THIRTEEN_DAYS)
    text = config.read_text().replace(str(usual.certificate), str(short.certificate))
    config.write_text(text.replace(str(usual.key), str(short.key)))
    return short


def _renew(watched: Watched, old: Certificate) -> None:
    """As docs/runbooks/PassrelayCertificateExpires.md says."""
    assert _issue(watched, None) == old  # at the same path
    watched.consumer.stop()
    watched.consumer.start()


def _issue(watched: Watched, ends: datetime | None) -> Certificate:
    return watched.site.broker.ca.issue("renewed-consumer", common_name="consumer", not_after=ends)


def _rotate(site: MonitoredSite, old: str) -> None:
    """As docs/keys.md says."""
    directory = site.enrolment.producer_keys(PRODUCER)
    before = set(directory.glob("*.pub.json"))
    of_the_producer = ("--directory", directory, "--role", "producer")
    site.passrelay("keys", "rotate", "signing", *of_the_producer)
    [new] = set(directory.glob("*.pub.json")) - before
    site.passrelay("keys", "enroll", new, *_of_consumers(site), "--yes")
    site.passrelay("keys", "rotate", "signing", "--activate", *of_the_producer, "--yes")
    site.passrelay("keys", "enroll", directory / f"{old}.pub.json", *_of_consumers(site), "--yes")


def _of_consumers(site: MonitoredSite) -> tuple[str | Path, ...]:
    return ("--directory", site.enrolment.consumer_keys, "--role", "consumer")
