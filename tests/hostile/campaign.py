"""Many inputs for one parser, in blocks that a seed makes again: what they ended in, and what should never happen."""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random

from passrelay_schemas.fault import describe

FOLDER = "HOSTILE_FOLDER"
"""The environment variable that names it."""
MEMORY = Path("/dev/shm")
BLOCK = 1000
"""Inputs of one seed."""


@dataclass
class Finding:
    """An input that made a parser raise what it may not, and how to make it again."""

    parser: str
    block: int
    number: int
    error: str
    at: str
    input: str
    """Base64, for `--input`."""


@dataclass
class Block:
    """What became of one block."""

    parser: str
    seconds: float = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """How often each named error was raised; "taken" where there was none."""
    findings: list[Finding] = field(default_factory=list)


def inputs(parser: str, block: int) -> Iterator[bytes]:
    """The inputs of a block, the same each time."""
    from tests.hostile.parsers import PARSERS

    found = PARSERS[parser]
    rng = Random(f"{parser} {block}")
    for _ in range(BLOCK):
        yield found.mutate(rng, rng.choice(found.samples))


def run_block(parser: str, block: int) -> Block:
    """All inputs of one block."""
    from tests.hostile.parsers import PARSERS, run

    result, began = Block(parser), time.perf_counter()
    for number, raw in enumerate(inputs(parser, block)):
        try:
            error = run(PARSERS[parser], raw)
            result.outcomes[error.__name__ if error else "taken"] += 1
        except BaseException as error:  # a panic of a native library is none of Exception's
            if isinstance(error, KeyboardInterrupt):
                raise
            seen = describe(error)
            text = base64.b64encode(raw).decode()
            result.findings.append(Finding(parser, block, number, seen["error"], seen["at"], text))
    result.seconds = time.perf_counter() - began
    return result


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for all processes that are started inside, which need not end in good order; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="prhostile-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        before = os.environ.get(FOLDER)
        os.environ[FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(FOLDER)
            if before is not None:
                os.environ[FOLDER] = before


def campaign(work: list[tuple[str, int]], processes: int = 2) -> Iterator[tuple[tuple[str, int], Block]]:
    """Blocks as they end. Processes are started anew, not forked: the caller may have threads."""
    with scratch(), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from zip(work, pool.map(run_block, *zip(*work, strict=True), chunksize=4), strict=True)
