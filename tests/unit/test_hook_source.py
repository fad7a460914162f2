"""The hook's folder as a source: what is taken, what waits, what is moved away, and that nothing is taken twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid5

import pytest
import structlog

from passrelay_producer.sources import AccountState, Page, hook, hook_reader
from passrelay_producer.sources.hook import HookSource
from passrelay_producer.sources.hook_folder import RecordName
from passrelay_producer.sources.samba_account import GroupsError, Reading, UnreadableError
from passrelay_producer.sources.samba_scope import SambaScope
from passrelay_schemas import filetime
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.hook_record import HookRecord
from passrelay_schemas.keys import KeyUse, generate
from passrelay_schemas.logs import Log
from passrelay_schemas.source_settings import HookSourceSettings
from tests.unit.builders import DOMAIN, DOMAIN_SID, PRODUCER
from tests.unit.hook_records import RID, hook_record, name, put
from tests.unit.test_samba_change import FINE, GUID, HERE, READING

KEY, _ = generate(KeyUse.HOOK)
CALL = FINE + 1000


class Controller:
    """AD, as far as the source asks it."""

    domain, domain_sid, controller, invocation_id = DOMAIN, DOMAIN_SID, "dc1.lab.example", HERE

    def __init__(self) -> None:
        self.accounts: dict[int, Reading | Exception] = {RID: READING}
        self.tokens: dict[UUID, frozenset[str] | Exception] = {}
        self.asked: list[UUID] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_sid(self, sid: str) -> Reading | None:
        rid = int(sid.removeprefix(f"{DOMAIN_SID}-"))
        found = self.accounts.get(rid)
        if isinstance(found, Exception):
            raise found
        return found

    def token_groups(self, guid: UUID) -> frozenset[str]:
        self.asked.append(guid)
        found = self.tokens.get(guid, frozenset({"S-1-5-32-545"}))
        if isinstance(found, Exception):
            raise found
        return found

    def highest_usn(self) -> int:
        return 1

    def add(self, rid: int, **fields: Any) -> None:
        guid = uuid5(GUID, str(rid))
        fields.setdefault("sam_account_name", f"user{rid}")
        self.accounts[rid] = replace(READING, guid=guid, sid=f"{DOMAIN_SID}-{rid}", **fields)


class Spool:
    """What is asked of the spool, and a commit that may be followed by a crash."""

    def __init__(self) -> None:
        self.cursors: dict[str, str] = {}
        self.accounts: dict[UUID, AccountState] = {}
        self.events: list[Any] = []

    def cursor(self) -> dict[str, str]:
        return self.cursors

    def account(self, guid: UUID) -> AccountState | None:
        return self.accounts.get(guid)

    def commit(self, page: Page) -> None:
        self.cursors = dict(page.cursor) or self.cursors
        self.accounts |= {state.guid: state for state in page.accounts}
        self.events += page.events


class Rig:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.controller, self.spool = folder, Controller(), Spool()
        self.stop = threading.Event()
        monkeypatch.setattr(hook, "HookDirectory", lambda settings: self.controller)
        monkeypatch.setattr(SambaScope, "check", lambda _: None)
        self.settings = HookSourceSettings(
            folder=folder,
            controller="ldaps://dc1.lab.example",
            ca_file=folder / "ca",
            bind_user="lookup",
            password_file=folder / "password",
            poll_ms=5,
        )

    def source(self) -> HookSource:
        return HookSource(self.settings, PRODUCER, Log("test"))

    def drain(self, source: HookSource | None = None, *, crash: bool = False) -> list[Page]:
        """Take pages until nothing is left to take; with `crash`, end after the first commit."""
        source = source or self.source()
        found: list[Page] = []
        idle = threading.Event()
        for page in source.pages(self.spool, _Once(idle)):  # type: ignore[arg-type]  # what is asked of both
            self.spool.commit(page)
            found.append(page)
            if crash:
                break
            source.committed(page, [new_event_id() for _ in page.events])
        return found

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def moved(self) -> list[str]:
        folder = self.folder / "quarantine"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


class _Once:
    """An Event that is set by the first wait: the source has nothing more to do."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float) -> bool:
        self._event.set()
        return True


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    folder = tmp_path / "records"
    (folder / "slots").mkdir(parents=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield Rig(folder, monkeypatch)
    structlog.reset_defaults()


def kvnos(events: Sequence[Any]) -> list[int]:
    return [event.kvno for event in events]


def test_a_record_goes_with_its_account_and_its_file_is_deleted_after_the_commit(rig: Rig) -> None:
    raw = hook_record(KEY)
    put(rig.folder, raw, filetime=CALL)
    (page,) = rig.drain()
    (event,) = page.events
    assert (event.domain, event.account.guid, event.account.sid) == (DOMAIN, GUID, f"{DOMAIN_SID}-{RID}")
    assert (event.kvno, event.changed_at, event.origin, event.password) == (7, FINE, HERE, None)
    assert HookRecord.from_text(event.record or "").raw == raw
    assert rig.files() == []


def test_records_are_taken_in_their_order_and_the_newest_gets_ads_version(rig: Rig) -> None:
    rig.controller.add(2000)
    for number in (2, 0, 1):
        put(rig.folder, hook_record(KEY), filetime=CALL + number, sequence=number)
    put(rig.folder, hook_record(KEY, rid=2000), filetime=CALL + 1, rid=2000, sequence=9)
    rig.drain()
    assert kvnos([event for event in rig.spool.events if event.account.guid == GUID]) == [5, 6, 7]
    assert kvnos([event for event in rig.spool.events if event.account.guid != GUID]) == [7]


def test_a_crash_between_commit_and_deletion_sends_nothing_twice(rig: Rig) -> None:
    put(rig.folder, hook_record(KEY), filetime=CALL)
    rig.drain(crash=True)
    assert rig.files() == [name(CALL)]
    put(rig.folder, hook_record(KEY, rid=RID), filetime=CALL + 1, sequence=2)
    rig.drain()
    assert len(rig.spool.events) == 2
    assert rig.files() == []


def test_a_crash_before_the_commit_loses_nothing(rig: Rig) -> None:
    put(rig.folder, hook_record(KEY), filetime=CALL)
    next(rig.source().pages(rig.spool, rig.stop))  # type: ignore[arg-type]
    rig.drain()
    assert len(rig.spool.events) == 1


def test_more_than_a_page_is_taken_page_by_page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "PAGE_RECORDS", 4)
    for number in range(10):
        rig.controller.add(2000 + number)
        put(rig.folder, hook_record(KEY, rid=2000 + number), filetime=CALL + number, rid=2000 + number)
    assert [len(page.events) for page in rig.drain()] == [4, 4, 2]
    assert rig.files() == []


