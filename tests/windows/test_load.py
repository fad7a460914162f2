"""Eight threads at once, as on a domain controller at nine in the morning."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from passrelay_schemas.sealing import Opener
from tests.lab.folder import CANARY
from tests.windows.harness import Harness
from tests.windows.records import open_all

_THREADS, _FIRST = 8, 2000
_EACH = int(os.environ.get("LAB_EVENTS", "2000")) // _THREADS
"""Of one thread; LAB_EVENTS are all together."""


def test_eight_threads_lose_nothing_and_mix_nothing_up(hook: Harness, spool: Path, opener: Opener) -> None:
    print(hook.ask("many", _THREADS, _EACH, _FIRST))
    captured = open_all(spool, opener)
    assert len(hook.made) == _THREADS * _EACH
    assert Counter(one.password for one in captured) == Counter(f"{CANARY}-{rid}-{n}" for rid, n in hook.made)
    assert all(one.password.startswith(f"{CANARY}-{one.rid}-") for one in captured)
    assert hook.lost == 0


def test_the_records_of_one_account_are_in_the_order_of_its_changes(hook: Harness, spool: Path, opener: Opener) -> None:
    hook.ask("many", 4, 50, _FIRST)
    for rid in range(_FIRST, _FIRST + 4):
        numbers = [int(one.password.rpartition("-")[2]) for one in open_all(spool, opener) if one.rid == rid]
        assert numbers == list(range(50))


def test_every_record_has_its_own_key_and_one_size(hook: Harness, spool: Path) -> None:
    hook.ask("many", 2, 50, _FIRST)
    raw = [path.read_bytes() for path in spool.glob("*.record")]
    assert len({content[160:225] for content in raw}) == 100
    assert {len(content) for content in raw} == {801}
