"""docs/security.md names a test for each of its lines, and each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.hostile.parsers import PARSERS

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = (_ROOT / "docs" / "security.md").read_text()


def test_each_line_names_a_test_that_exists() -> None:
    sources = "\n".join(path.read_text() for path in (_ROOT / "tests").rglob("test_*.py"))
    files = {path.name for path in (_ROOT / "tests").rglob("test_*.py")}
    rows = [line for line in _PAGE.splitlines() if line.startswith("| ") and line.count("|") == 4]
    tried = [row for row in rows if "test" in row.split("|")[3] and "`" in row.split("|")[3]]
    assert len(tried) > 30
    for row in tried:
        names = re.findall(r"`(?:\w+/)?(test_\w+)(\.py)?`", row)
        assert names, row
        for name, is_file in names:
            assert f"{name}.py" in files if is_file else f"def {name}(" in sources, name


def test_it_counts_the_parsers() -> None:
    found = re.search(r"is the table: (\d+) of them", _PAGE)
    assert found is not None
    assert int(found[1]) == len(PARSERS)


def test_what_it_links_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", _PAGE):
        assert (_ROOT / "docs" / target).exists(), target


def test_each_defect_that_a_campaign_found_names_tests_that_exist() -> None:
    page = (_ROOT / "docs" / "reliability.md").read_text()
    defects = page.split("## Defects found, and their mends")[1]
    rows = [line for line in defects.splitlines() if line.startswith("| `")]
    assert rows
    for row in rows:
        named = re.findall(r"(tests/[\w/]+\.py)(?:: `(test_\w+)`)?", row.rsplit("|", 2)[1])
        assert named, row
        for path, name in named:
            assert f"def {name or 'test_'}" in (_ROOT / path).read_text(), (path, name)
