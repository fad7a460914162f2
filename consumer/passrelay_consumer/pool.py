"""Worker threads: each takes deliveries, asks its own handler, and prepares everything that the channel will send."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from passrelay_consumer.disposition import Disposition, dispose, is_poison, poison, unopened
from passrelay_consumer.journal import Journal, Message
from passrelay_consumer.opening import Opened
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_schemas.fault import Faults, describe
from passrelay_schemas.health import dead
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.verdict import Reason, Verdict

_JOIN_SECONDS = 10
_MOST_TOGETHER = 16
"""Opened at once: the first of them waits for the last, some milliseconds."""
_STUCK_SECONDS = 600
"""Every LDAP call has a timeout, and one delivery takes a limited number of calls."""


class Handles(Protocol):
    """What decides deliveries; used by one thread."""

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        """What each holds, in their order. Never raises for bad input."""

    def deliver(self, opened: Opened) -> Outcome | Hold:
        """The outcome, or Hold when no server can take writes. Never raises for bad input."""

    def handle(self, delivery: Delivery) -> Outcome | Hold:
        """Both for one."""

    def close(self) -> None:
        """Give up its connection."""


@dataclass(slots=True, eq=False)
class Job:
    """One delivery on its way through this consumer. A worker fills in the answer, then hands it back."""

    tag: int
    delivery: Delivery
    since: float = field(default_factory=time.monotonic)
    """When it arrived, on a clock that never jumps."""
    lost: bool = False
    """Its channel is gone: the broker hands the delivery out again, so nothing may come of this one."""
    answered: bool = False
    """Its worker has handed it back."""
    opened: Opened | None = None
    """What it holds, from its opening until a worker begins with it."""
    hold: Hold | None = None
    disposition: Disposition | None = None
    messages: list[Message] = field(default_factory=list)
    """What is still to be published and confirmed before the ack."""
    seconds: float = 0


class Pool:
    """A fixed number of workers. `submit` and `recall` are the channel's; `report` is called on workers' threads."""

    def __init__(
        self,
        make_handler: Callable[[], Handles],
        workers: int,
        *,
        journal: Journal,
        horizon: timedelta,
        settles: bool,
        log: Log,
    ) -> None:
        self._make_handler = make_handler
        self._workers = workers
        self._journal = journal
        self._horizon = horizon
        self._settles = settles
        self._log = log
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._turn = threading.Lock()
        """Held by the worker that waits for the next jobs, or opens them for all."""
        self._opened: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy: dict[str, float] = {}
        """By thread name, since when it opens deliveries or works on one; monotonic."""

    def start(self, report: Callable[[Job], None], faults: Faults) -> None:
        """Start the threads; each job comes back once through `report`, lost ones too."""
        work = faults.guard(self._work)
        self._threads = [
            threading.Thread(target=work, args=(report,), name=f"worker-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Hand a job to whichever worker is free."""
        self._inbox.put(job)

    def troubles(self) -> list[str]:
        """From any thread: workers that have ended or hang."""
        now = time.monotonic()
        stuck = [name for name, since in list(self._busy.items()) if now - since > _STUCK_SECONDS]
        return [*dead(self._threads), *(f"{name}: on one event for more than {_STUCK_SECONDS} s" for name in stuck)]

    def recall(self) -> list[Job]:
        """Take back every job that no worker has begun; these are not reported."""
        jobs = [*_drained(self._opened), *_drained(self._inbox)]
        for job in jobs:
            job.opened = None
        return jobs

    def close(self) -> None:
        """End the workers after the jobs they have begun; those that hang on are left to the end of the process."""
        self.recall()
        for _ in self._threads:
            self._inbox.put(None)
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))

    def _work(self, report: Callable[[Job], None]) -> None:
        handler = self._make_handler()
        try:
            while (job := self._next(handler)) is not None:
                if job.lost:
                    job.opened = None
                elif not self._do(job, handler):
                    # A connection that an exception has left in an unknown state is not used again.
                    with contextlib.suppress(Exception):
                        handler.close()
                    handler = self._make_handler()
                report(job)
        finally:
            handler.close()

    def _next(self, handler: Handles) -> Job | None:
        """The next job, opened together with those that came with it: they are the next of the other workers."""
        with self._turn:
            with contextlib.suppress(queue.Empty):
                return self._opened.get_nowait()
            first = self._inbox.get()
            if first is None:
                return None
            others = _drained(self._inbox, most=_MOST_TOGETHER - 1)
            with self._busy_now():
                self._open([first, *others], handler)
            for job in others:
                self._opened.put(job)
            return first

    def _open(self, jobs: Sequence[Job], handler: Handles) -> None:
        jobs = [job for job in jobs if not job.lost and not is_poison(job.delivery.counters)]
        # The one that a bug fails for is met again when its worker opens it alone.
        with contextlib.suppress(Exception):
            began = time.perf_counter()
            all_opened = handler.open([job.delivery for job in jobs])
            share = (time.perf_counter() - began) / max(1, len(jobs))
            for job, opened in zip(jobs, all_opened, strict=True):
                job.opened, job.seconds = opened, share

    def _do(self, job: Job, handler: Handles) -> bool:
        """Fill in the answer; False when the handler failed in a way that it never should."""
        with self._busy_now():
            return self._answer(job, handler)

    @contextlib.contextmanager
    def _busy_now(self) -> Iterator[None]:
        name = threading.current_thread().name
        self._busy[name] = time.monotonic()
        try:
            yield
        finally:
            self._busy.pop(name, None)

    def _answer(self, job: Job, handler: Handles) -> bool:
        began = time.perf_counter()
        healthy, delivery = True, job.delivery
        opened, job.opened = job.opened, None  # clear text is not kept with the answer
        answer: Outcome | Hold
        if is_poison(delivery.counters):
            answer = poison(delivery.body)
        else:
            try:
                answer = handler.handle(delivery) if opened is None else handler.deliver(opened)
            except Exception as error:  # noqa: BLE001 - a bug must cost one event some minutes, not everybody the service
                healthy = False
                answer = self._failed(delivery, error)
        if isinstance(answer, Hold):
            job.hold = answer
        else:
            job.disposition = dispose(
                answer,
                delivery.counters,
                horizon=self._horizon,
                settles=self._settles,
            )
            job.messages = list(self._journal.messages(job.disposition, delivery))
        job.seconds += time.perf_counter() - began
        return healthy

    def _failed(self, delivery: Delivery, error: Exception) -> Outcome:
        outcome = unopened(delivery.body, verdict=Verdict.RETRY, reason=Reason.REFUSED, diagnostic=type(error).__name__)
        self._log.error(
            Action.INTERNAL_ERROR,
            **describe(error),
            event_id=str(outcome.header.event_id) if outcome.header else None,
            repair="report this line; the event is tried again",
        )
        return outcome


def _drained(waiting: queue.SimpleQueue[Job | None], *, most: int = sys.maxsize) -> list[Job]:
    """The jobs that wait there now, at most so many; a worker's end stays for the worker."""
    jobs: list[Job] = []
    with contextlib.suppress(queue.Empty):
        while len(jobs) < most:
            job = waiting.get_nowait()
            if job is None:
                waiting.put(None)
                break
            jobs.append(job)
    return jobs
