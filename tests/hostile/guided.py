"""One parser under libFuzzer: `python -m tests.hostile.guided PARSER RUNS FOLDER`.

It ends with 0, or at the first finding, and leaves its inputs in the folder, which must be there.

Our own mutations make the inputs, from what libFuzzer keeps because it has reached new code.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from random import Random
from typing import Any

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(
    include=["passrelay_schemas", "passrelay_consumer", "passrelay_producer", "passrelay_ops"]
):
    from tests.hostile.mutations import mutate_bytes
    from tests.hostile.parsers import PARSERS, run

_MOST_BYTES = 120_000


def main(name: str, runs: str, folder: Path) -> None:
    """Ends the process, without Python's own end."""
    parser = PARSERS[name]
    for number, sample in enumerate(parser.samples):
        (folder / str(number)).write_bytes(sample)

    def mutate(raw: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        base = raw if rng.random() < 0.8 else rng.choice(parser.samples)
        with contextlib.suppress(Exception):  # what libFuzzer kept need not have a structure any more
            return parser.mutate(rng, base)[:most]
        return mutate_bytes(rng, base)[:most]

    options = [f"-runs={runs}", f"-max_len={_MOST_BYTES}", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(folder)], lambda raw: run(parser, raw), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
