"""The DLL as it is released, and the programs of ours that call it under wine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.lab.process import MissingServerError, run_tool

SOURCE = Path(__file__).resolve().parents[2] / "producer" / "windows_hook"
DLL = "passrelay-hook.dll"
_OURS = Path(__file__).parent / "wine"
_COMPILER = "x86_64-w64-mingw32-gcc"


@dataclass(frozen=True)
class Built:
    """A folder with the DLL and the harness; the stand-in for bcrypt.dll lies in a folder of its own."""

    folder: Path

    @property
    def dll(self) -> Path:
        return self.folder / DLL

    @property
    def harness(self) -> Path:
        return self.folder / "harness.exe"

    @property
    def harness_beside_stand_in(self) -> Path:
        return self.folder / "stand-in" / "harness.exe"


def build_dll(folder: Path, source: Path = SOURCE) -> Path:
    """The release build; MissingServerError without Debian's compiler for Windows."""
    if shutil.which(_COMPILER) is None:
        raise MissingServerError(f"{_COMPILER} is not installed: `./run test --only windows` installs it, as root")
    run_tool([source / "build", folder])
    return folder / DLL


def build_all(folder: Path) -> Built:
    """DLL, harness, and the stand-in that wine 8 needs."""
    built = Built(folder)
    build_dll(folder)
    _compile(built.harness, "harness.c")
    built.harness_beside_stand_in.parent.mkdir()
    shutil.copy(built.harness, built.harness_beside_stand_in)
    _compile(built.harness_beside_stand_in.with_name("bcrypt.dll"), "bcrypt.c", "bcrypt.def", "-shared")
    return built


def compile_stand_in(out: Path, source: str) -> None:
    """A DLL that some wine lacks, out of one file of ours."""
    if shutil.which(_COMPILER) is None:
        raise MissingServerError(f"{_COMPILER} is not installed: `./run test --only windows` installs it, as root")
    _compile(out, source, "-shared", "-ladvapi32")


def _compile(out: Path, *parts: str) -> None:
    # Libraries after what needs them.
    names = [part if part.startswith("-") else _OURS / part for part in sorted(parts, key=lambda one: one[:2] == "-l")]
    run_tool([_COMPILER, "-O2", "-Wall", "-Wextra", "-Werror", "-o", out, *names])
