"""Lines in, answers out: strictness, orders, answers after the commit, and no value of a line in any error."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from passrelay_producer.filters import Rule
from passrelay_producer.sources import AccountState, Excluded, Page, Pending
from passrelay_producer.sources.stdin import LineSplitter, StdinSource
from passrelay_producer.sources.stdin_line import parse_line
from passrelay_schemas import filetime, limits
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.enrolment import check_event
from passrelay_schemas.errors import ConfigurationError, EventError, PassrelayError, TooLargeError
from passrelay_schemas.event import Kind, PasswordChanged
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.order import Order
from passrelay_schemas.source_settings import StdinSourceSettings
from tests.lab.folder import CANARY, canary_password

SID = "S-1-5-21-1-2-3"
AD = DomainSettings(name="lab.example", sid=SID)
HR = DomainSettings(name="hr.example", order=Order.TIME)
DOMAINS = {domain.name: domain for domain in (AD, HR)}
NOW = filetime.from_datetime(datetime(2026, 11, 24, 12, tzinfo=UTC))


def ad_line(**changes: Any) -> dict[str, Any]:
    account = {"guid": str(uuid4()), "sid": f"{SID}-1105", "sam_account_name": "anna", **changes.pop("account", {})}
    line = {"domain": "lab.example", "account": account, "password": canary_password(), "kvno": 3, **changes}
    line["account"] = {key: value for key, value in account.items() if value is not None}
    return line


def hr_line(**changes: Any) -> dict[str, Any]:
    return {"domain": "hr.example", "account": {"sam_account_name": "Anna"}, "password": canary_password(), **changes}


def parse(document: Any) -> PasswordChanged:
    return parse_line(json.dumps(document).encode(), DOMAINS, now=NOW, next_time=lambda: NOW)


def refusal(document: Any) -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(EventError) as caught:
        parse_line(raw, DOMAINS, now=NOW, next_time=lambda: NOW)
    text = str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:  # nothing that a careless log could print later
        assert CANARY not in repr(error)
        error = error.__cause__ or error.__context__
    return text


class TestParsing:
    def test_an_ad_event(self) -> None:
        line = ad_line(must_change=True, kind="reset", changed_at=NOW - 5)
        event = parse(line)
        assert (event.kvno, event.changed_at, event.must_change, event.kind) == (3, NOW - 5, True, Kind.RESET)
        assert event.account.guid == UUID(line["account"]["guid"])
        assert event.password is not None
        assert event.password.reveal() == line["password"]
        check_event(event, AD)

    def test_a_minimal_event_of_a_time_ordered_domain(self) -> None:
        event = parse(hr_line())
        assert (event.kvno, event.changed_at, event.must_change, event.kind) == (0, NOW, False, Kind.UNKNOWN)
        check_event(event, HR)

    def test_a_missing_guid_depends_on_domain_and_casefolded_name_alone(self) -> None:
        one = parse(hr_line()).account.guid
        assert one == parse(hr_line(account={"sam_account_name": "ANNA"}, kvno=0)).account.guid
        assert one == UUID("1e68c943-fbfc-50f8-97b9-3ee2d2d391c2")  # fixed: it stands in markers
        assert one != parse(hr_line(account={"sam_account_name": "anne"})).account.guid

    def test_the_domain_is_found_in_any_case(self) -> None:
        assert parse(hr_line(domain="HR.Example.")).domain == "hr.example"

    def test_expire_has_no_password(self) -> None:
        line = ad_line(kind="expire", must_change=True)
        assert "password" in refusal(line)
        del line["password"]
        assert parse(line).kind is Kind.EXPIRE

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("2026-11-24T11:00:00Z", 3600),
            ("2026-11-24T13:00:00.5+02:00", 3599.5),
            ("2026-11-24t11:59:59.000001z", 0.999999),
        ],
    )
    def test_rfc_3339_times(self, text: str, seconds: float) -> None:
        assert NOW - parse(hr_line(changed_at=text)).changed_at == round(seconds * 10_000_000)

    @pytest.mark.parametrize(
        "text", ["2026-11-24", "2026-11-24T11:00:00", "2026-W48-2T11:00:00Z", "yesterday", "0001-01-01T00:00:00+14:00"]
    )
    def test_other_texts_are_no_times(self, text: str) -> None:
        assert "RFC 3339" in refusal(hr_line(changed_at=text))

    @pytest.mark.parametrize("value", [True, 1.5, -1, None, 10**30, []])
    def test_other_values_are_no_filetimes(self, value: Any) -> None:
        assert "changed_at" in refusal(hr_line(changed_at=value))

    def test_a_change_from_the_far_future_would_shut_out_all_later_ones(self) -> None:
        ahead = limits.MAX_AHEAD_SECONDS * filetime.UNITS_PER_SECOND
        assert parse(hr_line(changed_at=NOW + ahead)).changed_at == NOW + ahead
        assert "future" in refusal(hr_line(changed_at=NOW + ahead + 1))
        parse(ad_line(changed_at=NOW + ahead + 1))  # there the version decides

    @pytest.mark.parametrize(
        ("document", "word"),
        [
            (ad_line(domain="other.example"), "[[domain]]"),
            (ad_line(domain=None), "[[domain]]"),
            (ad_line(account={"guid": None}), "account.guid"),
            (ad_line(account={"guid": f"{CANARY}-not-a-guid"}), "account.guid: not a UUID"),
            (ad_line(account={"sid": None}), "account.sid"),
            (ad_line(account={"sid": "S-1-5-21-9-9-9-1105"}), "account.sid"),
            (ad_line(account={"sid": SID}), "account.sid"),
            (ad_line(kvno=0), "kvno: at least 1"),
            (ad_line(kvno="3"), "kvno"),
            (hr_line(kvno=1), "kvno"),
            (ad_line(account={"sam_account_name": "PC1$"}), "denied: machine"),
            (ad_line(account={"sam_account_name": "krbtgt"}), "denied: Kerberos"),
            (ad_line(account={"sid": f"{SID}-500"}), "denied: built-in"),
            (ad_line(surprise=CANARY), "unknown field"),
            ({**ad_line(), CANARY: 1}, "unknown field"),
            (ad_line(account={CANARY: "x"}), "unknown field"),
            (ad_line(must_change="yes"), "must_change"),
            (ad_line(kind=CANARY), "kind"),
            (ad_line(password=[CANARY]), "password"),
            (hr_line(account=CANARY), "account"),
            (hr_line(account={}), "sam_account_name"),
            (hr_line(account={"sam_account_name": f"{CANARY}\ud800"}), "surrogate"),
            ([CANARY], "not a JSON object"),
            (json.dumps(hr_line()).encode()[:-1], "not UTF-8 JSON"),
            (b'{"password": "' + CANARY.encode("utf-16-le") + b'\xff"}', "not UTF-8 JSON"),
            (b'{"password": "x", "password": "' + CANARY.encode() + b'"}', "twice"),
            (b"", "not UTF-8 JSON"),
        ],
    )
    def test_refusals_name_the_rule_and_no_value(self, document: Any, word: str) -> None:
        text = refusal(document)
        assert word in text
        for secret in (CANARY, "anna", "other.example", "9-9-9"):
            assert secret not in text

    def test_a_domain_with_a_sid_and_order_by_time_needs_it_too(self) -> None:
        # The consumer would make a dead letter of it.
        domain = DomainSettings(name="hr.example", order=Order.TIME, sid=SID)
        with pytest.raises(EventError, match=r"account\.sid"):
            parse_line(json.dumps(hr_line()).encode(), {"hr.example": domain}, now=NOW, next_time=lambda: NOW)


class TestSplitting:
    def test_chunks_of_any_size_give_the_same_lines(self) -> None:
        raw = b"one\ntwo\r\n\nlast"
        for size in range(1, len(raw) + 1):
            splitter = LineSplitter()
            lines = [line for at in range(0, len(raw), size) for line in splitter.feed(raw[at : at + size])]
            assert lines + splitter.end() == [b"one", b"two\r", b"", b"last"]
            assert splitter.end() == []

    def test_a_line_without_end_takes_no_memory_and_costs_only_itself(self) -> None:
        splitter = LineSplitter()
        for _ in range(10):
            assert splitter.feed(b"x" * limits.MAX_LINE_BYTES) == []
            assert len(splitter._rest) <= limits.MAX_LINE_BYTES
        assert splitter.feed(b"y\nnext\n") == [None, b"next"]
        assert splitter.feed(b"x" * (limits.MAX_LINE_BYTES + 1)) == []
        assert splitter.end() == [None]

    def test_the_limit_itself_fits(self) -> None:
        line = b"x" * limits.MAX_LINE_BYTES
        assert LineSplitter().feed(line + b"\n") == [line]


class Notes:
    """What the spool would remember."""

    def __init__(self, **cursor: str) -> None:
        self.values: Mapping[str, str] = cursor

    def cursor(self) -> Mapping[str, str]:
        return self.values

    def account(self, guid: UUID) -> AccountState | None:
        return None

    def pending(self) -> list[Pending]:
        return []

    def excluded(self, limit: int | None = None) -> list[UUID]:
        return []

    def is_excluded(self, guid: UUID) -> bool:
        return False


class Pipe:
    """A source that reads from a real pipe, and what it has answered."""

    def __init__(self, batch: int = 256, notes: Notes | None = None, patterns: tuple[str, ...] = ()) -> None:
        reading, self.writing = os.pipe()
        self.answers = io.BytesIO()
        self.stop = threading.Event()
        self.source = StdinSource(
            StdinSourceSettings(batch=batch),
            [AD, HR],
            FilterSettings(exclude_patterns=patterns),
            descriptor=reading,
            answers=self.answers,
        )
        self.pages = self.source.pages(notes or Notes(), self.stop)

    def send(self, *documents: Any) -> None:
        lines = (document if isinstance(document, bytes) else json.dumps(document).encode() for document in documents)
        os.write(self.writing, b"".join(line + b"\n" for line in lines))

    def end(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
        self.writing = -1

    @property
    def answered(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.answers.getvalue().splitlines()]


@pytest.fixture
def pipe() -> Iterator[Callable[..., Pipe]]:
    opened: list[Pipe] = []

    def make(batch: int = 256, notes: Notes | None = None, patterns: tuple[str, ...] = ()) -> Pipe:
        opened.append(Pipe(batch, notes, patterns))
        return opened[-1]

    yield make
    for one in opened:
        one.stop.set()
        one.end()


class TestSource:
    def test_answers_come_after_the_commit_with_the_lines_own_numbers(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe()
        lines.send(hr_line(), b"{", hr_line(account={"sam_account_name": "pc$"}), hr_line())
        lines.end()
        page = next(lines.pages)
        assert list(page.tags) == [1, 4]
        assert lines.answered == []
        ids = [new_event_id(), new_event_id()]
        lines.source.committed(page, ids)
        assert [answer["line"] for answer in lines.answered] == [1, 2, 3, 4]
        assert [answer.get("event_id") for answer in lines.answered] == [str(ids[0]), None, None, str(ids[1])]
        assert lines.answered[2]["error"] == "denied: machine or trust account"
        assert list(lines.pages) == []

    def test_names_that_a_pattern_excludes_are_answered_with_it_and_counted(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe(patterns=("svc-*",))
        lines.send(hr_line(account={"sam_account_name": "SVC-backup"}), hr_line(), hr_line(account={"sid": 5}))
        page = next(lines.pages)
        assert list(page.tags) == [2]
        assert page.excluded == [Excluded(Rule.EXCLUDE_PATTERN)]
        lines.source.committed(page, [new_event_id()])
        assert lines.answered[0] == {"line": 1, "error": "[filter] exclude_patterns 'svc-*' matches its name"}
        lines.send(hr_line(account={"sam_account_name": "svc-x"}))
        page = next(lines.pages)
        assert (page.events, page.excluded) == ([], [Excluded(Rule.EXCLUDE_PATTERN)])
        lines.source.committed(page, [])
        assert lines.answered[3]["line"] == 4

    def test_lines_that_cannot_be_sealed_are_answered_with_the_error(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe()
        lines.send(hr_line())
        page = next(lines.pages)
        lines.source.committed(page, [TooLargeError("the event has 9 bytes")])
        assert lines.answered == [{"line": 1, "error": "the event has 9 bytes"}]

    def test_only_wrong_lines_are_answered_without_a_page_and_the_source_goes_on(
        self, pipe: Callable[..., Pipe]
    ) -> None:
        lines = pipe(2)
        lines.send(b"x" * (limits.MAX_LINE_BYTES + 1), b"nonsense")
        lines.send(hr_line())
        lines.end()
        page = next(lines.pages)
        assert [answer["line"] for answer in lines.answered] == [1, 2]
        lines.source.committed(page, [new_event_id()])
        assert list(lines.pages) == []
        assert [answer["line"] for answer in lines.answered] == [1, 2, 3]
        assert str(limits.MAX_LINE_BYTES) in lines.answered[0]["error"]

    def test_a_page_has_at_most_one_batch(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe(2)
        lines.send(*(hr_line() for _ in range(5)))
        lines.end()
        assert [len(page.events) for page in lines.pages] == [2, 2, 1]

    def test_a_single_line_does_not_wait_for_others(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe()
        lines.send(hr_line())
        assert len(next(lines.pages).events) == 1

    def test_a_last_line_without_newline_counts(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe()
        os.write(lines.writing, json.dumps(hr_line()).encode())
        lines.end()
        assert [len(page.events) for page in lines.pages] == [1]

    def test_default_times_rise_strictly(self, pipe: Callable[..., Pipe], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(filetime, "now", lambda: NOW)  # a clock that stands still
        lines = pipe()
        lines.send(*(hr_line() for _ in range(3)))
        lines.end()
        assert [event.changed_at for page in lines.pages for event in page.events] == [NOW, NOW + 1, NOW + 2]

    def test_default_times_rise_over_a_restart_with_a_clock_that_was_set_back(
        self, pipe: Callable[..., Pipe], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes, times = Notes(), []
        for now in (NOW, NOW - 36_000_000_000, NOW + 36_000_000_000):
            monkeypatch.setattr(filetime, "now", lambda now=now: now)
            lines = pipe(notes=notes)
            lines.send(hr_line(), hr_line())
            lines.end()
            for page in lines.pages:
                times += [event.changed_at for event in page.events]
                notes.values = page.cursor  # in the same transaction as the events
        assert times == sorted(set(times))
        assert times[-2] == NOW + 36_000_000_000  # a clock that went on is followed again

    def test_a_line_without_a_time_comes_after_one_that_had_its_own(
        self, pipe: Callable[..., Pipe], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filetime, "now", lambda: NOW)
        lines = pipe()
        minute, hour = 60 * filetime.UNITS_PER_SECOND, 3600 * filetime.UNITS_PER_SECOND
        lines.send(hr_line(changed_at=NOW + minute), hr_line(), hr_line(changed_at=NOW + hour), hr_line())
        lines.end()
        times = [event.changed_at for page in lines.pages for event in page.events]
        # An hour ahead is that line's own trouble: it does not spread to every account.
        assert times == [NOW + minute, NOW + minute + 1, NOW + hour, NOW + minute + 2]

    def test_a_clock_that_went_back_by_days_is_told_to_the_sender(
        self, pipe: Callable[..., Pipe], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filetime, "now", lambda: NOW)
        ahead = NOW + limits.MAX_AHEAD_SECONDS * filetime.UNITS_PER_SECOND
        lines = pipe(notes=Notes(last_time=str(ahead)))
        lines.send(hr_line())
        lines.send(hr_line(changed_at=NOW))
        lines.end()
        assert [event.changed_at for page in lines.pages for event in page.events] == [NOW]
        lines.source.committed(Page(), [])
        assert [answer["line"] for answer in lines.answered] == [1]
        assert "set the clocks right" in lines.answered[0]["error"]

    def test_stop_ends_a_source_that_waits(self, pipe: Callable[..., Pipe]) -> None:
        lines = pipe()
        threading.Timer(0.05, lines.stop.set).start()
        assert list(lines.pages) == []

    def test_a_reader_that_is_gone_ends_the_source(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb", buffering=0) as answers:
            source = StdinSource(StdinSourceSettings(), [HR], answers=answers)
            with pytest.raises(PassrelayError, match="Broken pipe"):
                source.committed(Page(tags=[1]), [new_event_id()])

    def test_without_a_domain_it_does_not_start(self) -> None:
        with pytest.raises(ConfigurationError, match=r"\[\[domain\]\]"):
            StdinSource(StdinSourceSettings(), [])

    def test_there_is_nothing_to_capture_again(self) -> None:
        source = StdinSource(StdinSourceSettings(), [HR], answers=io.BytesIO())
        assert source.initialise(Notes(), everything=True) == Page()
        with pytest.raises(ConfigurationError, match="cannot capture again"):
            source.recapture(Notes(), None)
