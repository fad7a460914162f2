"""Which folders installing may close to others, and removing may delete: passrelay's own, and no others.

Own is what was not there or empty when it was closed first: then it gets a mark, which holds for all below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from passrelay_producer.windows.registry import normal

MARK = ".passrelay"
"""A folder, not a file: the source moves files that are no records out of the hook's folder."""


@dataclass(frozen=True)
class FolderFacts:
    """One folder as it was found."""

    path: Path
    free: bool
    """It is not there, or nothing is in it."""
    marked: bool
    """It, or one that it lies in, has the mark."""


@dataclass(frozen=True)
class Occupied:
    """Folders of Windows and its users."""

    whole: tuple[PureWindowsPath, ...] = ()
    """With everything in them: Windows, programs, profiles."""
    itself: tuple[PureWindowsPath, ...] = ()
    """Where programs have a folder each: ProgramData."""


def look(path: Path) -> FolderFacts:
    """One look; what cannot be looked into counts as another's."""
    marked = any((folder / MARK).is_dir() for folder in (path, *path.absolute().parents))
    try:
        with os.scandir(path) as entries:
            free = next(entries, None) is None
    except FileNotFoundError:
        free = True
    except OSError:
        free = False
    return FolderFacts(path, free, marked)


def occupied(environment: Mapping[str, str]) -> Occupied:
    """What Windows says of its own folders in every process's environment."""

    def named(*names: str) -> tuple[PureWindowsPath, ...]:
        return tuple(PureWindowsPath(environment[name]) for name in names if environment.get(name))

    profiles = tuple(path.parent for path in named("PUBLIC"))
    programs = named("SystemRoot", "ProgramFiles", "ProgramW6432", "ProgramFiles(x86)", "USERPROFILE")
    return Occupied(profiles + programs, named("ProgramData"))


def top(path: PurePath, others: Iterable[PurePath]) -> bool:
    """None of the others contains it, so it needs a mark of its own."""
    return not any(_within(path, other) and not _within(other, path) for other in others)


def why_not(folder: FolderFacts, taken: Occupied) -> str:
    """Why it is not passrelay's; empty when it is."""
    path = folder.path
    whole = PureWindowsPath(normal(path))
    if whole.drive and len(whole.parts) == 1:
        return f"{path} is a whole drive: put producer.toml and what it names into folders of their own"
    if not whole.is_absolute():
        return f"{path} is no whole path: name it with its drive"
    theirs = next((one for one in taken.whole if _within(path, one) or _within(one, path)), None)
    theirs = theirs or next((one for one in taken.itself if _within(one, path)), None)
    if theirs is not None:
        return f"{path} is Windows' or a user's ({theirs}): take a folder of passrelay's own, as below C:\\ProgramData"
    if not folder.free and not folder.marked:
        return (
            f"{path} was there before passrelay, and something is in it: take an empty folder; or, if everything in it "
            f"is passrelay's, make a folder {MARK} in it"
        )
    return ""


def _within(path: PurePath, folder: PurePath) -> bool:
    """It is the folder, or lies in it."""
    return PureWindowsPath(normal(path)).is_relative_to(PureWindowsPath(normal(folder)))
