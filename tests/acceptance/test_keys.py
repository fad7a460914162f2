"""The life of keys on a running deployment: rotation under load, retiring, revoking, and a private key that is lost."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from passrelay_schemas import topology
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.keys import KeyUse, generate, private_path, public_path, write_private, write_public
from passrelay_schemas.note import note_key_id
from passrelay_schemas.verdict import Verdict
from tests.lab.load import Change, Population
from tests.lab.process import wait_for
from tests.lab.relay import LineProducer, Relay, Service

pytestmark = pytest.mark.acceptance

_PER_SECOND = float(os.environ.get("KEYS_LOAD_PER_SECOND", "20"))
_SECONDS = float(os.environ.get("KEYS_LOAD_SECONDS", "15"))
"""The promise is 50 a second for a minute; what a busy machine can do in a test is less."""


class Load:
    """Changes at a steady rate, until stopped."""

    def __init__(self, producer: LineProducer, population: Population) -> None:
        self._producer = producer
        self._population = population
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()
        self.sent = 0

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        names = list(self._population.history)
        while not self._stop.wait(max(0.0, self._began + self.sent / _PER_SECOND - time.monotonic())):
            made = self._population.change(self._population.random.choice(names))
            self._producer.write([made.line()])
            self.sent += 1

    def stop_after(self, seconds: float) -> None:
        wait_for(
            lambda: time.monotonic() >= self._began + seconds, what="the load's time", timeout_seconds=seconds + 60
        )
        self._stop.set()
        self._thread.join()


class Host:
    """What an administrator types on one host."""

    def __init__(self, relay: Relay, config: Path, role: str) -> None:
        self._relay = relay
        self._end = ("--json", "--config", config)
        self._role = ("--role", role)

    def keys(self, command: str, *arguments: str | Path) -> dict[str, Any]:
        """One `passrelay keys` command's document; it must succeed."""
        document = self.asked("keys", command, *arguments, *self._role)
        assert document["ok"], document["failures"]
        return document

    def retire(self, *arguments: str) -> dict[str, Any]:
        """`passrelay keys retire`, whatever comes of it."""
        return self.asked("keys", "retire", *arguments)

    def asked(self, *arguments: str | Path) -> dict[str, Any]:
        output = self._relay.passrelay(*arguments, *self._end, check=False)
        document: dict[str, Any] = json.loads(output.splitlines()[-1])
        return document


def _separate_keys(relay: Relay, service: Service) -> Path:
    """Give a consumer a key directory of its own, as on another host."""
    directory = relay.folder / f"{service.name}-keys"
    shutil.copytree(relay.enrolment.consumer_keys, directory)
    text = service.config.read_text()
    service.config.write_text(text.replace(str(relay.enrolment.consumer_keys), str(directory)))
    return directory


def _noted_with(relay: Relay) -> set[str]:
    return {note_key_id(found.note) for found in relay.outcomes().values() if found.note}


def _envelopes(relay: Relay) -> list[Envelope]:
    return [Envelope.parse(raw) for found in relay.records() if (raw := found.envelope_bytes) is not None]


def _key_id(document: dict[str, Any]) -> str:
    key_id: str = document["keys"][0]["key_id"]
    return key_id


