"""What a producer reads: lines, and a domain controller's answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest import mock
from uuid import UUID

from passrelay_producer import metadata, supplemental
from passrelay_producer.filters import Filter
from passrelay_producer.sources import AccountState, samba_pulse
from passrelay_producer.sources.hook_version import version_of
from passrelay_producer.sources.samba_account import UnreadableError, listed, reading
from passrelay_producer.sources.samba_change import decide as decide_capture
from passrelay_producer.sources.samba_cursor import Cursor
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_producer.sources.stdin import LineSplitter
from passrelay_producer.sources.stdin_line import parse_line
from passrelay_schemas import event as events
from passrelay_schemas.errors import EventError, UnavailableError
from tests.hostile.attributes import parse_entry
from tests.hostile.setting import DOMAINS, KEY_FILE, Remembered
from tests.unit.builders import CHANGED_AT, GUID


def line(raw: bytes) -> None:
    splitter = LineSplitter()
    lines = [*splitter.feed(raw), *splitter.end()]
    for line in lines or [b""]:
        if line is not None:
            event = parse_line(line, DOMAINS, now=CHANGED_AT + 10**15, next_time=lambda: CHANGED_AT)
            with suppress(EventError):
                events.encode(event)


def account(raw: bytes) -> None:
    entry = parse_entry(raw)
    listed(entry)
    seen = reading(entry)
    for known, password in ((None, True), (AccountState(GUID, 7, must_change=False), False)):
        decision = decide_capture(
            seen, filters=Filter(), domain="lab.example", password=password, known=known, key=cast("Any", Remembered)
        )
        if decision.event is not None:
            with suppress(EventError):
                events.encode(decision.event)
    with suppress(metadata.MetadataError):
        version_of(seen, calls=[1, 2], controller=UUID(int=1), given=3)
    metadata.last_write(seen.metadata)


class _Answers:
    """An LDAP connection that answers every search with this entry."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.response = [entry]
        value = {"cookie": b"", "more_results": False}
        self.result = {"controls": {"1.2.840.113556.1.4.841": {"value": value}}}

    def search(self, *_: object, **__: object) -> bool:
        """The answer is there already."""
        return True


def directory(raw: bytes) -> None:
    """Every question to the controller, with this as its only answer."""
    entry = parse_entry(raw)
    directory = SambaDirectory(Path("/nowhere"))
    directory._connection = cast("Any", _Answers(entry))
    for ask in (
        lambda: directory.changes(b""),
        directory.highest_usn,
        lambda: directory.writes(0),
        lambda: list(directory.users(None)),
        lambda: list(directory.accounts()),
        lambda: directory.find("group", "cn", "x"),
        lambda: directory.read(GUID),
        lambda: directory.token_groups(GUID),
    ):
        with suppress(UnavailableError, UnreadableError):
            ask()


def pulse(raw: bytes) -> None:
    pulse = samba_pulse.Pulse.__new__(samba_pulse.Pulse)
    pulse._path, pulse._request, pulse._last = Path("/nowhere"), b"", b""
    pieces = [raw[:100], raw[100:], b""]
    pulse._socket = cast("Any", mock.Mock(recv=lambda _: pieces.pop(0)))
    pulse.moved()


def stamps(raw: bytes) -> None:
    metadata.last_write(raw)
    metadata.parse(raw)


def packages(raw: bytes) -> None:
    supplemental.packages(raw)


def openpgp(raw: bytes) -> None:
    KEY_FILE.open(raw)


def cursor(raw: bytes) -> None:
    pairs = (line.partition("=") for line in raw.decode("utf-8", "replace").split("\n"))
    cursor = Cursor.parse({name: value for name, _, value in pairs})
    Cursor.parse(cursor.mapping())
    cursor.restored(invocation_id=UUID(int=1), usn=4711, writes={GUID: 4700})
