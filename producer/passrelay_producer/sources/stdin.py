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
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, BinaryIO
from uuid import NAMESPACE_DNS, UUID, uuid5

from passrelay_producer.sources import Memory, Page, Result
from passrelay_schemas import filetime, limits
from passrelay_schemas.deny import denied
from passrelay_schemas.errors import (
    ConfigurationError,
    EventError,
    ForeignDomainError,
    MalformedError,
    PassrelayError,
    ProtectedError,
    TooLargeError,
)
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.order import Order
from passrelay_schemas.settings import DomainSettings, StdinSourceSettings
from passrelay_schemas.strict_json import parse_object, validate

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CHUNK_BYTES = 65536
"""What a Linux pipe holds."""
_CHUNKS_AHEAD = 4
_STOP_SECONDS = 0.2
_LAST_TIME = "last_time"
"""The cursor's key: the last time that was given to a line, FILETIME."""


def parse_line(
    line: bytes, domains: Mapping[str, DomainSettings], *, now: int, next_time: Callable[[], int]
) -> PasswordChanged:
    """The event of one line; EventError without any value of it.

    `now` is the FILETIME that "the future" is measured from; `next_time` gives `changed_at` where the line has none.
    In a domain ordered by time an account without guid gets the UUIDv5 of its casefolded sam_account_name, in the
    namespace that is the UUIDv5 (DNS) of the domain's name: the same one in every process.
    """
    document = parse_object(line, what="line")
    name = document.get("domain")
    domain = domains.get(name.lower().rstrip(".")) if isinstance(name, str) else None
    if domain is None:
        raise ForeignDomainError("domain: not one of the [[domain]] tables of producer.toml")
    by_time = domain.order is Order.TIME
    if isinstance(document.get("account"), dict):
        _settle_guid(document["account"], domain.name if by_time else None)
    if by_time:
        document.setdefault("kvno", 0)
    document["changed_at"] = _time(document["changed_at"]) if "changed_at" in document else next_time()
    event = validate(PasswordChanged, document, what="line")
    _check(event, domain, now)
    return event


def _settle_guid(account: dict[str, Any], domain: str | None) -> None:
    guid, name = account.get("guid"), account.get("sam_account_name")
    with suppress(ValueError):
        if isinstance(guid, str):
            account["guid"] = UUID(guid)
        elif "guid" not in account and domain is not None and isinstance(name, str):
            account["guid"] = uuid5(uuid5(NAMESPACE_DNS, domain), name.casefold())
        return
    # Raised here, because the errors above hold the text that is wrong.
    raise MalformedError(
        f"line: account.{'guid: not a UUID' if 'guid' in account else 'sam_account_name: not Unicode'}"
    )


def _time(value: Any) -> Any:
    """FILETIME of an RFC 3339 text (to the microsecond); what is no text is checked as a FILETIME later."""
    if not isinstance(value, str):
        return value
    try:
        if _RFC3339.fullmatch(value):
            return filetime.from_datetime(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        pass
    raise MalformedError("line: changed_at: neither a FILETIME number nor an RFC 3339 time with its offset")


def _check(event: PasswordChanged, domain: DomainSettings, now: int) -> None:
    """What the consumer would make a dead letter of, refused while somebody can still repair it."""
    account = event.account
    if domain.order is Order.TIME:
        if event.kvno != 0:
            raise ForeignDomainError('kvno: not in a domain with order = "time"')
        if event.changed_at > now + limits.MAX_AHEAD_SECONDS * filetime.UNITS_PER_SECOND:
            raise MalformedError(
                f"changed_at: more than {limits.MAX_AHEAD_SECONDS} s in the future of this host's clock: set the "
                "clocks right, or give the right changed_at (lines without one come after all earlier ones)"
            )
    elif event.kvno < 1:
        raise ForeignDomainError('kvno: at least 1 in a domain with order = "kvno"')
    if domain.sid is not None and (account.sid is None or account.sid.rpartition("-")[0] != domain.sid):
        raise ForeignDomainError("account.sid: missing, or not of the domain's own sid")
    refusal = denied(sam_account_name=account.sam_account_name, sid=account.sid)
    if refusal is not None:
        raise ProtectedError(f"denied: {refusal}")


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
        *,
        descriptor: int = 0,
        answers: BinaryIO | None = None,
    ) -> None:
        self._batch = settings.batch
        self._domains = {domain.name: domain for domain in domains}
        if not self._domains:
            raise ConfigurationError("[source.stdin] needs at least one [[domain]] table in producer.toml")
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
        while lines := self._next_lines(stop):
            events, tags, self._errors = [], [], {}
            for number, line in lines:
                try:
                    events.append(self._parse(line))
                    tags.append(number)
                except EventError as error:
                    self._errors[number] = str(error)
            if events:
                yield Page(events=events, tags=tags, cursor={_LAST_TIME: str(self._last_time)})
            else:
                self._answer({})

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        """Answer the page's lines, together with those of the same batch that were refused before."""
        self._answer(dict(zip(page.tags, results, strict=True)))

    def _read(self) -> None:
        # os.read, because a thread that hangs in sys.stdin.buffer would hold its lock when the process ends.
        with suppress(OSError):
            while chunk := os.read(self._descriptor, _CHUNK_BYTES):
                self._chunks.put(chunk)
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
        return parse_line(line, self._domains, now=filetime.now(), next_time=self._next_time)

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
