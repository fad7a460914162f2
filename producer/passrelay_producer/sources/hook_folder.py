"""The hook's folder: which files are whole records to take, which wait, and which are moved away (docs/windows.md)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from passrelay_schemas.errors import MalformedError, UnavailableError
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.hook_record import BYTES, HookRecord, TornError

NEW_SECONDS = 60
"""A `.new` file of this age is no longer being written: LSASS was ended, or could not rename it."""
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{8})-([0-9a-f]{8})\.(record|new)", re.IGNORECASE)
QUARANTINE = "quarantine"


class Why(StrEnum):
    """Why a file was moved away; a metric's label."""

    TORN = "torn"  # not whole: a crash in the middle of a write, or a damaged disk
    FOREIGN = "foreign"  # not a record, or one of another domain or producer
    NO_ACCOUNT = "no_account"  # the domain has no account of this RID


@dataclass(frozen=True, order=True)
class RecordName:
    """A file's name and what it says; names in order are records in order."""

    filetime: int
    rid: int
    sequence: int
    name: str

    @classmethod
    def parse(cls, name: str) -> RecordName | None:
        """None for any other file's name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        filetime, rid, sequence = (int(part, 16) for part in match.groups()[:3])
        return cls(filetime, rid, sequence, name)

    @property
    def whole(self) -> bool:
        """The hook has finished it."""
        return self.name.lower().endswith(".record")


@dataclass(frozen=True)
class Listing:
    """What is in the folder, by name."""

    records: list[RecordName]
    """To take, in their order."""
    strangers: list[str]
    """Files that are not the hook's."""
    unfinished: list[str]
    """`.new` files that may still be written."""

    @property
    def names(self) -> set[str]:
        """All of them."""
        return {*self.strangers, *self.unfinished, *(record.name for record in self.records)}


class ForeignError(Exception):
    """No record of this domain and producer; the message says why."""


class HeldError(Exception):
    """This file cannot be read or moved now, the others may; the message says why."""


class HookFolder:
    """Reads, deletes and moves. UnavailableError when the folder cannot be used: its files wait."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(self, now: int) -> Listing:
        """The files in it; `now` is a FILETIME."""
        taken: list[RecordName] = []
        foreign: list[str] = []
        unfinished: list[str] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    parsed = RecordName.parse(entry.name)
                    if parsed is None:
                        if not entry.is_dir(follow_symlinks=False):
                            foreign.append(entry.name)
                    elif parsed.whole or parsed.filetime + NEW_SECONDS * UNITS_PER_SECOND < now:
                        taken.append(parsed)
                    else:
                        unfinished.append(entry.name)
        except OSError as error:
            raise UnavailableError(
                f"[source.hook] folder {self.path}: {error.strerror}: is it the Folder of the hook's registry key, and "
                "may this account read it?"
            ) from None
        return Listing(sorted(taken), sorted(foreign), unfinished)

    def quarantined(self) -> int:
        """How many files lie in quarantine. UnavailableError when that cannot be told."""
        folder = self.path / QUARANTINE
        try:
            return sum(1 for _ in folder.iterdir())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise UnavailableError(
                f"[source.hook] folder {folder}: {error.strerror}: may this account read it?"
            ) from None

    def read(self, name: RecordName) -> HookRecord | None:
        """The record; None when the file is gone. TornError, ForeignError, HeldError (try again)."""
        path = self.path / name.name
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ForeignError("it is not a regular file")
            with path.open("rb") as source:
                raw = source.read(BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HeldError(
                f"it cannot be read ({error.strerror}): does a scanner hold it, may this account?"
            ) from None
        try:
            return HookRecord.parse(raw)
        except TornError:
            raise
        except MalformedError as error:
            raise ForeignError(str(error)) from None

    def delete(self, names: Iterable[str]) -> dict[str, str]:
        """Delete files whose events are durable; those that cannot be deleted now, and why (a scanner holds them)."""
        left = {}
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                left[name] = str(error.strerror)
        return left

    def quarantine(self, name: str) -> Path:
        """Move a file away, never over another one; where it is now. HeldError: it stays."""
        folder = self.path / QUARANTINE
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            target = folder / name
            number = 0
            while target.exists():
                number += 1
                target = folder / f"{name}.{number}"
            (self.path / name).rename(target)
        except OSError as error:
            raise HeldError(
                f"it cannot be moved to {folder} ({error.strerror}): may this account write there?"
            ) from None
        return target