@pytest.mark.parametrize(
    ("file", "raw", "reason"),
    [
        (name(CALL), hook_record(KEY)[:-1], "torn"),
        (name(CALL), b"", "torn"),
        (name(CALL), hook_record(KEY) + b"x", "torn"),
        (name(CALL), hook_record(KEY, sid="S-1-5-21-7-7-7"), "foreign"),
        (name(CALL), hook_record(KEY, producer="dc2"), "foreign"),
        (name(CALL), hook_record(KEY, schema=b"passrelay.hook/9"), "foreign"),
        ("notes.txt", b"", "foreign"),
        (name(CALL) + ".bak", hook_record(KEY), "foreign"),
        (name(CALL, suffix="new"), hook_record(KEY)[:400], "torn"),
        (name(CALL, rid=4711), hook_record(KEY, rid=4711), "no_account"),
    ],
)
def test_what_is_none_of_ours_is_moved_away_counted_and_holds_nobody_up(
    rig: Rig, file: str, raw: bytes, reason: str
) -> None:
    (rig.folder / file).write_bytes(raw)
    put(rig.folder, hook_record(KEY), filetime=CALL + 5, sequence=5)
    pages = rig.drain()
    assert [why for page in pages for why in page.quarantined] == [reason]
    assert (rig.moved(), rig.files()) == ([file], [])
    assert kvnos(rig.spool.events) == [7]
    (rig.folder / file).write_bytes(raw)
    rig.drain()
    assert rig.moved() == [file, f"{file}.1"]  # never one over another


