"""The capture loop: page -> sealed events -> one transaction -> the source is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from passrelay_producer.identity import Identity
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.sources import REPAIRS, Page, Pending, PendingReason, Result, Source
from passrelay_producer.spool import Spool, SpoolFullError
from passrelay_schemas.envelope import SealedEvent
from passrelay_schemas.errors import EventError, KeyFileError, TooLargeError, UnavailableError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.sealing import seal_event

_STABLE_SECONDS = 10
"""A source that failed sooner after its start counts as failing again, so that the wait grows."""


@dataclass(frozen=True)
class SealedPage:
    """A page ready for `Spool.commit`, its sealed events, and a result for each event of the source's page."""

    page: Page
    sealed: Sequence[SealedEvent]
    results: Sequence[Result]


def seal_page(page: Page, *, producer: str, recipient: KeyDocument) -> SealedPage:
    """Seal what can be sealed.

    An event that breaks a limit has its error as its result. Where the page would remember the account as captured
    (`accounts`: a directory, which has committed the password already) nothing may be dropped: the account becomes
    pending instead, until a person has repaired it. Without that (standard input) the error is the answer to the line.
    """
    sealed: list[SealedEvent] = []
    results: list[Result] = []
    failed: dict[UUID, PendingReason] = {}
    for event in page.events:
        event_id = new_event_id()
        try:
            sealed.append(seal_event(event, producer=producer, recipient=recipient, event_id=event_id))
        except EventError as error:
            results.append(error)
            too_large = isinstance(error, TooLargeError)
            failed[event.account.guid] = PendingReason.TOO_LARGE if too_large else PendingReason.UNREADABLE
        else:
            results.append(event_id)
    lost = {account.guid: failed[account.guid] for account in page.accounts if account.guid in failed}
    if lost:
        page = replace(
            page,
            accounts=[account for account in page.accounts if account.guid not in lost],
            pending=[*page.pending, *(Pending(guid, reason) for guid, reason in lost.items())],
            resolved=[guid for guid in page.resolved if guid not in lost],
        )
    return SealedPage(page, sealed, results)


class _StoppedError(Exception):
    """The process stops while a page waits; the page is read again at the next start."""


