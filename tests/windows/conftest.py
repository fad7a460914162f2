"""The DLL, wine and the harness as fixtures. Where a compiler or wine is missing, what needs it skips and says why."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from passrelay_schemas.keys import KeyDocument, KeyUse, generate
from passrelay_schemas.sealing import Opener
from tests.lab.folder import LabFolder
from tests.lab.process import MissingServerError, run_tool
from tests.lab.remark import REMARK
from tests.windows.harness import Harness
from tests.windows.hook_build import Built, build_all
from tests.windows.native_hook import NativeHook
from tests.windows.wine import Wine

_STAND_IN = ";bcrypt=n,b"

StartHarness = Callable[..., Harness]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is of the ring `windows`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("windows")


@pytest.fixture(scope="session")
def windows_folder(lab_folder: LabFolder) -> Path:
    folder = lab_folder.path / "windows"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def native(windows_folder: Path) -> NativeHook:
    try:
        return NativeHook(windows_folder)
    except MissingServerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def built(windows_folder: Path) -> Built:
    try:
        return build_all(windows_folder / "built")
    except MissingServerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def wine(windows_folder: Path) -> Iterator[Wine]:
    try:
        wine = Wine(windows_folder)
    except MissingServerError as error:
        pytest.skip(str(error))
    wine.start()
    yield wine
    wine.stop()


@pytest.fixture(scope="session")
def own_ecdh(
    request: pytest.FixtureRequest,
    wine: Wine,
    built: Built,
    recipient: tuple[KeyDocument, Opener],
    windows_folder: Path,
) -> bool:
    """True when wine's own bcrypt.dll can do ECDH: the DLL's self-test says so. wine 8 cannot."""
    folder = windows_folder / "probe"
    folder.mkdir()
    harness = Harness(wine, built.harness, built.dll, log=windows_folder / "probe.log")
    harness.start()
    try:
        harness.configure(recipient[0], folder)
        good = harness.initialize()
    finally:
        harness.close()
    whose = "its own ECDH" if good else "the tests' stand-in for ECDH (tests/windows/wine/bcrypt.c)"
    request.config.stash[REMARK] = f"The Windows DLL ran under {wine.version} with {whose}."
    return good


@pytest.fixture(scope="session")
def recipient() -> tuple[KeyDocument, Opener]:
    """The consumers' key: its public document, and the private part that opens."""
    document, private = generate(KeyUse.HOOK)
    return document, Opener(document, private)


@pytest.fixture
def opener(recipient: tuple[KeyDocument, Opener]) -> Opener:
    return recipient[1]


@pytest.fixture
def spool(windows_folder: Path) -> Path:
    """An empty folder for records."""
    folder = next(path for n in itertools.count() if not (path := windows_folder / f"spool-{n}").exists())
    folder.mkdir()
    return folder


@pytest.fixture
def start_harness(wine: Wine, built: Built, own_ecdh: bool, windows_folder: Path) -> Iterator[StartHarness]:
    """Starts a process with the DLL in it; all are ended after the test."""
    started: list[Harness] = []

    def start(wrapper: tuple[str, ...] = ()) -> Harness:
        log = next(path for n in itertools.count() if not (path := windows_folder / f"harness-{n}.log").exists())
        program, overrides = (built.harness, "") if own_ecdh else (built.harness_beside_stand_in, _STAND_IN)
        harness = Harness(wine, program, built.dll, log=log, overrides=overrides, wrapper=wrapper)
        started.append(harness)
        harness.start()
        return harness

    yield start
    for harness in started:
        harness.close()


@pytest.fixture
def hook(start_harness: StartHarness, recipient: tuple[KeyDocument, Opener], spool: Path) -> Harness:
    """A harness whose DLL is configured and has started."""
    harness = start_harness()
    harness.configure(recipient[0], spool)
    assert harness.initialize(), (harness.status("Reason"), harness.status("Error"))
    return harness


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    run_tool(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", disk])
    yield disk
    run_tool(["umount", "--lazy", disk])