def test_every_kind_of_key_is_rotated_under_load_and_no_event_is_late_dead_or_lost(relay: Relay) -> None:
    relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 40, seed=11)
    producer = relay.line_producer("dc1")
    here, there = relay.consumer("consumer1"), relay.consumer("consumer2")
    far = _separate_keys(relay, there)
    near = relay.enrolment.consumer_keys
    controller = Host(relay, producer.config, "producer")
    first, second = Host(relay, here.config, "consumer"), Host(relay, there.config, "consumer")
    desk = Host(relay, relay.ops_config(), "ops")
    for service in (here, there, producer):
        service.start()
    old = {
        use: relay.enrolment.recipient.key_id if use is KeyUse.RECIPIENT else relay.enrolment.ops.key_id
        for use in (KeyUse.RECIPIENT, KeyUse.OPS)
    }
    load = Load(producer, population)
    load.start()
    wait_for(lambda: relay.journal_depth() > 0, what="events before the rotation")

    # The recipient key: on every consumer before any producer seals to it.
    recipient = _key_id(first.keys("rotate", "recipient"))
    for path in (public_path(near, recipient), private_path(near, recipient)):
        shutil.copy2(path, far)
    listed = {key["key_id"]: key for key in second.keys("list")["keys"]}
    assert listed[recipient]["private_here"]
    first.keys("rotate", "recipient", "--activate", "--yes")
    for host in (controller, second):
        host.keys("enroll", public_path(near, recipient), "--yes")
    assert {key["key_id"]: key["status"] for key in second.keys("list")["keys"]}[recipient] == "active"
    wait_for(
        lambda: producer.metric("passrelay_spool_events", recipient_key_id=recipient) > 0,
        what="events sealed to the new key",
    )

    # The signing key: known to every consumer before the producer signs with it.
    signing = _key_id(controller.keys("rotate", "signing"))
    document = public_path(relay.enrolment.producer_keys("dc1"), signing)
    for consumer, host in ((here, first), (there, second)):
        seen = len(consumer.lines("keyring_read"))
        host.keys("enroll", document, "--yes")
        wait_for(lambda c=consumer, n=seen: len(c.lines("keyring_read")) > n, what="the consumer knows it")  # type: ignore[misc]
    (old_signing,) = (
        key["key_id"]
        for key in controller.keys("list")["keys"]
        if key["use"] == "signing" and key["status"] == "active"
    )
    controller.keys("rotate", "signing", "--activate", "--yes")

    # The ops key: on every operator's host before any consumer seals notes to it.
    noted = _key_id(desk.keys("rotate", "ops"))
    desk.keys("rotate", "ops", "--activate", "--yes")
    second.keys("enroll", public_path(near, noted), "--yes")
    wait_for(
        lambda: noted in _noted_with(relay) and signing in {one.signer.signing_key_id for one in _envelopes(relay)},
        what="events signed, and notes sealed, with the new keys",
        interval_seconds=1,
    )

    load.stop_after(_SECONDS)
    wait_for(lambda: len(producer.answers) >= load.sent, what="every answer")
    events = {answer["event_id"] for answer in producer.answers}
    assert len(events) == load.sent
    wait_for(lambda: events <= set(relay.outcomes()), what="every outcome", timeout_seconds=400, interval_seconds=1)
    outcomes = relay.outcomes()
    print(f"{load.sent} events at {_PER_SECOND:.0f} a second")
    envelopes = _envelopes(relay)
    assert {envelope.header.recipient_key_id for envelope in envelopes} == {old[KeyUse.RECIPIENT], recipient}
    assert {envelope.signer.signing_key_id for envelope in envelopes} == {old_signing, signing}
    assert _noted_with(relay) == {old[KeyUse.OPS], noted}
    assert {found.verdict for found in outcomes.values()} <= {Verdict.APPLIED, Verdict.SUPERSEDED}
    assert relay.records(topology.DEAD) == []
    for consumer in (here, there):
        assert consumer.metric("passrelay_events_total", outcome="retry") == 0
    assert population.faults() == []

    # Published events are still kept, and an hour has not passed since the last note: nothing is retired yet.
    # The producer says so once a minute: its last news may still speak of the time before.
    def kept_for_republishing() -> bool:
        refused = desk.retire(old[KeyUse.RECIPIENT], "--yes")
        assert not refused["ok"]
        assert {item["subject"] for item in refused["objections"]} == {"producer dc1"}
        details = [item["detail"] for item in refused["objections"]]
        return len(details) == 1 and "published events" in details[0]

    wait_for(kept_for_republishing, what="news of the new key", timeout_seconds=120, interval_seconds=1)
    assert [item["subject"] for item in desk.retire(old[KeyUse.OPS])["objections"]] == ["consumers"]
    assert "in use" in desk.retire(recipient)["objections"][0]["detail"]
    assert desk.retire(old_signing, "--yes")["ok"]
    producer.stop()
    refused = desk.retire(old[KeyUse.RECIPIENT], "--yes")
    assert "stopped" in refused["objections"][0]["detail"]
    producer.config.write_text(producer.config.read_text().replace("[spool]", "[spool]\nretention_hours = 0"))
    producer.start()
    wait_for(
        lambda: desk.retire(old[KeyUse.RECIPIENT], "--yes")["ok"],
        what="the old key is retired",
        interval_seconds=0.5,
    )
    for host in (controller, second):
        assert host.keys("enroll", public_path(near, old[KeyUse.RECIPIENT]), "--yes")["warnings"] == []
    kept = {key["key_id"]: key for key in desk.keys("list")["keys"]}[old[KeyUse.RECIPIENT]]
    assert kept["status"] == "retired"
    assert kept["private_kept_until"] > kept["status_since"]


def _wait_in_a_tier(relay: Relay, producer: LineProducer, consumer: Service, made: Change) -> None:
    """Its user is missing in IdM for a while, so that the event waits at the broker, published before all others."""
    relay.directory.delete_user(made.sam)
    producer.send([made.line()])
    wait_for(lambda: len(consumer.lines("retry")) == 1, what="the event waits in a tier")


def _wide_key(directory: Path) -> None:
    """The slip that must not matter: somebody copied a private key here with a wrong mode."""
    document, private = generate(KeyUse.RECIPIENT)
    write_private(directory, document, private).chmod(0o644)
    write_public(directory, document)


