"""What is left of past passwords in the memory of idle processes: docs/security.md has the count.

The processes get the environment that the shipped systemd units give them.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from tests.hostile.memory import found_in
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.folder import canary_password
from tests.lab.load import Population
from tests.lab.process import wait_for
from tests.lab.relay import Relay, Service

pytestmark = pytest.mark.acceptance

EVENTS = 300
MOST = 3
"""Passwords of past events that may be left, of all: measured were none, in every run."""
_UNITS = Path(__file__).resolve().parents[2] / "ops" / "systemd"
_OWN = "PASSRELAY_"


def _environment(unit: str) -> dict[str, str]:
    """What the shipped unit sets beside passrelay's own settings."""
    lines = (_UNITS / f"passrelay-{unit}.service").read_text().splitlines()
    pairs = [line.removeprefix("Environment=") for line in lines if line.startswith("Environment=")]
    return dict(pair.split("=", 1) for pair in pairs if not pair.startswith(_OWN))


def _start(service: Service, unit: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _environment(unit).items():
            patch.setenv(name, value)
        service.start()


def test_the_search_finds_a_password_in_either_form_and_no_other() -> None:
    here, wide, gone = (canary_password() for _ in range(3))
    page = mmap.mmap(-1, 4096)
    page.write(b"before" + here.encode() + b"between" + wide.encode("utf-16-le") + b"behind")
    found = found_in(os.getpid(), {here, wide, gone})
    assert found[here] > 0
    assert found[wide] > 0
    page.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read another process's memory")
def test_an_idle_producer_and_consumer_hold_no_password_of_the_past(
    tmp_path: Path, shared_broker: Broker, shared_directory: Directory
) -> None:
    relay = Relay(tmp_path / "relay", shared_broker, shared_directory)
    relay.enrolment.enrol("dc1")
    relay.prepare()
    shared_broker.purge_all()
    producer, consumer = relay.line_producer("dc1"), relay.consumer("consumer")
    _start(producer, "producer")
    _start(consumer, "consumer")
    try:
        lines = [made.line() for made in Population(shared_directory, 20, seed=3).changes(EVENTS)]
        passwords = {str(line["password"]) for line in lines}
        assert len(passwords) == EVENTS
        producer.send(lines)
        wait_for(lambda: len(relay.outcomes()) >= EVENTS, what="every outcome", timeout_seconds=180)
        left = {service.name: len(found_in(service.process.pid, passwords)) for service in (producer, consumer)}
        assert max(left.values()) <= MOST, left
        for service in (producer, consumer):
            # What is kept is seen; and neither of them would leave an image of it.
            assert found_in(service.process.pid, {str(service.config)})
            limits = Path(f"/proc/{service.process.pid}/limits").read_text().splitlines()
            assert next(line.split()[4:6] for line in limits if line.startswith("Max core file size")) == ["0", "0"]
    finally:
        relay.close()
        shared_broker.purge_all()
