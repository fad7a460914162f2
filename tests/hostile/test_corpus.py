"""Each broken input of the corpus still ends in its own named error, in its own words."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.hostile.campaign import inputs
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


@pytest.mark.parametrize("name", PARSERS)
def test_each_usual_way_of_failing_has_a_file(name: str) -> None:
    """Rare ones depend on the keys of this run's samples: `python -m tests.hostile.corpus` finds more of them."""
    seen = Counter(mode(PARSERS[name], raw) for raw in islice(inputs(name, 0), 400))
    usual = {found for found, times in seen.items() if times >= 8}
    assert usual - {TAKEN} <= {path.name.partition("~")[0] for path in files(name)}
