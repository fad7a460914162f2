"""The capture loop: one commit a page, patience with disks, keys and controllers, nothing dropped, nothing told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from tenacity import wait_none

from passrelay_producer import capture as capture_module
from passrelay_producer.capture import Capture, seal_page
from passrelay_producer.filters import Rule
from passrelay_producer.identity import Identity
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.sources import About, AccountState, Excluded, Memory, Page, Pending, PendingReason, Result
from passrelay_producer.spool import Spool, SpoolFullError
from passrelay_schemas import keys
from passrelay_schemas.envelope import SealedEvent
from passrelay_schemas.errors import ConfigurationError, EmptyPasswordError, KeyFileError, UnavailableError
from passrelay_schemas.event import PasswordChanged, decode
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus
from passrelay_schemas.logs import Log
from passrelay_schemas.source_settings import SpoolSettings
from tests.lab.enrolment import Enrolment, change
from tests.lab.folder import CANARY, canary_password, find_canary


class ListedSource:
    """Gives what it was made with: pages, and errors that it raises."""

    def __init__(self, *script: Page | Exception, on_committed: Callable[[], None] = lambda: None) -> None:
        self.script = list(script)
        self.told: list[tuple[Page, Sequence[Result]]] = []
        self.on_committed = on_committed
        self.trouble = ""
        self.outside: dict[PendingReason, int] = {}

    def initialise(self, memory: Memory, *, everything: bool) -> Page:
        return Page(cursor={"at": "0"})

    def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            yield step

    def recapture(self, memory: Memory, sam_account_name: str | None) -> Iterator[Page]:
        return self.pages(memory, threading.Event())

    def about(self) -> About:
        return About("stdin")

    def fault(self) -> str:
        return self.trouble

    def waiting(self) -> Mapping[PendingReason, int]:
        return self.outside

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        self.told.append((page, results))
        self.on_committed()


class Rig:
    def __init__(self, folder: Path) -> None:
        self.enrolment = Enrolment(folder)
        self.enrolment.enrol("dc1")
        self.identity = Identity(self.enrolment.producer_keys("dc1"), log=Log("test"))
        self.spool = Spool(SpoolSettings(path=folder / "spool" / "spool.sqlite"))
        self.metrics = ProducerMetrics(self.spool)
        self.stop = threading.Event()

    def capture(self, source: ListedSource) -> Capture:
        return Capture(source, self.spool, self.identity, metrics=self.metrics, stop=self.stop, log=Log("capture"))

    def opened(self) -> list[PasswordChanged]:
        keyring = Keyring(self.enrolment.consumer_keys)
        events = []
        for queued in self.spool.queued(0, 1000):
            opener = keyring.opener(queued.event.header.recipient_key_id)
            events.append(decode(opener.open(queued.event.sealed[0], info=queued.event.protected)))
        return events

    def count(self, outcome: str, reason: str = "") -> float:
        labels = {"stage": "capture", "outcome": outcome, "reason": reason}
        return self.metrics.registry.get_sample_value("passrelay_events_total", labels) or 0.0

    def gauge(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig")
    yield made
    made.spool.close()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "wait_random_exponential", lambda **_: wait_none())


def event(guid: UUID | None = None, kvno: int = 1, password: str | None = None, sam: str = "anna") -> PasswordChanged:
    password = canary_password() if password is None else password
    return change(sam, password, guid=guid or uuid4(), kvno=kvno, changed_at=134_000_000_000_000_000)


def state(captured: PasswordChanged) -> AccountState:
    return AccountState(captured.account.guid, captured.kvno, must_change=False)


def actions(log: list[Any]) -> list[str]:
    return [entry["action"] for entry in log]


def test_events_are_spooled_sealed_and_the_source_is_told_their_ids(rig: Rig, log: list[Any]) -> None:
    events = [event(), event(password=canary_password("🔑"))]
    page = Page(events=events, tags=[1, 2], cursor={"at": "1"})
    source = ListedSource(page)
    rig.capture(source).run()
    assert rig.opened() == events
    assert rig.spool.cursor() == {"at": "1"}
    ((told, results),) = source.told
    assert told is page
    assert list(results) == [queued.event.header.event_id for queued in rig.spool.queued(0, 10)]
    assert {queued.event.header.producer for queued in rig.spool.queued(0, 10)} == {"dc1"}
    assert rig.count("captured") == 2
    assert {"action": "captured", "events": 2}.items() <= log[-1].items()


def test_no_password_and_no_name_lies_on_the_disk_or_in_the_log(rig: Rig, log: list[Any]) -> None:
    rig.capture(ListedSource(Page(events=[event(sam="nameofanna") for _ in range(5)]))).run()
    for needle in (CANARY, "nameofanna"):
        files, _, hits = find_canary([rig.spool.path.parent], needle)
        assert files >= 1
        assert hits == []
        assert needle not in repr(log)


def test_an_event_that_cannot_be_sealed_is_answered(rig: Rig) -> None:
    good, bad = event(), event(password="")
    source = ListedSource(Page(events=[good, bad], tags=[1, 2]))
    rig.capture(source).run()
    assert rig.opened() == [good]
    assert rig.spool.pending() == []
    assert isinstance(source.told[0][1][1], EmptyPasswordError)
    assert rig.count("refused", "empty_password") == 1


def test_an_account_of_a_directory_becomes_pending_instead(rig: Rig, log: list[Any]) -> None:
    good, bad = event(), event(password="x" * 300, sam="nameofanna")
    accounts = [state(good), state(bad)]
    page = Page(events=[good, bad], tags=[0, 1], accounts=accounts, resolved=[bad.account.guid], cursor={"at": "1"})
    rig.capture(ListedSource(page, page, Page(resolved=[bad.account.guid]))).run()
    assert rig.opened() == [good, good]
    assert rig.spool.account(good.account.guid) == accounts[0]
    assert rig.spool.account(bad.account.guid) is None  # or the source would believe that it was captured
    assert actions(log).count("capture_pending") == 1  # reading it again is no news
    (entry,) = [entry for entry in log if entry["action"] == "capture_pending"]
    assert entry["guid"] == str(bad.account.guid)
    assert entry["reason"] == "too_large"
    assert "shorten" in entry["repair"]
    assert "nameofanna" not in repr(log)
    assert actions(log).count("capture_resolved") == 1
    assert rig.spool.pending() == []
    assert rig.count("pending", "too_large") == 2


def test_the_time_that_a_pending_account_waits_is_kept(rig: Rig) -> None:
    bad = event(password="x" * 300)
    page = Page(events=[bad], accounts=[state(bad)], resolved=[bad.account.guid])
    rig.capture(ListedSource(page, page)).run()
    assert rig.spool.pending() == [Pending(bad.account.guid, PendingReason.TOO_LARGE)]
    assert rig.spool._connection.execute("SELECT attempts FROM pending").fetchall() == [(2,)]


def test_sealing_is_pure(rig: Rig) -> None:
    page = Page(events=[event()], tags=[7])
    sealed = seal_page(page, producer="dc1", recipient=rig.enrolment.recipient)
    assert sealed.page is page
    assert list(sealed.results) == [sealed.sealed[0].header.event_id]


class FullSpool(Spool):
    """The real spool on a disk that is full for the first `times` commits."""

    times = 3

    def commit(self, page: Page, sealed: Sequence[SealedEvent]) -> None:
        self.times -= 1
        if self.times >= 0:
            raise SpoolFullError("spool: its disk is full")
        super().commit(page, sealed)


def test_a_full_disk_stops_the_cursor_and_loses_nothing(rig: Rig, log: list[Any], tmp_path: Path) -> None:
    rig.spool.close()
    rig.spool = FullSpool(SpoolSettings(path=tmp_path / "full" / "spool.sqlite"))
    events = [event(), event()]
    source = ListedSource(Page(events=[events[0]], cursor={"at": "1"}), Page(events=[events[1]], cursor={"at": "2"}))
    rig.capture(source).run()
    assert rig.opened() == events
    assert rig.spool.cursor() == {"at": "2"}
    assert len(source.told) == 2
    assert actions(log).count("spool_full") == 1  # once per episode
    assert "max_bytes" in next(entry for entry in log if entry["action"] == "spool_full")["repair"]
    assert "resumed" in actions(log)


def test_stop_ends_the_wait_for_a_full_disk_without_a_commit(rig: Rig, tmp_path: Path) -> None:
    rig.spool.close()
    full = FullSpool(SpoolSettings(path=tmp_path / "full" / "spool.sqlite"))
    full.times = 10**9
    rig.spool = full
    source = ListedSource(Page(events=[event()], cursor={"at": "1"}))
    thread = threading.Thread(target=rig.capture(source).run)
    thread.start()
    while full.times == 10**9:  # until it has met the full disk
        thread.join(0.01)
    rig.stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert source.told == []
    assert rig.spool.cursor() == {}


def test_a_damaged_spool_ends_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(page: Page, sealed: Sequence[SealedEvent]) -> None:
        raise ConfigurationError("spool: damaged")

    monkeypatch.setattr(rig.spool, "commit", damaged)
    with pytest.raises(ConfigurationError, match="damaged"):
        rig.capture(ListedSource(Page(events=[event()]))).run()


def test_a_source_that_is_unavailable_is_asked_again(rig: Rig, log: list[Any]) -> None:
    gone = UnavailableError("the DC does not answer")
    first, second = event(), event()
    rig.capture(ListedSource(gone, gone, Page(events=[first]), gone, Page(events=[second]))).run()
    assert rig.opened() == [first, second]
    assert [entry["why"] for entry in log if entry["action"] == "capture_failed"] == ["the DC does not answer"] * 3


def test_stop_ends_a_source_that_stays_unavailable(rig: Rig) -> None:
    class Gone(ListedSource):
        def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
            raise UnavailableError("the DC does not answer")

    thread = threading.Thread(target=rig.capture(Gone()).run)
    thread.start()
    rig.stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_an_unexpected_error_of_the_source_is_not_swallowed(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError):
        rig.capture(ListedSource(ZeroDivisionError("bug"))).run()


def test_nothing_is_taken_after_stop(rig: Rig) -> None:
    source = ListedSource(Page(events=[event()]), Page(events=[event()]), on_committed=rig.stop.set)
    rig.capture(source).run()
    assert len(source.told) == 1
    assert rig.spool.queued_count() == 1


def test_a_new_recipient_key_is_used_without_a_restart(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    rig.capture(ListedSource(Page(events=[event()]))).run()
    document, _ = keys.generate(keys.KeyUse.RECIPIENT)
    newer = document.model_copy(update={"created_at": document.created_at.replace(year=2099)})
    keys.write_public(rig.enrolment.producer_keys("dc1"), newer)
    rig.capture(ListedSource(Page(events=[event()]))).run()
    used = [queued.event.header.recipient_key_id for queued in rig.spool.queued(0, 10)]
    assert used == [rig.enrolment.recipient.key_id, document.key_id]


def test_a_damaged_key_file_leaves_the_old_keys_in_use_and_is_reported_once(
    rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    (rig.enrolment.producer_keys("dc1") / "torn.pub.json").write_text("{")
    rig.capture(ListedSource(Page(events=[event()]), Page(events=[event()]))).run()
    assert rig.spool.queued_count() == 2
    assert actions(log).count("keyring_fault") == 1


def test_without_a_recipient_key_capture_waits_for_one(
    rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    directory, document = rig.enrolment.producer_keys("dc1"), rig.enrolment.recipient
    keys.write_public(directory, document.model_copy(update={"status": KeyStatus.REVOKED}))
    thread = threading.Thread(target=rig.capture(ListedSource(Page(events=[event()]))).run)
    thread.start()
    while "keyring_fault" not in actions(log):
        thread.join(0.01)
    assert rig.spool.queued_count() == 0
    keys.write_public(directory, document)
    thread.join(30)
    assert rig.spool.queued_count() == 1


def test_take_raises_instead_of_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Page(events=[event(), event()]), Page(events=[event()], excluded=[Excluded(Rule.DENIED)])]
    assert rig.capture(ListedSource()).take(pages) == (3, 1)
    assert rig.count("excluded", "denied") == 1

    def revoked() -> None:
        raise KeyFileError("no recipient")

    monkeypatch.setattr(rig.identity, "recipient", revoked)
    with pytest.raises(KeyFileError):
        rig.capture(ListedSource()).take([Page(events=[event()])])


def test_metrics_read_the_spool(rig: Rig) -> None:
    assert rig.gauge("passrelay_last_capture_timestamp_seconds") is None
    rig.capture(ListedSource(Page(events=[event()], pending=[Pending(uuid4(), PendingReason.KEY_MISSING)]))).run()
    key_id = rig.enrolment.recipient.key_id
    assert rig.gauge("passrelay_spool_events", state="queued", recipient_key_id=key_id) == 1
    assert rig.gauge("passrelay_capture_pending", reason="key_missing") == 1
    assert rig.gauge("passrelay_capture_pending", reason="unreadable") == 0
    for name in ("oldest_seconds", "bytes", "free_bytes"):
        assert rig.gauge(f"passrelay_spool_{name}") is not None
    first = rig.gauge("passrelay_last_capture_timestamp_seconds")
    assert first is not None
    again = ProducerMetrics(rig.spool).registry.get_sample_value("passrelay_last_capture_timestamp_seconds")
    assert again == pytest.approx(first, abs=60)
    assert rig.gauge("passrelay_stage_seconds_count", stage="spool") == 1
