"""The DLL as a file: the same bytes from the same source, and what Windows' loader finds in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.windows.hook_build import SOURCE, Built, build_dll
from tests.windows.pe import DLL as IS_DLL
from tests.windows.pe import (
    DYNAMIC_BASE,
    EXECUTE,
    HIGH_ENTROPY_VA,
    NX_COMPAT,
    RELOCATIONS_STRIPPED,
    WRITE,
    Image,
    read_image,
)


@pytest.fixture(scope="module")
def image(built: Built) -> Image:
    return read_image(built.dll)


def test_another_build_elsewhere_at_another_time_gives_the_same_bytes(built: Built, tmp_path: Path) -> None:
    source = tmp_path / "a copy with another name" / "windows_hook"
    shutil.copytree(SOURCE, source)
    for path in source.iterdir():
        os.utime(path, (1, 1))
    again = build_dll(tmp_path / "another folder", source)
    assert again.read_bytes() == built.dll.read_bytes()


def test_it_needs_three_dlls_of_windows_and_no_c_library(image: Image) -> None:
    assert set(image.imports) == {"kernel32.dll", "advapi32.dll", "bcrypt.dll"}


def test_it_can_reach_no_network_and_start_or_wait_for_no_process(image: Image) -> None:
    names = {name for names in image.imports.values() for name in names}
    for word in (
        "Process",
        "Wait",
        "Sleep",
        "Pipe",
        "Socket",
        "Http",
        "LoadLibrary",
        "GetProcAddress",
        "Heap",
        "Alloc",
    ):
        assert {name for name in names if word in name} <= {"GetCurrentProcessId"}, word


def test_it_exports_what_lsass_calls_and_nothing_else(image: Image) -> None:
    assert image.exports == ["InitializeChangeNotify", "PasswordChangeNotify", "PasswordFilter"]


def test_it_moves_in_memory_and_never_runs_data(image: Image) -> None:
    assert image.machine == 0x8664
    assert image.characteristics & IS_DLL
    wanted = HIGH_ENTROPY_VA | DYNAMIC_BASE | NX_COMPAT
    assert image.dll_characteristics & wanted == wanted
    assert not image.characteristics & RELOCATIONS_STRIPPED
    assert image.relocation_bytes > 0
    both = WRITE | EXECUTE
    assert [name for name, flags in image.sections.items() if flags & both == both] == []


def test_no_time_goes_in_and_every_function_can_be_unwound(image: Image) -> None:
    assert image.timestamp == 0
    assert image.exception_entries > 20


def test_the_event_log_finds_its_words_in_the_dll(built: Built) -> None:
    content = built.dll.read_bytes()
    assert "was not captured".encode("utf-16-le") in content
    assert "passrelay password change notification".encode("utf-16-le") in content
