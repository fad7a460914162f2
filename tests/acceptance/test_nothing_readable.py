"""Nothing readable: every byte left behind or sent to the broker, searched for passwords and names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from passrelay_schemas.verdict import Verdict
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.folder import LabFolder, find_canary
from tests.lab.load import Population
from tests.lab.network import Reservations
from tests.lab.process import Process, wait_for
from tests.lab.relay import Relay

pytestmark = pytest.mark.acceptance


@contextmanager
def _capture(port: int, folder: Path) -> Iterator[Path]:
    """Everything that goes over the broker's clear-text port."""
    packets = folder / "broker.pcap"
    command = ["tcpdump", "-i", "lo", "-s", "0", "-U", "-Z", "root", "-w", str(packets), "tcp", "port", str(port)]
    process = Process("tcpdump", command, log=folder / "tcpdump.log")
    process.start()
    process.wait_until(lambda: "listening on" in process.tail(), what="listening")
    try:
        yield packets
    finally:
        process.stop()


@pytest.fixture
def own_broker(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Broker]:
    """Stopped by the test with an event in a tier.

    After a new start that event may be on its way to the queue already while all queues are purged: not for others.
    """
    broker = Broker(lab_folder.path / "unreadable", reservations, ca)
    broker.start()
    yield broker
    broker.stop()


def test_no_password_and_no_name_in_spool_broker_logs_metrics_and_packets(
    tmp_path: Path, own_broker: Broker, shared_directory: Directory
) -> None:
    relay = Relay(tmp_path / "relay", own_broker, shared_directory, tls=False, log_level="debug")
    relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(shared_directory, 10, seed=5)
    with _capture(own_broker.ports.plain, tmp_path) as packets:
        producer = relay.line_producer("dc1")
        consumers = [relay.consumer(f"consumer{number}") for number in range(2)]
        for service in (producer, *consumers):
            service.start()
        lines = [made.line() for made in population.changes(60)]
        victim = lines[0]
        odd = [
            {**victim, "kvno": 900, "password": "{SSHA}Kanarie7-looks-like-a-hash-AAAAAAAAAAAAAAAAAAAAAAAA"},
            {**victim, "kvno": 901, "account": {**victim["account"], "sam_account_name": "odd-missing"}},
            {**victim, "kvno": -1, "password": "Kanarie7-bad-line"},
            {**victim, "password": "Kanarie7-unknown-field", "Kanarie7-field": 1},
            {**victim, "password": ["Kanarie7-list"]},
        ]
        answers = producer.send(lines + odd)
        events = [answer["event_id"] for answer in answers if "event_id" in answer]
        assert len(events) == 62
        assert sum("error" in answer for answer in answers) == 3
        wait_for(lambda: len(relay.outcomes()) >= 61, what="61 outcomes", timeout_seconds=120)
        relay.publish([b"not an envelope, but Kanarie is no password"])
        wait_for(lambda: len(relay.outcomes()) >= 62, what="the stranger's outcome", timeout_seconds=60)
        pages = "\n".join(service.metrics() for service in (producer, *consumers))
        assert "passrelay_events_total" in pages
        shown = relay.passrelay("dead", "list", "--config", relay.ops_config())
        assert producer.finish() == 0
    (tmp_path / "metrics.txt").write_text(pages)
    (tmp_path / "answers.txt").write_text(repr(answers))
    (tmp_path / "dead.txt").write_text(shown)
    relay.close()
    outcomes = relay.outcomes().values()
    assert sum(outcome.verdict is Verdict.DEAD for outcome in outcomes) == 2
    own_broker.stop()
    left = [tmp_path, *own_broker.data_paths]
    files, size, hits = find_canary(left)
    assert hits == []
    assert files > 20
    assert packets.stat().st_size > 60 * 4000
    # Names are as secret as passwords to the broker, and no log needs them. The operator's own list may show them.
    (tmp_path / "dead.txt").unlink()
    for name in population.history:
        assert find_canary(left, name)[2] == []
    _, directory_size, directory_hits = find_canary(shared_directory.data_paths, "Kanarie7-")
    assert directory_size > 100_000
    assert directory_hits == []
    assert size > 1_000_000


def test_the_search_itself_finds_what_it_should(tmp_path: Path) -> None:
    plain = b"Kanarie7-x"
    wide = plain.decode().encode("utf-16-le")
    for number, form in enumerate((plain, wide, plain.hex().encode(), wide.hex().upper().encode())):
        (tmp_path / f"{number}").write_bytes(b"before" + form + b"after")
    assert len(find_canary([tmp_path])[2]) == 4
