"""SIGKILL at any moment: what the DLL had returned from is on the disk, whole, and opens."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener
from tests.lab.folder import CANARY
from tests.windows.harness import Harness
from tests.windows.records import is_whole, open_all, open_record, records

_THREADS, _FIRST = 8, 2000
_KILLS = int(os.environ.get("LAB_KILLS", "6"))


def test_a_kill_between_any_two_steps_loses_nothing_that_was_returned_from(
    start_harness: Callable[[], Harness], recipient: tuple[KeyDocument, Opener], spool: Path, opener: Opener
) -> None:
    chance = random.Random(4711)
    for _ in range(_KILLS):
        harness = start_harness()
        harness.configure(recipient[0], spool)
        assert harness.initialize()
        harness.send("many", _THREADS, 2000, _FIRST)
        after = chance.randrange(1, 150)
        while len(harness.made) < after:
            assert harness.read_line() is not None
        harness.kill()

        found = {captured.password for captured in open_all(spool, opener)}  # a torn record would raise
        returned = {f"{CANARY}-{rid}-{n}" for rid, n in harness.made}
        assert returned <= found
        assert len(found) <= len(returned) + 2 * _THREADS
        under_way = list(spool.glob("*.new"))
        assert len(under_way) <= _THREADS
        for path in under_way:
            raw = path.read_bytes()
            if is_whole(raw):  # the source takes it: AD had committed that change
                assert open_record(raw, opener).password.startswith(f"{CANARY}-")
        for path in [*records(spool), *under_way]:
            path.unlink()