def test_a_revoked_producers_next_event_is_dead_and_a_new_key_brings_it_back(relay: Relay) -> None:
    for name in ("dc1", "dc2"):
        relay.enrolment.enrol(name)
    relay.prepare()
    population = Population(relay.directory, 3, seed=12)
    hers, his, late = population.history
    stolen, other = relay.line_producer("dc1"), relay.line_producer("dc2")
    consumer = relay.consumer("consumer")
    controller, desk = Host(relay, stolen.config, "producer"), Host(relay, consumer.config, "consumer")
    for service in (stolen, other, consumer):
        service.start()
    before = population.change(hers)
    stolen.send([before.line()])
    wait_for(lambda: len(relay.outcomes()) == 1, what="the event before")
    _wait_in_a_tier(relay, stolen, consumer, population.change(late))
    _wide_key(relay.enrolment.consumer_keys)
    wait_for(lambda: len(consumer.lines("keyring_fault")) > 0, what="the consumer complains of the slip")
    (key,) = (key for key in controller.keys("list")["keys"] if key["producer"])
    plan = desk.keys("revoke", key["key_id"])
    assert not plan["written"]
    seen = len(consumer.lines("keyring_read"))
    desk.keys("revoke", key["key_id"], "--yes")
    wait_for(lambda: len(consumer.lines("keyring_read")) > seen, what="the consumer knows it")

    stolen.send([population.change(hers).line()])
    other.send([population.change(his).line()])
    wait_for(lambda: len(relay.outcomes()) == 4, what="all outcomes, of what was in the tier too", timeout_seconds=120)
    assert [(letter.reason, letter.producer) for letter in relay.records(topology.DEAD)] == [("revoked", "dc1")] * 2
    assert relay.directory.binds(hers, before.password)
    assert relay.directory.binds(his, population.newest()[his].password)
    alert, _ = consumer.lines("dead")
    assert (alert["reason"], alert["producer"], alert["level"]) == ("revoked", "dc1", "warning")
    assert "new one" in alert["repair"]
    assert consumer.metric("passrelay_events_total", outcome="dead", reason="revoked") == 2

    # docs/runbooks/stolen-producer-key.md, and the revoked document went to every host, as `keys revoke` says
    controller.keys("enroll", public_path(relay.enrolment.consumer_keys, key["key_id"]), "--yes")
    relay.directory.add_user(late)
    new = _key_id(controller.keys("rotate", "signing"))
    document = public_path(relay.enrolment.producer_keys("dc1"), new)
    desk.keys("enroll", document, "--yes")
    controller.keys("rotate", "signing", "--activate", "--yes")
    relay.passrelay("producer", "republish", "--since", "72h", "--config", stolen.config)
    for name in (hers, late):
        newest = population.newest()[name].password
        wait_for(lambda n=name, p=newest: relay.directory.binds(n, p), what="the newest password")  # type: ignore[misc]
    assert population.faults() == []


def test_a_lost_private_key_is_put_back_and_what_waited_is_applied(relay: Relay) -> None:
    """docs/runbooks/lost-consumer-key.md: nothing dies meanwhile, for an offline copy exists."""
    relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 3, seed=13)
    producer, consumer = relay.line_producer("dc1"), relay.consumer("consumer")
    held = private_path(relay.enrolment.consumer_keys, relay.enrolment.recipient.key_id)
    copy = relay.folder / "offline.key"
    held.rename(copy)
    for service in (producer, consumer):
        service.start()
    producer.send([made.line() for made in population.changes(3)])
    wait_for(lambda: len(consumer.lines("retry")) == 3, what="the events wait")
    assert {line["reason"] for line in consumer.lines("retry")} == {"unknown_key"}
    copy.rename(held)
    wait_for(lambda: len(relay.outcomes()) == 3, what="the outcomes", timeout_seconds=90)
    assert population.faults() == []
    assert relay.records(topology.DEAD) == []


def test_a_lost_broker_is_filled_again_from_the_spools(relay: Relay) -> None:
    """docs/runbooks/lost-broker.md; everything in queues and streams is gone, what is in the spools is not."""
    relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 6, seed=14)
    producer, consumer = relay.line_producer("dc1"), relay.consumer("consumer")
    for service in (producer, consumer):
        service.start()
    late = population.change(next(iter(population.history)))
    _wait_in_a_tier(relay, producer, consumer, late)
    consumer.stop()
    producer.send([made.line() for made in population.changes(10)])
    wait_for(lambda: producer.metric("passrelay_spool_events", state="queued") == 0, what="all is published")
    relay.broker.purge_all()
    relay.passrelay("topology", "apply", "--config", relay.ops_config())
    relay.directory.add_user(late.sam)
    consumer.start()
    relay.passrelay("producer", "republish", "--since", "72h", "--config", producer.config)
    wait_for(lambda: len(relay.outcomes()) == 11, what="every outcome", timeout_seconds=120)
    assert population.faults() == []
