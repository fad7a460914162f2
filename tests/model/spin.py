"""Runs spin: model to C, C to a program in a temporary folder, the program to its end, its trail to lines."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
_DEPTH = 2_000_000
"""The longest path that the depth-first search may follow, in steps of the model."""
_HASH_BITS = 20
"""The size of the hash table at first; it grows."""
_STATES = re.compile(r"^ *([\d.e+]+) states, stored", re.MULTILINE)
_DEPTH_REACHED = re.compile(r"depth reached (\d+), errors: (\d+)")
_FAULT = re.compile(r"^pan:\d+: (.*?)(?: \(at depth .*)?$", re.MULTILINE)
_INCOMPLETE = ("Search not completed", "max search depth too small")
_STEP = re.compile(r"^(?:[@#] .*|<<<<<START OF CYCLE>>>>>)$", re.MULTILINE)


class MissingProgramError(Exception):
    """spin or a C compiler is not installed."""


class SpinError(Exception):
    """The model, or what spin makes of it, is broken."""


@dataclass(frozen=True)
class Result:
    """What one search showed."""

    states: int
    depth: int
    complete: bool
    """Every reachable state was visited. False after a fault, and where memory or depth did not suffice."""
    fault: str | None
    """spin's own words for what it found wrong; None when nothing was."""
    trail: tuple[str, ...] = ()
    """The lines that the model prints on the way to the fault."""


def search(
    model: str, defines: tuple[str, ...], *, shortest: bool = False, memory_mb: int = 2048, fast: bool = False
) -> Result:
    """Search one model file for broken assertions, runs that get stuck and, once nothing fails any more, endless runs.

    `shortest` searches breadth first instead: the trail is the shortest one, but endless runs are not looked for, and
    it takes far more memory. `fast` lets gcc optimise, which
    takes longer than a small search itself. Raises MissingProgramError and SpinError.
    """
    programs = {name: shutil.which(name) for name in ("spin", "gcc")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        raise MissingProgramError(f"{' and '.join(missing)} not found: apt-get install spin gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="passrelay-model-") as folder:
        flags = [f"-D{name}" for name in (*defines, *(["SHORTEST"] if shortest else []))]
        made = _run(folder, "spin", *flags, "-a", str(FOLDER / model))
        if not (Path(folder) / "pan.c").exists() or "Error" in made:
            raise SpinError(f"{model} {' '.join(flags)}: {made.strip()}")
        kind = ["-DBFS", "-DSAFETY"] if shortest else []
        compiled = _run(
            folder, "gcc", "-O2" if fast else "-O0", "-w", *kind, f"-DMEMLIM={memory_mb}", "-o", "pan", "pan.c"
        )
        if not (Path(folder) / "pan").exists():
            raise SpinError(f"{model}: gcc could not compile what spin made: {compiled.strip()}")
        told = _run(folder, "./pan", f"-w{_HASH_BITS}", *([] if shortest else ["-a", f"-m{_DEPTH}"]))
        return _result(told, Path(folder))


def _result(told: str, folder: Path) -> Result:
    states, depth = _STATES.search(told), _DEPTH_REACHED.search(told)
    if states is None or depth is None:
        raise SpinError(f"the search did not report: {told.strip()[-400:]}")
    trails = sorted(folder.glob("*.trail"))
    fault = _FAULT.search(told)
    trail = tuple(_STEP.findall(_run(str(folder), "./pan", "-r", trails[0].name))) if trails else ()
    return Result(
        states=int(float(states[1])),
        depth=int(depth[1]),
        complete=not any(words in told for words in _INCOMPLETE),
        fault=(fault[1] if fault else "a fault without a name") if depth[2] != "0" else None,
        trail=trail,
    )


def _run(folder: str, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