def test_a_link_is_never_followed(rig: Rig, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(hook_record(KEY))
    (rig.folder / name(CALL)).symlink_to(target)
    rig.drain()
    assert (rig.spool.events, rig.moved(), target.exists()) == ([], [name(CALL)], True)


def test_a_new_file_is_left_alone_for_a_minute_and_then_taken_if_it_is_whole(rig: Rig) -> None:
    now = filetime.now()
    young, old = now - 30 * UNITS_PER_SECOND, now - 90 * UNITS_PER_SECOND
    put(rig.folder, hook_record(KEY)[:100], filetime=young, suffix="new")
    put(rig.folder, hook_record(KEY), filetime=old, suffix="new")
    rig.drain()
    assert len(rig.spool.events) == 1
    assert rig.files() == [name(young, suffix="new")]
    assert rig.moved() == []


def test_who_is_denied_is_deleted_and_counted(rig: Rig) -> None:
    rig.controller.add(2000, admin_count=1)
    put(rig.folder, hook_record(KEY, rid=2000), filetime=CALL, rid=2000)
    (page,) = rig.drain()
    assert [excluded.rule for excluded in page.excluded] == ["denied"]
    assert (page.events, rig.files(), rig.moved(), rig.controller.asked) == ([], [], [], [])


def test_who_is_in_an_administrative_group_is_denied_and_whoever_leaves_it_is_carried_again(rig: Rig) -> None:
    rig.controller.tokens[GUID] = frozenset({"S-1-5-32-545", "S-1-5-32-544"})
    put(rig.folder, hook_record(KEY), filetime=CALL)
    put(rig.folder, hook_record(KEY), filetime=CALL + 1)
    (page,) = rig.drain()
    assert [excluded.rule for excluded in page.excluded] == ["denied", "denied"]
    assert (page.events, rig.files(), rig.controller.asked) == ([], [], [GUID])  # one question for both
    del rig.controller.tokens[GUID]
    put(rig.folder, hook_record(KEY), filetime=CALL + 2)
    rig.drain()
    assert len(rig.spool.events) == 1


def test_whose_groups_nobody_can_tell_waits_and_says_why(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Log, "error", lambda _, action, **fields: told.append(f"{action} {fields['why']}"))
    rig.controller.tokens[GUID] = GroupsError("it shows none")
    rig.controller.add(2000)
    put(rig.folder, hook_record(KEY), filetime=CALL)
    put(rig.folder, hook_record(KEY, rid=2000), filetime=CALL, rid=2000)
    rig.drain()
    assert [event.account.sam_account_name for event in rig.spool.events] == ["user2000"]
    assert rig.files() == [name(CALL)]
    (line,) = told
    assert "record_waits AD does not say whether the account is an administrator's (tokenGroups: it shows none)" in line


@pytest.mark.parametrize(
    "trouble",
    [
        UnreadableError("ValueError"),
        replace(READING, metadata=b"", key_version=0),
        replace(READING, metadata=b"damaged"),
        replace(READING, sam_account_name="a\x07b"),
        replace(READING, user_principal_name="漢" * 1024),
    ],
)
def test_an_account_that_cannot_be_read_waits_with_all_its_records_and_holds_nobody_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, trouble: Reading | Exception
) -> None:
    rig.controller.accounts[RID] = trouble
    rig.controller.add(2000)
    put(rig.folder, hook_record(KEY), filetime=CALL)
    put(rig.folder, hook_record(KEY, rid=2000), filetime=CALL, rid=2000)
    source = rig.source()
    rig.drain(source)
    put(rig.folder, hook_record(KEY), filetime=CALL + 1, sequence=2)
    assert [event.account.sam_account_name for event in rig.spool.events] == ["user2000"]
    assert len(rig.files()) == 1 + 1
    rig.controller.accounts[RID] = READING
    rig.drain()  # as after a minute
    assert kvnos(rig.spool.events[1:]) == [6, 7]
    assert rig.files() == []


def test_records_of_one_account_never_overtake_one_that_waits(rig: Rig) -> None:
    """It can be read again before the page is through."""
    answers: list[Reading | Exception] = [UnreadableError("ValueError"), READING]
    rig.controller.read_sid = lambda sid: _given(answers)  # type: ignore[method-assign]
    put(rig.folder, hook_record(KEY), filetime=CALL)
    put(rig.folder, hook_record(KEY), filetime=CALL + 1, sequence=2)
    rig.drain()
    assert (rig.spool.events, len(rig.files())) == ([], 2)
    rig.drain()
    assert kvnos(rig.spool.events) == [6, 7]


def _given(answers: list[Reading | Exception]) -> Reading:
    found = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(found, Exception):
        raise found
    return found


def test_a_waiting_account_is_not_asked_for_again_before_its_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    rig.controller.accounts[RID] = UnreadableError("ValueError")
    put(rig.folder, hook_record(KEY), filetime=CALL)
    reader = hook_reader.HookReader(
        rig.controller,  # type: ignore[arg-type]
        rig.spool,  # type: ignore[arg-type]
        SambaScope(FilterSettings(), rig.controller),  # type: ignore[arg-type]
        Log("test"),
    )
    parsed = RecordName.parse(name(CALL))
    assert parsed is not None
    record = HookRecord.parse(hook_record(KEY))
    assert reader.read([(parsed, record)]).names == []
    assert reader.waits(RID, clock + hook_reader.WAIT_SECONDS - 1)
    assert not reader.waits(RID, clock + hook_reader.WAIT_SECONDS)
    assert not reader.waits(2000, clock)


def test_a_controller_or_folder_that_is_away_costs_nothing(rig: Rig) -> None:
    rig.controller.accounts[RID] = UnavailableError("away")
    put(rig.folder, hook_record(KEY), filetime=CALL)
    with pytest.raises(UnavailableError):
        rig.drain()
    assert (rig.files(), rig.moved()) == ([name(CALL)], [])
    rig.settings = rig.settings.model_copy(update={"folder": rig.folder / "missing"})
    with pytest.raises(UnavailableError, match=r"\[source.hook\] folder"):
        rig.drain()


def test_nothing_can_be_captured_again(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match="cannot capture again"):
        rig.source().recapture(rig.spool, None)  # type: ignore[arg-type]
    assert rig.source().initialise(rig.spool, everything=True) == Page()  # type: ignore[arg-type]