class Capture:
    """Takes pages from a source until `stop`; nothing that was taken is lost, whatever fails in between."""

    def __init__(
        self,
        source: Source,
        spool: Spool,
        identity: Identity,
        *,
        metrics: ProducerMetrics,
        stop: threading.Event,
        log: Log,
    ) -> None:
        self._source = source
        self._spool = spool
        self._identity = identity
        self._metrics = metrics
        self._stop = stop
        self._log = log
        self._reported: set[Pending] = set()
        self._failed = False
        self._following_since = float("inf")
        self._held_up = ""
        self._fault = ""
        """The source's, as it was logged last."""

    @property
    def source_is_up(self) -> bool:
        """From any thread: the source has no fault, and has not failed, or brought a page or held for seconds since."""
        return not self._source_troubles()

    def troubles(self) -> list[str]:
        """From any thread: why nothing can be captured now."""
        return [*self._source_troubles(), *([self._held_up] if self._held_up else [])]

    def report_fault(self) -> None:
        """Log the source's fault, and its end, once each. One thread calls it now and then."""
        fault = self._source.fault()
        if fault == self._fault:
            return
        self._fault = fault
        if fault:
            repair = "as it says; `passrelay audit` then names the accounts whose change did not come, if any was lost"
            self._log.error(Action.SOURCE_DOWN, why=fault, repair=repair)
        else:
            self._log.info(Action.SOURCE_UP)

    def _source_troubles(self) -> list[str]:
        holds = not self._failed or time.monotonic() - self._following_since > _STABLE_SECONDS
        told = [] if holds else ["source: cannot be read"]
        fault = self._source.fault()
        return [*told, f"source: {fault}"] if fault else told

    def run(self) -> None:
        """Until `stop`, or until the source has no more (standard input).

        A source that is unavailable is asked again for ever, with exponential backoff, full jitter, a minute at most.
        """
        self._log.info(Action.CAPTURE_STARTED, source=type(self._source).__name__)
        ended = False
        while not ended and not self._stop.is_set():
            with suppress(UnavailableError):
                ended = self._retrying(self._report_source, UnavailableError)(self._follow)

    def take(self, pages: Iterable[Page]) -> tuple[int, int]:
        """Commit these pages now: how many events they had, and how many accounts the filter left out.

        Raises what `run` would wait for.
        """
        events = excluded = 0
        for page in pages:
            events += self._take(page, lambda step: step())
            excluded += len(page.excluded)
        return events, excluded

    def _follow(self) -> bool:
        """True when the source ended by itself or by `stop`, False when it failed after it had run for a while."""
        started = self._following_since = time.monotonic()
        pages = iter(self._source.pages(self._spool, self._stop))
        while not self._stop.is_set():
            try:
                page = next(pages, None)
            except UnavailableError as error:
                self._source_failed()
                if time.monotonic() - started < _STABLE_SECONDS:
                    raise
                self._log.warning(Action.CAPTURE_FAILED, why=str(error))
                return False
            if page is None:
                return True
            self._failed = False
            with suppress(_StoppedError):
                self._take(page, self._patiently)
            del page  # the next one may be hours away, and these are passwords
        return True

    def _take(self, page: Page, run: Callable[[Callable[[], Any]], Any]) -> int:
        started = time.monotonic()
        ready: SealedPage = run(lambda: self._seal(page))
        sealed_at = time.monotonic()
        run(lambda: self._spool.commit(ready.page, ready.sealed))
        self._metrics.stage_seconds.labels("seal").observe(sealed_at - started)
        self._metrics.stage_seconds.labels("spool").observe(time.monotonic() - sealed_at)
        self._source.committed(page, ready.results)
        self._report(ready)
        return len(ready.sealed)

    def _seal(self, page: Page) -> SealedPage:
        return seal_page(page, producer=self._identity.producer, recipient=self._identity.recipient())

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _patiently(self, step: Callable[[], Any]) -> Any:
        """Run a step until it succeeds: a full disk or a missing recipient key stops the cursor, not the DC."""
        retrying = self._retrying(self._report_page, UnavailableError, KeyFileError)
        try:
            result = retrying(step)
            self._held_up = ""
        except (UnavailableError, KeyFileError):
            raise _StoppedError from None
        if retrying.statistics["attempt_number"] > 1:
            self._log.info(Action.RESUMED, attempts=retrying.statistics["attempt_number"])
        return result

    def _retrying(self, report: Callable[[RetryCallState], None], *errors: type[Exception]) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(errors),
            wait=wait_random_exponential(multiplier=0.5, max=60),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=report,
            reraise=True,
        )

    def _report_source(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._source_failed()
        self._log.warning(Action.CAPTURE_FAILED, why=str(error), attempt=state.attempt_number)

    def _source_failed(self) -> None:
        self._failed, self._following_since = True, float("inf")

    def _report_page(self, state: RetryCallState) -> None:
        """Once per episode: it may last for days."""
        error = state.outcome.exception() if state.outcome else None
        self._held_up = f"{'keys' if isinstance(error, KeyFileError) else 'spool'}: cannot be used, capturing waits"
        if state.attempt_number > 1 or error is None:
            return
        if isinstance(error, SpoolFullError):
            self._log.error(
                Action.SPOOL_FULL,
                why=str(error),
                repair="free space on the spool's disk, bring the broker back, or raise [spool] max_bytes;"
                " capturing then goes on by itself",
            )
        elif isinstance(error, KeyFileError):
            self._log.error(Action.KEYRING_FAULT, why=str(error), repair="capturing goes on when the key is there")
        else:
            self._log.warning(Action.CAPTURE_FAILED, why=str(error))

    # -- telling ----------------------------------------------------------------------------------------------------

    def _report(self, ready: SealedPage) -> None:
        refused = [result for result in ready.results if isinstance(result, EventError)]
        self._metrics.captured("captured", len(ready.sealed))
        for error in refused:
            self._metrics.captured("refused", 1, error.reason.value)
        for pending in ready.page.pending:
            self._metrics.captured("pending", 1, pending.reason.value)
        for excluded in ready.page.excluded:
            self._metrics.captured("excluded", 1, excluded.rule.value)
        for reason in ready.page.quarantined:
            self._metrics.captured("quarantined", 1, reason)
        if ready.sealed or refused:
            self._log.info(Action.CAPTURED, events=len(ready.sealed), refused=len(refused))
        for guid in ready.page.resolved:
            known = {pending for pending in self._reported if pending.guid == guid}
            if known:
                self._reported -= known
                self._log.info(Action.CAPTURE_RESOLVED, guid=str(guid))
        # A source reads pending accounts again and again; only a new reason is news.
        for pending in ready.page.pending:
            if pending not in self._reported:
                self._reported = {known for known in self._reported if known.guid != pending.guid} | {pending}
                self._log.error(
                    Action.CAPTURE_PENDING,
                    guid=str(pending.guid),
                    reason=pending.reason.value,
                    repair=REPAIRS[pending.reason],
                )
