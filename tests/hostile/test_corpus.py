"""Each broken input of the corpus still ends in its own named error, in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.corpus import FOLDER, TAKEN, files, mode
from tests.hostile.parsers import PARSERS

_FILES = [(name, path) for name in PARSERS for path in files(name)]


@pytest.mark.parametrize(("name", "path"), _FILES, ids=[f"{name}/{path.name}" for name, path in _FILES])
def test_it_fails_as_it_did(name: str, path: Path) -> None:
    assert mode(PARSERS[name], path.read_bytes()) == path.name.partition("~")[0]


def test_every_folder_is_a_parsers_and_every_error_has_a_file() -> None:
    assert {path.name for path in FOLDER.iterdir()} <= set(PARSERS)
    for name, parser in PARSERS.items():
        if parser.errors:
            assert any(not path.name.startswith(TAKEN) for path in files(name)), name
