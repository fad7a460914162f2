"""What the registry says of a hardened LSASS, and of the folder that the hook writes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest

from passrelay_producer.windows import LSA_KEY, SETTINGS_KEY, machine, registry
from passrelay_producer.windows.registry import Values
from passrelay_schemas.errors import ConfigurationError, UnavailableError

POLICY = r"SOFTWARE\Policies\Microsoft\Windows\System"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, Values]:
    """The registry."""
    found: dict[str, Values] = {}
    monkeypatch.setattr(registry, "values", lambda path: found.get(path, {}))
    return found


@pytest.mark.parametrize(
    ("own", "policy", "highest"), [(None, None, 0), (1, None, 1), (None, 1, 1), (None, 2, 2), (2, 0, 2), (0, 1, 1)]
)
def test_lsass_is_hardened_by_its_own_key_or_by_a_policy(
    keys: dict[str, Values], own: int | None, policy: int | None, highest: int
) -> None:
    for path, value in ((LSA_KEY, own), (POLICY, policy)):
        if value is not None:
            keys[path] = {"RunAsPPL": (value, 4)}
    assert registry.run_as_ppl() == highest


@pytest.mark.parametrize("folder", [r"C:\Records", "c:/records/", r"C:\x\..\records"])
def test_one_folder_has_many_names(keys: dict[str, Values], folder: str) -> None:
    keys[SETTINGS_KEY] = {"Folder": (folder, 1)}
    registry.check_folder(PureWindowsPath(r"C:\records"))


def test_a_source_that_would_drain_another_folder_than_the_hooks_is_refused(keys: dict[str, Values]) -> None:
    keys[SETTINGS_KEY] = {"Folder": (r"D:\records", 1)}
    with pytest.raises(ConfigurationError, match="the hook writes to D:"):
        registry.check_folder(PureWindowsPath(r"C:\records"))


def _denied(_path: str) -> Values:
    raise UnavailableError("registry: denied")


@pytest.mark.parametrize("values", [_denied, lambda _: {}, lambda _: {"Producer": ("dc1", 1)}])
def test_where_the_hooks_folder_cannot_be_told_the_source_starts(
    monkeypatch: pytest.MonkeyPatch, values: Callable[[str], Values]
) -> None:
    monkeypatch.setattr(registry, "values", values)
    registry.check_folder(PureWindowsPath(r"C:\records"))


def test_what_waits_is_counted_in_the_hooks_folder_too_and_once_when_it_is_the_same(tmp_path: Path) -> None:
    read, written = tmp_path / "read", tmp_path / "written"
    for folder, records in ((read, 1), (written, 2)):
        (folder / "quarantine").mkdir(parents=True)
        (folder / "quarantine" / "torn").touch()
        for number in range(records):
            (folder / f"01db000000000000-00000451-{number:08x}.record").touch()
    assert [machine.waiting(read, written).records, machine.waiting(read, written).quarantined] == [3, 2]
    assert [machine.waiting(read, read).records, machine.waiting(None, written).records] == [1, 2]
    assert machine.waiting(None, None).records == 0
    assert "gone" in machine.waiting(read, tmp_path / "gone").fault
