"""Which folders installing may close to others, and removing may delete: passrelay's own, and no others.

Own is what was not there or empty when it was closed first: then it gets a mark, which holds for all below it. Anybody
may make folders in ProgramData, so neither a folder nor a mark counts that belongs to somebody else.
"""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from passrelay_producer.windows.registry import normal
from passrelay_schemas import windows_acl
from passrelay_schemas.errors import SafetyError
from passrelay_schemas.windows_acl import ADMINISTRATORS, CONTROL, TRUSTED_INSTALLER

MARK = ".passrelay"
"""A folder, not a file: the source moves files that are no records out of the hook's folder."""


@dataclass(frozen=True)
class FolderFacts:
    """One folder as it was found."""

    path: Path
    free: bool
    """It is not there, or nothing is in it."""
    marked: bool
    """It, or one that it lies in, has a mark that belongs to nobody else."""
    others: Sequence[str] = ()
    """Who else owns it; without a mark also who else may change its access list: he could also afterwards."""
    link: bool = False
    """It leads somewhere else."""
    missing: bool = False
    """Nothing has its name."""


@dataclass(frozen=True)
class Occupied:
    """Folders of Windows and its users."""

    whole: tuple[PureWindowsPath, ...] = ()
    """With everything in them: Windows, programs, profiles."""
    itself: tuple[PureWindowsPath, ...] = ()
    """Where programs have a folder each: ProgramData."""


def controlled_by(path: Path, rights: int) -> Sequence[str]:
    """Who owns it or has any of `rights`, beside administrators and this account; nobody where it is not."""
    if sys.platform != "win32":
        return ()
    try:
        access = windows_acl.access_list(path)
    except OSError:
        return ["nobody can tell whom"] if os.path.lexists(path) else ()
    return windows_acl.strangers(access, rights, {*windows_acl.trusted_here(), TRUSTED_INSTALLER})


def look(path: Path, others: Callable[[Path, int], Sequence[str]] = controlled_by) -> FolderFacts:
    """One look; what cannot be looked into counts as another's."""
    marks = (folder / MARK for folder in (path, *path.absolute().parents))
    marked = any(mark.is_dir() and not _is_link(mark) and not others(mark, CONTROL) for mark in marks)
    try:
        with os.scandir(path) as entries:
            free = next(entries, None) is None
    except FileNotFoundError:
        free = True
    except OSError:
        free = False
    # A marked one was closed once: whoever else may change its list now was let in by an administrator, and goes again.
    return FolderFacts(
        path, free, marked, tuple(others(path, 0 if marked else CONTROL)), _is_link(path), not os.path.lexists(path)
    )


def _is_link(path: Path) -> bool:
    """A symbolic link, a junction or a mount point."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    attributes: int = getattr(found, "st_file_attributes", 0)
    return stat.S_ISLNK(found.st_mode) or bool(attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def occupied(environment: Mapping[str, str]) -> Occupied:
    """What Windows says of its own folders in every process's environment."""

    def named(*names: str) -> tuple[PureWindowsPath, ...]:
        return tuple(PureWindowsPath(environment[name]) for name in names if environment.get(name))

    profiles = tuple(path.parent for path in named("PUBLIC"))
    programs = named("SystemRoot", "ProgramFiles", "ProgramW6432", "ProgramFiles(x86)", "USERPROFILE")
    return Occupied(profiles + programs, named("ProgramData"))


def top(path: PurePath, others: Iterable[PurePath]) -> bool:
    """None of the others contains it, so it needs a mark of its own."""
    return not any(within(path, other) and not within(other, path) for other in others)


def why_not(folder: FolderFacts, taken: Occupied) -> str:
    """Why it is not passrelay's; empty when it is."""
    path = folder.path
    whole = PureWindowsPath(normal(path))
    if whole.drive and len(whole.parts) == 1:
        return f"{path} is a whole drive: put producer.toml and what it names into folders of their own"
    if not whole.is_absolute():
        return f"{path} is no whole path: name it with its drive"
    theirs = next((one for one in taken.whole if within(path, one) or within(one, path)), None)
    theirs = theirs or next((one for one in taken.itself if within(one, path)), None)
    if theirs is not None:
        return f"{path} is Windows' or a user's ({theirs}): take a folder of passrelay's own, as below C:\\ProgramData"
    if folder.link:
        return f"{path} is a link: name the folder that it leads to"
    if folder.others and folder.marked:
        return (
            f"{path} belongs to others ({', '.join(folder.others)}) although it has the mark: look at what is in it, "
            f'then `icacls "{path}" /setowner *{ADMINISTRATORS}`'
        )
    if folder.others:
        return (
            f"{path} belongs to others ({', '.join(folder.others)}), who could open it again: delete it with what they "
            "put into it, and this makes it anew; or take another"
        )
    if not folder.free and not folder.marked:
        return (
            f"{path} was there before passrelay, and something is in it: take an empty folder; or, if everything in it "
            f"is passrelay's, make a folder {MARK} in it that belongs to Administrators"
        )
    return ""


def check_again(path: Path, *, new: bool = False, others: Callable[[Path, int], Sequence[str]] = controlled_by) -> None:
    """At the act, what `why_not` has looked at for the plan: SafetyError when another took its place meanwhile.

    `new`: nothing had its name then.
    """
    found = look(path, others)
    if new and not found.missing:
        what = "came into being"
    elif found.link:
        what = "became a link"
    elif found.others:
        what = f"came to belong to others ({', '.join(found.others)})"
    else:
        return
    raise SafetyError(f"folder {path}: it {what} while this ran: look who did that, take it away, and run this again")


def within(path: PurePath, folder: PurePath) -> bool:
    """It is the folder, or lies in it."""
    return PureWindowsPath(normal(path)).is_relative_to(PureWindowsPath(normal(folder)))
