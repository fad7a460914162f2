"""Publisher confirms (AMQP 0-9-1 extension): which published message is safe, and which came back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Token = TypeVar("Token")

LONGEST_UNCONFIRMED_SECONDS = 60
"""A cluster's node that was cut off may never confirm what it took; what is published anew is at worst a duplicate."""


@dataclass(frozen=True)
class Settled(Generic[Token]):
    """What one confirm settled: tokens that are safe on the broker, and tokens that are not."""

    safe: tuple[Token, ...]
    failed: tuple[Token, ...]


class ConfirmTracker(Generic[Token]):
    """Matches delivery tags to tokens on one confirming channel; pure, touches no channel.

    An unroutable mandatory message is returned first and then *acked*: a returned message id counts as failed. Where
    messages with one id are open together (an event's record and its retry), the return does not say which came back,
    so all of them fail: published twice is harmless, lost is not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 1
        self._open: dict[int, tuple[str, Token, float]] = {}
        self._returned: set[int] = set()

    def __len__(self) -> int:
        return len(self._open)

    def overdue(self, takes_since: float, *, times: int = 1) -> bool:
        """A confirm has not come for so many times the longest wait, counted from when the broker takes messages."""
        oldest = next(iter(self._open.values()), None)
        return oldest is not None and self._clock() - max(oldest[2], takes_since) > times * LONGEST_UNCONFIRMED_SECONDS

    def published(self, message_id: str, token: Token) -> None:
        """To be called once after each basic_publish, in the same order."""
        self._open[self._next] = (message_id, token, self._clock())
        self._next += 1

    def returned(self, message_id: str) -> None:
        """basic.return: the broker had no queue for it."""
        self._returned.update(tag for tag, (known, _, _) in self._open.items() if known == message_id)

    def confirmed(self, delivery_tag: int, *, multiple: bool, ack: bool) -> Settled[Token]:
        """basic.ack or basic.nack."""
        if multiple:  # tags rise
            tags = list(itertools.takewhile(delivery_tag.__ge__, self._open))
        else:
            tags = [delivery_tag] if delivery_tag in self._open else []
        safe, failed = [], []
        for tag in tags:
            _, token, _ = self._open.pop(tag)
            if ack and tag not in self._returned:
                safe.append(token)
            else:
                failed.append(token)
            self._returned.discard(tag)
        return Settled(tuple(safe), tuple(failed))

    def lost(self) -> tuple[Token, ...]:
        """The channel closed: everything open is undecided, so it counts as not published."""
        tokens = tuple(token for _, token, _ in self._open.values())
        self._open.clear()
        self._returned.clear()
        return tokens
