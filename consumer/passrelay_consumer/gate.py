"""Which deliveries the workers get: all as they come, but a suspect one only with nothing else in work."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Protocol

from passrelay_consumer.disposition import is_suspect
from passrelay_consumer.pool import Job


class TakesJobs(Protocol):
    """What works on jobs: the pool."""

    def submit(self, job: Job) -> None:
        """Begin soon."""

    def recall(self) -> list[Job]:
        """Take back what has not begun."""


class Gate:
    """Between channel and pool; used by the channel's thread only.

    A job is in work from its submission until it is settled, even when its channel is lost meanwhile: its worker may
    still be busy with it.
    """

    def __init__(self, pool: TakesJobs) -> None:
        self._pool = pool
        self._waiting: deque[Job] = deque()
        self._suspects: list[Job] = []
        self._in_work: set[Job] = set()
        self._alone: Job | None = None

    @property
    def one_alone(self) -> bool:
        """From any thread: a suspect is in work, and nothing else may be."""
        return self._alone in self._in_work

    def arrived(self, job: Job) -> None:
        """A new delivery."""
        if is_suspect(job.delivery.counters):
            self._suspects.append(job)
        else:
            self._waiting.append(job)
        self.feed()

    def answered(self, job: Job) -> None:
        """Its worker is done with it."""
        job.answered = True
        if job.lost:
            self._in_work.discard(job)

    def settled(self, job: Job) -> None:
        """It was acked or given back; to be followed by `feed`."""
        self._in_work.discard(job)

    def feed(self) -> None:
        """Submit whatever may be worked on now."""
        if self._suspects and not self._in_work:
            # In random order: after a crash the whole prefetch is suspect, and those that always came behind the
            # guilty one would die with it.
            self._alone = self._suspects.pop(secrets.randbelow(len(self._suspects)))
            self._submit(self._alone)
        if self._waiting and not self._suspects and not self.one_alone:
            while self._waiting:
                self._submit(self._waiting.popleft())

    def _submit(self, job: Job) -> None:
        self._in_work.add(job)
        self._pool.submit(job)

    def withdraw(self) -> list[Job]:
        """Everything that no worker has begun, to be given back."""
        recalled = self._pool.recall()
        self._in_work.difference_update(recalled)
        idle = [job for job in (*recalled, *self._waiting, *self._suspects) if not job.lost]
        self._waiting.clear()
        self._suspects.clear()
        return idle

    def lost(self) -> None:
        """The channel is gone; the jobs are marked as lost already."""
        self._waiting.clear()
        self._suspects.clear()
        self._in_work = {job for job in self._in_work if not job.answered}
