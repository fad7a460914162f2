"""Standard input: one JSON object a line, answered on standard output after its commit.

In:  {"domain", "account": {"sam_account_name", ...}, "password", "changed_at"?, "kvno"?, "must_change"?, "kind"?}
Out: {"line", "event_id"} or {"line", "error"}; an error names fields and rules, never a value of the line.

Lines without `changed_at` get strictly increasing times, also over a restart and when the clock is set back: the spool
keeps the last one as the source's cursor. Two lines of one account and one `changed_at`: the later line wins, because
event ids increase.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO
from uuid import UUID

from passrelay_producer.filters import Filter
from passrelay_producer.sources import About, Excluded, Memory, Page, PendingReason, Result
from passrelay_producer.sources.stdin_line import ExcludedError, parse_line
from passrelay_schemas import filetime, limits
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, EventError, PassrelayError, TooLargeError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.source_settings import StdinSourceSettings

_CHUNK_BYTES = 65536
"""What a Linux pipe holds."""
_CHUNKS_AHEAD = 4
_STOP_SECONDS = 0.2
_BELIEVED = 300 * filetime.UNITS_PER_SECOND
"""A given time further ahead is one account's trouble (consumers warn: `ahead`): no other line follows it."""
_LAST_TIME = "last_time"
"""The cursor's key: the last time that was given to a line, FILETIME."""


class LineSplitter:
    """Bytes in, lines out; a line that is too long becomes None, whatever its length, without being kept."""

    def __init__(self) -> None:
        self._rest = b""
        self._too_long = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found: list[bytes | None] = [None if len(line) > limits.MAX_LINE_BYTES else line for line in lines]
        if found and self._too_long:
            found[0], self._too_long = None, False
        if len(self._rest) > limits.MAX_LINE_BYTES:
            self._rest, self._too_long = b"", True
        return found

    def end(self) -> list[bytes | None]:
        """A last line without its newline."""
        return self.feed(b"\n") if self._rest or self._too_long else []


class StdinSource:
    """The source `[source.stdin]`: ends with its input."""

    def __init__(
        self,
        settings: StdinSourceSettings,
        domains: Iterable[DomainSettings],
        filters: FilterSettings | None = None,
        *,
        descriptor: int = 0,
        answers: BinaryIO | None = None,
    ) -> None:
        self._batch = settings.batch
        self._domains = {domain.name: domain for domain in domains}
        if not self._domains:
            raise ConfigurationError("[source.stdin] needs at least one [[domain]] table in producer.toml")
        self._filter = Filter(exclude_patterns=filters.exclude_patterns if filters else ())
        self._descriptor = descriptor
        self._answers = sys.stdout.buffer if answers is None else answers
        self._chunks: queue.Queue[bytes] = queue.Queue(_CHUNKS_AHEAD)
        self._splitter = LineSplitter()
        self._lines: deque[tuple[int, bytes | None]] = deque()
        self._count = 0
        self._ended = False
        self._last_time = 0
        self._errors: dict[int, str] = {}

    def initialise(self, memory: Memory, *, everything: bool) -> Page:
        """Nothing to choose: lines begin where they begin."""
        return Page()

    def recapture(self, memory: Memory, sam_account_name: str | None) -> Iterator[Page]:
        """ConfigurationError: passwords are not kept anywhere they could be read from again."""
        raise ConfigurationError("[source.stdin] cannot capture again: send the lines again, or `producer republish`")

    def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
        """What has arrived, at most [source.stdin] batch lines a page, until the input ends."""
        self._last_time = int(memory.cursor().get(_LAST_TIME, 0))
        threading.Thread(target=self._read, name="stdin", daemon=True).start()
        while (page := self._next_page(stop)) is not None:
            if page.events or page.excluded:
                yield page
            else:
                self._answer({})
            del page  # the next line may be hours away, and these are passwords

    def _next_page(self, stop: threading.Event) -> Page | None:
        """A page of what has arrived, which may hold nothing but errors; None at the end."""
        lines = self._next_lines(stop)
        if not lines:
            return None
        events, tags, excluded, self._errors = [], [], [], {}
        for number, line in lines:
            try:
                events.append(self._parse(line))
                tags.append(number)
            except EventError as error:
                self._errors[number] = str(error)
                if isinstance(error, ExcludedError):
                    excluded.append(Excluded(error.rule))
        cursor = {_LAST_TIME: str(self._last_time)} if events or excluded else {}
        return Page(events=events, tags=tags, excluded=excluded, cursor=cursor)

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        """Answer the page's lines, together with those of the same batch that were refused before."""
        self._answer(dict(zip(page.tags, results, strict=True)))

    def about(self) -> About:
        """The domains of the configuration."""
        return About("stdin", domains=tuple(self._domains))

    def fault(self) -> str:
        """None beside those that reading meets."""
        return ""

    def waiting(self) -> Mapping[PendingReason, int]:
        """Nothing: a line is taken or answered with its error."""
        return {}

    def _read(self) -> None:
        # os.read, because a thread that hangs in sys.stdin.buffer would hold its lock when the process ends.
        with suppress(OSError):
            while chunk := os.read(self._descriptor, _CHUNK_BYTES):
                self._chunks.put(chunk)
                del chunk  # what was read last is not kept while nothing comes
        self._chunks.put(b"")

    def _next_lines(self, stop: threading.Event) -> list[tuple[int, bytes | None]]:
        """At least one line, and what is there beside it; none at the end of the input and after `stop`."""
        while not self._ended and not stop.is_set() and len(self._lines) < self._batch:
            try:
                # Wait for the first line only: whoever sends one at a time gets an answer to each.
                chunk = self._chunks.get(block=not self._lines, timeout=_STOP_SECONDS)
            except queue.Empty:
                if self._lines:
                    break
                continue
            self._ended = not chunk
            for line in self._splitter.feed(chunk) if chunk else self._splitter.end():
                self._count += 1
                self._lines.append((self._count, line))
        if stop.is_set():
            return []
        return [self._lines.popleft() for _ in range(min(self._batch, len(self._lines)))]

    def _parse(self, line: bytes | None) -> PasswordChanged:
        if line is None:
            raise TooLargeError(f"line: more than {limits.MAX_LINE_BYTES} bytes")
        event = parse_line(line, self._domains, now=filetime.now(), next_time=self._next_time, filters=self._filter)
        if event.kvno == 0 and event.changed_at <= filetime.now() + _BELIEVED:
            # In a domain ordered by time what follows without a time of its own comes after this.
            self._last_time = max(self._last_time, event.changed_at)
        return event

    def _next_time(self) -> int:
        """Now, but later than ever before with this spool: the later line wins, whatever the clock does."""
        self._last_time = max(filetime.now(), self._last_time + 1)
        return self._last_time

    def _answer(self, results: Mapping[int, Result]) -> None:
        answers: dict[int, dict[str, Any]] = {
            number: {"line": number, "error": text} for number, text in self._errors.items()
        }
        for number, result in results.items():
            key = "event_id" if isinstance(result, UUID) else "error"
            answers[number] = {"line": number, key: str(result)}
        self._errors = {}
        text = "".join(json.dumps(answers[number]) + "\n" for number in sorted(answers))
        try:
            self._answers.write(text.encode("ascii"))
            self._answers.flush()
        except OSError as error:
            raise PassrelayError(
                f"standard output cannot be written ({error.strerror}): the lines read so far are in the spool; "
                "start the producer again together with the program that reads its answers"
            ) from None
