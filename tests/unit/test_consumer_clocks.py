"""Clocks that differ: IdM's own time counts at its entries, and a clock that is off is told once, with its repair."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from passrelay_consumer.brake import Brake
from passrelay_consumer.decide import IDM_NEWER
from passrelay_consumer.directory import Directory, ProbeResult, clock_offset
from passrelay_consumer.disposition import Final, Later
from passrelay_consumer.ledger import Ledger
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.outcome import Outcome
from passrelay_consumer.producer_clocks import BEHIND_SECONDS, PERIOD_SECONDS, ProducerClocks
from passrelay_consumer.servers import Servers
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters
from passrelay_schemas.topology import TIERS
from passrelay_schemas.verdict import Verdict
from tests.unit.builders import EVENT_ID, PRODUCER, Party

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
URL = "ldaps://idm1.example"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


# -- IdM's clock, seen through whole seconds --------------------------------------------------------------------------


@given(
    ahead=st.timedeltas(seconds(-(10**7)), seconds(10**7)),
    took=st.timedeltas(seconds(0), seconds(20)),
    share=st.floats(0, 1),
    start=st.timedeltas(seconds(0), seconds(2)),
)
def test_an_offset_is_never_ahead_of_the_server_nor_more_than_its_resolution_off(
    ahead: timedelta, took: timedelta, share: float, start: timedelta
) -> None:
    before = NOW + start
    stamp = (before + took * share + ahead).replace(microsecond=0)
    found = clock_offset(stamp, before=before, after=before + took)
    assert abs(found - ahead) <= took + SECOND
    assert found == timedelta() or found <= ahead


@pytest.mark.parametrize("ahead", [-0.4, 0, 0.4])
def test_clocks_that_agree_within_the_resolution_are_taken_as_equal(ahead: float) -> None:
    """So that times of a well kept host stay exact to the millisecond."""
    stamp = (NOW + seconds(0.5 + ahead)).replace(microsecond=0)
    assert clock_offset(stamp, before=NOW + seconds(0.5), after=NOW + seconds(0.6)) == timedelta()


# -- what the consumer makes of it ------------------------------------------------------------------------------------


class Lab:
    """Servers whose probes find what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = ProbeResult(None)
        monkeypatch.setattr(Directory, "probe", lambda *_: self.found)
        idm = IdmSettings(servers=(URL,), ca_file=Path("ca"), bind_dn="uid=passrelay", password_file=Path("password"))
        self.metrics = ConsumerMetrics()
        self.servers = Servers(idm, log=Log("test"), on_probe=self.metrics.probed)

    def probe(self, ahead: float | None, check: str | None = None) -> list[dict[str, Any]]:
        """One probe, and what the log says of clocks."""
        self.found = ProbeResult(check, clock_offset=None if ahead is None else seconds(ahead))
        with capture_logs() as lines:
            self.servers.suspect(URL, since=float("inf"))
        return [dict(line) for line in lines if line["action"] == "clock_off"]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


@pytest.mark.parametrize("ahead", [-600, 600, 31_536_000])
def test_the_time_of_an_entry_is_its_servers_own(lab: Lab, ahead: float) -> None:
    assert abs(lab.servers.now(URL) - utc_now()) < seconds(60)  # not probed yet
    (line,) = lab.probe(ahead)
    assert abs(lab.servers.now(URL) - utc_now() - seconds(ahead)) < seconds(60)
    assert (line["log_level"], line["server"], line["ahead_seconds"]) == ("warning", URL, ahead)
    assert "chrony" in line["repair"]
    assert lab.metrics.registry.get_sample_value("passrelay_clock_offset_seconds", {"server": URL}) == ahead


def test_a_clock_that_is_off_is_told_once_until_it_was_right_again(lab: Lab) -> None:
    assert len(lab.probe(600)) == 1
    assert lab.probe(601) == []
    assert lab.probe(2) == []
    assert lab.probe(-60) == []
    assert len(lab.probe(-61)) == 1


def test_a_probe_that_did_not_get_to_the_clock_changes_nothing(lab: Lab) -> None:
    lab.probe(5)
    assert lab.probe(None, "connect") == []
    assert lab.metrics.registry.get_sample_value("passrelay_clock_offset_seconds", {"server": URL}) == 5
    assert abs(lab.servers.now(URL) - utc_now()) < seconds(60)


# -- producers' clocks ------------------------------------------------------------------------------------------------


class Watch:
    """A ProducerClocks whose hours pass when the test says."""

    def __init__(self) -> None:
        self.hours = 0.0
        self.metrics = ConsumerMetrics()
        self.clocks = ProducerClocks(self.metrics, Log("test"), monotonic=lambda: self.hours * 3600)

    def signed(self, *ahead: float, producer: str = PRODUCER) -> list[dict[str, Any]]:
        """Events that were signed so many seconds in the future, and the warnings."""
        with capture_logs() as lines:
            for number in ahead:
                self.clocks.signed(producer, NOW + seconds(number), NOW)
        return [dict(line) for line in lines]

    def shown(self) -> float | None:
        return self.metrics.registry.get_sample_value("passrelay_clock_ahead_seconds", {"producer": PRODUCER})


