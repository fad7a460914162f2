"""The hook's files on a disk that fails as no disk of the lab can: its own code, with Windows' calls answered here."""

from __future__ import annotations

import ctypes
import itertools
import shutil
from collections import Counter
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import pytest

from tests.lab.process import run_tool
from tests.windows.hook_build import SOURCE

_OURS = Path(__file__).parent / "native" / "disk"
_FOLDER_UNITS, _RECORD_BYTES, _SLOTS = 180, 801, 256
_GOOD, _NOT_FOUND, _DENIED, _NOT_READY, _HELD, _FULL, _EXISTS, _IO_DEVICE = 0, 2, 5, 21, 32, 112, 183, 1117
_CREATE_NEW, _OPEN_EXISTING, _TO_THE_DISK = 1, 3, 8
_NO_TROUBLE, _GONE = 0, 13
_TEXT = POINTER(c_uint16)


class _Outcome(Structure):
    _fields_ = (("trouble", c_int), ("error", c_uint32))


class _Stored(Structure):
    _fields_ = (("outcome", _Outcome), ("detour", _Outcome), ("unnamed", _Outcome), ("slots_changed", c_int))


def _text(path: Any) -> str:
    return "".join(map(chr, itertools.takewhile(bool, (path[at] for at in itertools.count()))))


class Disk:
    """Files by name in memory, and for each call the error with which it fails instead."""

    def __init__(self, library: ctypes.CDLL, folder: str) -> None:
        self.files: set[str] = set()
        self.fails: dict[str, Callable[[str], int]] = {}
        """By call (`create`, `open`, `move`, `name`, `look`): the error for a path; 0 to go on."""
        self.calls: Counter[str] = Counter()
        self._library = library
        self._folder = (c_uint16 * _FOLDER_UNITS)(*map(ord, folder))
        self._kept = {
            "open": CFUNCTYPE(c_uint32, _TEXT, c_uint32)(self._open),
            "write": CFUNCTYPE(c_uint32, c_uint32)(lambda _: _GOOD),
            "flush": CFUNCTYPE(c_uint32)(lambda: _GOOD),
            "close": CFUNCTYPE(c_uint32, c_uint32)(lambda _: _GOOD),
            "delete": CFUNCTYPE(c_uint32, _TEXT)(self._delete),
            "move": CFUNCTYPE(c_uint32, _TEXT, _TEXT, c_uint32)(self._move),
            "look": CFUNCTYPE(c_uint32, _TEXT)(self._look),
        }
        for name, call in self._kept.items():
            c_void_p.in_dll(library, f"disk_{name}").value = ctypes.cast(call, c_void_p).value
        library.store_write.restype = _Stored
        library.store_write.argtypes = (c_void_p, c_void_p, c_uint64, c_uint32)
        library.store_probe.restype = _Outcome
        library.slots_prepare(self._folder)

    def write(self) -> _Stored:
        """A record; what is counted begins anew."""
        self.calls.clear()
        c_uint64.in_dll(self._library, "disk_time").value = 10**9
        found: _Stored = self._library.store_write(self._folder, bytes(_RECORD_BYTES), 10**9, 1105)
        return found

    def probe(self) -> _Outcome:
        """The look at the start."""
        found: _Outcome = self._library.store_probe(self._folder)
        return found

    @property
    def records(self) -> list[str]:
        """Files that the source takes, now or when they are old enough."""
        return sorted(name for name in self.files if name.endswith((".new", ".record")))

    @property
    def slots(self) -> int:
        return sum("slots" in name for name in self.files)

    def _failure(self, call: str, path: str) -> int:
        self.calls[call] += 1
        return self.fails[call](path) if call in self.fails else _GOOD

    def _open(self, path: Any, creation: int) -> int:
        name = _text(path)
        if failed := self._failure("create" if creation != _OPEN_EXISTING else "open", name):
            return failed
        if creation == _CREATE_NEW and name in self.files:
            return _EXISTS
        if creation == _OPEN_EXISTING and name not in self.files:
            return _NOT_FOUND
        self.files.add(name)
        return _GOOD

    def _delete(self, path: Any) -> int:
        name = _text(path)
        if name not in self.files:
            return _NOT_FOUND
        self.files.remove(name)
        return _GOOD

    def _move(self, source: Any, target: Any, flags: int) -> int:
        name, final = _text(source), _text(target)
        if failed := self._failure("name" if flags & _TO_THE_DISK else "move", name):
            return failed
        if name not in self.files:
            return _NOT_FOUND
        if final in self.files:
            return _EXISTS
        self.files.remove(name)
        self.files.add(final)
        return _GOOD

    def _look(self, path: Any) -> int:
        name = _text(path)
        return self._failure("look", name) or (_GOOD if name in self.files else _NOT_FOUND)


