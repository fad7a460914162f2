"""What a producer says of its source and spool while they fail and when they are back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from passrelay_producer import capture as capture_module
from passrelay_producer.capture import Capture
from passrelay_producer.news import Newsroom
from passrelay_producer.sources import Page
from passrelay_producer.spool import SpoolFullError
from passrelay_schemas import news as documents
from passrelay_schemas.errors import KeyFileError, UnavailableError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from tests.unit.test_capture import ListedSource, Rig, _no_waiting, event, rig

__all__ = ["_no_waiting", "rig"]  # fixtures

DOWN = "source: cannot be read"


class WatchedSource(ListedSource):
    """Notes what the capture says of itself each time that the source is asked."""

    def __init__(self, *script: Page | Exception) -> None:
        super().__init__(*script)
        self.heard: list[list[str]] = []
        self.capture: Capture | None = None

    def pages(self, memory: Any, stop: threading.Event) -> Iterator[Page]:
        for page in super().pages(memory, stop):
            assert self.capture is not None
            self.heard.append(self.capture.troubles())
            yield page


def test_a_source_is_down_from_its_failure_until_it_brings_a_page(rig: Rig) -> None:
    source = WatchedSource(Page(events=[event()]), UnavailableError("gone"), Page(), Page())
    source.capture = capture = rig.capture(source)
    assert capture.troubles() == []
    capture.run()
    # Before the first page; then, after the failure, until the next page is there.
    assert source.heard == [[], [DOWN], []]
    assert capture.source_is_up


def test_an_idle_source_that_holds_is_up_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WatchedSource(UnavailableError("gone"), Page())
    source.capture = capture = rig.capture(source)
    monkeypatch.setattr(capture_module, "_STABLE_SECONDS", -1)  # it has held for so long already
    capture.run()
    assert source.heard == [[]]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SpoolFullError("disk full"), "spool: cannot be used, capturing waits"),
        (KeyFileError("no recipient"), "keys: cannot be used, capturing waits"),
    ],
)
def test_what_holds_a_page_up_is_told_until_it_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    capture = rig.capture(ListedSource(Page(events=[event()])))
    commit, heard = rig.spool.commit, list[list[str]]()

    def failing(*arguments: Any) -> None:
        if len(heard) < 2:
            heard.append(capture.troubles())
            raise error
        commit(*arguments)

    monkeypatch.setattr(rig.spool, "commit", failing)
    capture.run()
    assert heard == [[], [told]]
    assert capture.troubles() == []
    assert rig.spool.queued_count() == 1


def test_the_page_shows_both_ends_once_a_service_watches(rig: Rig, tmp_path: Path) -> None:
    assert rig.gauge("passrelay_source_up") is None
    rig.metrics.watch(source=lambda: False, broker=lambda: True)
    assert (rig.gauge("passrelay_source_up"), rig.gauge("passrelay_broker_up")) == (0, 1)


def test_the_news_say_whether_the_source_can_be_read(rig: Rig) -> None:
    answers = [True, False]
    newsroom = Newsroom(
        ListedSource(),
        rig.spool,
        rig.identity,
        metrics=rig.metrics,
        source_is_up=lambda: answers.pop(0),
        log=Log("test"),
    )
    keyring = Keyring(rig.enrolment.consumer_keys)
    written = [newsroom.write(), newsroom.write()]
    assert [documents.decode(raw, keyring).source_up for raw in written if raw] == [True, False]
