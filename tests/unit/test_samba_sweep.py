"""Whom the filter left out is looked at again: the latest at once, all of them in parts, nobody forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast
from uuid import UUID

from passrelay_producer.sources import Page
from passrelay_producer.sources.samba_reader import REST, Sweep
from passrelay_producer.sources.samba_scope import LOOK_ACCOUNTS


class Rig:
    """A sweep over these accounts, and who was looked at in each part."""

    def __init__(self, count: int) -> None:
        self.left_out = [UUID(int=number) for number in range(count, 0, -1)]
        self.looks: list[list[UUID]] = []
        self.sweep = Sweep(cast("Any", self), cast("Any", self))

    def excluded(self, limit: int | None = None) -> list[UUID]:
        return self.left_out[:limit]

    def come_in(self, guids: Sequence[UUID]) -> Iterator[Page]:
        self.looks.append(list(guids))
        yield from ()

    def part(self) -> list[UUID]:
        """The next part; empty when there is none now."""
        seen = len(self.looks)
        list(self.sweep.pages())
        return [guid for look in self.looks[seen:] for guid in look]


def test_at_the_start_the_latest_are_looked_at_and_then_all_in_parts() -> None:
    rig = Rig(2 * LOOK_ACCOUNTS + 7)
    assert rig.part() == rig.left_out[:LOOK_ACCOUNTS]
    found = [rig.part() for _ in range(3)]
    assert [len(part) for part in found] == [LOOK_ACCOUNTS, LOOK_ACCOUNTS, 7]
    assert [guid for part in found for guid in part] == rig.left_out
    assert rig.part() == []


def test_a_new_user_does_not_wait_for_what_is_under_way_nor_for_the_rest_after_it(monkeypatch: Any) -> None:
    clock = [100.0]
    monkeypatch.setattr("passrelay_producer.sources.samba_reader.time.monotonic", lambda: clock[0])
    rig = Rig(2 * LOOK_ACCOUNTS)
    rig.part()
    rig.part()
    new = UUID(int=9999)
    rig.left_out.insert(0, new)
    rig.sweep.want()
    assert rig.part()[0] == new
    assert new not in rig.part()  # the second half of what was under way

    # What was under way took no time by this clock; after work that does, everybody else waits for the rest.
    assert rig.part()[0] == new
    look = rig.come_in

    def slow(guids: Sequence[UUID]) -> Iterator[Page]:
        clock[0] += 1
        return look(guids)

    monkeypatch.setattr(rig, "come_in", slow)
    assert [len(rig.part()) for _ in range(3)] == [LOOK_ACCOUNTS, 1, 0]
    newer = UUID(int=10_000)
    rig.left_out.insert(0, newer)
    rig.sweep.want()
    assert rig.part()[0] == newer
    assert rig.part() == []
    clock[0] += REST * 2 + 1
    assert rig.part()[0] == newer