@pytest.fixture(scope="module")
def compiled(windows_folder: Path) -> ctypes.CDLL:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: `./run test --only windows` installs it, as root")
    library = windows_folder / "files.so"
    run_tool(
        [
            *(
                "gcc",
                "-std=gnu11",
                "-D_WIN32",
                "-fshort-wchar",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
                "-fPIC",
            ),
            *(
                "-shared",
                "-fPIC",
                "-fsanitize=undefined",
                "-fno-sanitize-recover=all",
                "-static-libubsan",
                "-o",
                library,
            ),
            *(f"-I{_OURS}", f"-I{SOURCE}"),
            *(SOURCE / f"{name}.c" for name in ("bytes", "hpke", "path", "record", "slots", "store")),
            *(_OURS / "disk.c", _OURS.parent / "primitives.c"),
        ]
    )
    return ctypes.CDLL(str(library))


@pytest.fixture
def disk(compiled: ctypes.CDLL, tmp_path: Path) -> Disk:
    return Disk(compiled, f"C:\\{tmp_path.name}")  # another folder each time: the hook remembers its slots


def _always(error: int) -> Callable[[str], int]:
    return lambda _: error


def test_a_record_has_its_place(disk: Disk) -> None:
    assert disk.slots == _SLOTS
    assert disk.write().outcome.trouble == _NO_TROUBLE
    assert [name.endswith(".record") for name in disk.records] == [True]


@pytest.mark.parametrize("error", [_HELD, _DENIED])
def test_slots_that_others_hold_are_passed_over(disk: Disk, error: int) -> None:
    disk.fails = {"create": _always(_FULL), "move": lambda path: 0 if path.endswith("007.slot") else error}
    assert disk.write().outcome.trouble == _NO_TROUBLE
    assert len(disk.records) == 1


@pytest.mark.parametrize("error", [_NOT_READY, 3, 19, 55, 121, 170, _EXISTS, _IO_DEVICE, 1392])
def test_a_disk_that_fails_is_not_asked_for_each_slot(disk: Disk, error: int) -> None:
    """Each answer may take its time-out, and LSASS's other threads wait behind it."""
    disk.fails = {"create": _always(error), "move": _always(error)}
    assert disk.write().outcome.trouble != _NO_TROUBLE
    assert disk.calls["move"] == 1


def test_a_slot_that_fails_on_the_disk_costs_no_other(disk: Disk) -> None:
    disk.fails = {"create": _always(_IO_DEVICE), "open": _always(_IO_DEVICE)}
    assert disk.write().outcome.trouble != _NO_TROUBLE
    assert disk.slots == _SLOTS - 1


@pytest.mark.parametrize("error", [_NOT_READY, _IO_DEVICE])
def test_a_disk_that_is_away_for_a_moment_keeps_the_record_once(disk: Disk, error: int) -> None:
    disk.fails = {"name": _always(error), "look": _always(error)}
    stored = disk.write()
    assert (stored.outcome.trouble, stored.unnamed.error) == (_NO_TROUBLE, error)
    assert len(disk.records) == 1


@pytest.mark.parametrize("error", [_NOT_FOUND, _DENIED, 303])
def test_a_file_that_somebody_takes_away_is_written_once_more(disk: Disk, error: int) -> None:
    def take(path: str) -> int:
        disk.files.discard(path)
        return _NOT_FOUND

    disk.fails = {"name": take, "look": _always(error)}
    assert disk.write().outcome.trouble == _GONE
    assert disk.calls["create"] == 2


def test_a_probe_that_the_source_takes_away_is_made_again(disk: Disk) -> None:
    taken: list[str] = []

    def take(path: str) -> int:
        if taken:
            return _GOOD
        taken.append(path)
        disk.files.discard(path)
        return _NOT_FOUND

    disk.fails = {"name": take}
    assert disk.probe().trouble == _NO_TROUBLE
    assert len(taken) == 1