def test_a_signature_from_the_future_is_told_at_once_and_once_an_hour_for_each_producer() -> None:
    watch = Watch()
    assert watch.signed(-2, 0, 299) == []
    (line,) = watch.signed(301, 3600, 3600)
    assert (line["log_level"], line["action"], line["producer"]) == ("warning", "clock_off", PRODUCER)
    assert (line["ahead_seconds"], "clock" in line["repair"]) == (301, True)
    assert watch.shown() == 3600
    assert len(watch.signed(3600, producer="dc2")) == 1
    watch.hours += 1
    assert len(watch.signed(3600, 3600)) == 1


def test_after_the_clock_is_right_again_the_next_event_shows_it() -> None:
    watch = Watch()
    watch.signed(3600, -1)
    assert watch.shown() == -1
    assert watch.signed(-5) == []
    assert watch.shown() == -1
    assert watch.signed(3600) == []  # told within this hour already
    assert watch.shown() == 3600


def test_without_an_event_for_an_hour_nothing_is_shown() -> None:
    watch = Watch()
    watch.signed(3600)
    watch.clocks.forget()
    assert watch.shown() == 3600
    watch.hours += PERIOD_SECONDS / 3600
    watch.clocks.forget()
    watch.clocks.forget()
    assert watch.shown() is None
    assert watch.signed(-1) == []
    watch.clocks.forget()
    assert watch.shown() == -1


def test_a_clock_behind_is_told_when_no_event_of_an_hour_came_sooner() -> None:
    watch = Watch()
    assert watch.signed(-31_536_000, -31_536_001) == []
    assert watch.shown() == -31_536_000
    watch.hours += 1
    (line,) = watch.signed(-31_536_000)
    assert (line["log_level"], line["ahead_seconds"]) == ("warning", -31_536_000)
    assert "queue" in line["why"]


def test_a_backlog_after_an_outage_accuses_nobody() -> None:
    watch = Watch()
    watch.signed(-86_400, -80_000, -BEHIND_SECONDS, -1)
    watch.hours += 1
    assert watch.signed(-1) == []


# -- what the ledger makes of an outcome ------------------------------------------------------------------------------


class Book:
    """A ledger, and what it says of one outcome."""

    def __init__(self) -> None:
        self.metrics = ConsumerMetrics()
        self.ledger = Ledger(self.metrics, Brake(20), Log("test"))

    def enter(self, outcome: Outcome, counters: Counters | None = None, *, later: bool = False) -> list[dict[str, Any]]:
        with capture_logs() as lines:
            self.ledger.enter(Later(outcome, TIERS[0], 1) if later else Final(outcome), counters or Counters())
        return [dict(line) for line in lines if line["log_level"] != "debug"]


def outcome(verdict: Verdict = Verdict.APPLIED, reason: str | None = None, **more: Any) -> Outcome:
    header = Envelope.parse(Party().envelope()).header
    known = {"authentic": True, "signed_at": NOW + seconds(900), "decided_at": NOW, **more}
    return Outcome(verdict, reason, header=header, account="alice", guid=UUID(int=1), **known)


def test_a_change_that_loses_to_idms_own_password_is_told_with_its_repair_and_without_a_name() -> None:
    book = Book()
    (line,) = book.enter(outcome(Verdict.SUPERSEDED, IDM_NEWER, signed_at=NOW))
    assert (line["log_level"], line["action"]) == ("warning", "idm_newer")
    assert (line["event_id"], line["producer"]) == (str(EVENT_ID), PRODUCER)
    assert "domain controller's clock" in line["repair"]
    assert "alice" not in str(line)
    labels = {"stage": "consume", "outcome": "superseded", "reason": "idm_newer"}
    assert book.metrics.registry.get_sample_value("passrelay_events_total", labels) == 1


def test_a_change_that_loses_to_a_newer_one_is_no_news() -> None:
    assert Book().enter(outcome(Verdict.SUPERSEDED, "newer", signed_at=NOW)) == []


@pytest.mark.parametrize(
    ("counters", "told"),
    [
        (Counters(), True),
        (Counters(attempt=3), False),  # an old signature says nothing of the clock
        (Counters(replays=1), False),
        (Counters(deliveries=1), False),
        (Counters(settle=2), False),
    ],
)
def test_only_what_comes_straight_from_its_producer_tells_of_its_clock(counters: Counters, told: bool) -> None:
    assert [line["action"] for line in Book().enter(outcome(), counters)] == ["clock_off"] * told


@pytest.mark.parametrize("change", [{"authentic": False}, {"signed_at": None}, {"decided_at": None}])
def test_a_strangers_time_and_an_unknown_one_count_for_nothing(change: dict[str, Any]) -> None:
    assert Book().enter(outcome(**change)) == []


def test_an_event_that_has_to_wait_tells_of_its_producers_clock_too() -> None:
    lines = Book().enter(outcome(Verdict.RETRY, "user_missing"), later=True)
    assert [line["action"] for line in lines] == ["clock_off", "retry"]
