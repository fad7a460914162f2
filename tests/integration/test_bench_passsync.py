"""The re-created algorithm does to a real directory what is known of PassSync: no more, no less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.compiler import compiled
from tests.bench.passsync import SOURCE, add_people, passsync
from tests.lab.directory import Directory
from tests.lab.folder import canary_password
from tests.lab.process import LabError, MissingServerError, run_tool

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compiled(SOURCE, tmp_path_factory.mktemp("passsync"))
    except MissingServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def directory(shared_directory: Directory) -> Iterator[Directory]:
    names = ["psync1", "psync2", "psync3"]
    add_people(shared_directory, names)
    yield shared_directory
    for name in names:
        with shared_directory.manager() as manager:
            manager.delete(shared_directory.user_dn(name))


def fates(client: Path, directory: Directory, changes: list[tuple[str, str]], how: str) -> list[int]:
    """How many were modified, matched, deferred and dropped."""
    lines = "".join(f"{name}\t{password}\n" for name, password in changes)
    url = f"ldaps://127.0.0.1:{directory.listening.ldaps}"
    arguments: list[str | Path] = [url, directory.ca_file, directory.service_dn, directory.password_file]
    said = run_tool([client, *arguments, directory.search_base, how], stdin=lines.encode())
    return [int(word) for word in said.split()[:4]]


@pytest.mark.parametrize("how", ["new", "kept"])
def test_each_change_meets_the_fate_that_passsync_has_for_it(client: Path, directory: Directory, how: str) -> None:
    first, older, newest = canary_password(), canary_password(), canary_password()
    assert fates(client, directory, [("psync1", first)], how) == [1, 0, 0, 0]
    assert directory.binds("psync1", first)
    # It logs in already: nothing is written.
    before = directory.read("psync1")["userPassword"]
    assert fates(client, directory, [("psync1", first)], how) == [0, 1, 0, 0]
    assert directory.read("psync1")["userPassword"] == before
    # Only the newest of several in the list; nobody of that name waits for ever; two entries of one name are dropped.
    changes = [("psync2", older), ("stranger", canary_password()), ("psync2", newest), ("psync*", canary_password())]
    assert fates(client, directory, changes, how) == [1, 0, 1, 2]
    assert directory.binds("psync2", newest)


def test_a_pass_counts_only_when_everybody_was_written(client: Path, directory: Directory) -> None:
    assert passsync(client, directory, ["psync1", "psync2", "psync3"], "new") > 0
    with pytest.raises(LabError, match="wrote 2 of 3"):
        passsync(client, directory, ["psync1", "stranger", "psync3"], "new")
