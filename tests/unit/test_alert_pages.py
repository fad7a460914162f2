"""The alerts' pages hold commands that can be run as they stand, and a live test causes every alert."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from passrelay_ops.cli import app
from passrelay_schemas.logs import Action

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/runbooks").glob("Passrelay*.md"))
RULES = ROOT / "ops/prometheus/passrelay.rules.yml"
LIVE = sorted((ROOT / "tests/integration").glob("test_alerts_live*.py"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"`(passrelay [^`]+)`")
GREP = re.compile(r"grep (?:-E )?(?:'([^']+)'|(\w+))")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_is_fenced_and_a_shell_can_read_it(page: Path) -> None:
    text = page.read_text()
    blocks = BLOCK.findall(text)
    assert {language for language, _ in blocks} <= {"sh", "promql"}
    for language, block in blocks:
        if language == "sh":
            subprocess.run(["bash", "-n"], input=block.encode(), check=True, timeout=60)
    for paragraph in BLOCK.sub("", text).split("\n\n"):
        assert not paragraph.startswith((" ", "passrelay ", "journalctl ", "curl ")), paragraph


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    shell = [line for language, block in BLOCK.findall(text) if language == "sh" for line in block.splitlines()]
    lines = [line for line in shell if line.startswith("passrelay ")]
    for line in [*lines, *COMMAND.findall(BLOCK.sub("", text))]:
        _look_up(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_looked_for_in_the_log_can_stand_there(page: Path) -> None:
    actions = {action.value for action in Action}
    for line in page.read_text().splitlines():
        if line.startswith("journalctl") and (match := GREP.search(line)):
            for word in re.findall(r"\w+", (match[1] or match[2]).replace('"action": ', "")):
                assert any(action.startswith(word) for action in actions), (line, word)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_alert_is_caused_by_a_live_test() -> None:
    shipped = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert sorted(shipped) == sorted(_waited_for())


def test_a_live_test_ends_when_nothing_fires_any_more() -> None:
    for path in LIVE:
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_") and _fires(function):
                withs = [node for node in ast.walk(function) if isinstance(node, ast.With)]
                quiet = [node for node in withs if _calls(node.items[-1].context_expr, "quiet")]
                outside = set(_fires(function)) - {call for node in quiet for call in _fires(node)}
                assert not outside, f"{path.name}: {function.name}"


def _waited_for() -> set[str]:
    """The alerts that stand as literals in a call of wait_until_firing, or of its short name."""
    calls = [call for path in LIVE for call in _fires(ast.parse(path.read_text()))]
    return {
        argument.value
        for call in calls
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def _fires(tree: ast.AST) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (_calls(node, "firing") or _calls(node, "wait_until_firing"))
    ]


def _calls(node: ast.expr, name: str) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=found)) | ast.Call(func=ast.Attribute(attr=found)):
            return found == name
        case _:
            return False


def _look_up(words: list[str]) -> None:
    """That the command exists, and each of its options."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    told = CliRunner().invoke(app, [*names, "--help"])
    assert told.exit_code == 0, told.output
    for option in words[len(names) :]:
        assert not option.startswith("-") or f"{option} " in told.output, (option, told.output)
