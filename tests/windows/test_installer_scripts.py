"""The PowerShell scripts: no PowerShell runs here, so they are parsed, and hold as little as they can.

What decides is Python and runs in test_installer.py. Here: no syntax error, strict, and only options that exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from passrelay_ops.cli import app

tree_sitter = pytest.importorskip("tree_sitter")
powershell = pytest.importorskip("tree_sitter_powershell")

FOLDER = Path(__file__).resolve().parents[2] / "producer" / "windows_hook" / "install"
SCRIPTS = sorted(FOLDER.glob("*.ps1"))
CHANGING = [script for script in SCRIPTS if not script.name.startswith("Get-")]
PAGE = FOLDER.parents[2] / "docs" / "windows.md"
PAGE_TEXT = PAGE.read_text()
_CALL = re.compile(r"'producer', 'windows', '(\w+)'|producer windows (\w+) --")


def _tree(text: str) -> Any:
    parser = tree_sitter.Parser(tree_sitter.Language(powershell.language()))
    return parser.parse(text.encode()).root_node


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from _nodes(child)


def _commands(text: str) -> set[str]:
    return {node.text.decode().lower() for node in _nodes(_tree(text)) if node.type == "command_name"}


def test_there_are_three() -> None:
    assert [script.stem for script in SCRIPTS] == ["Get-PassrelayStatus", "Install-Passrelay", "Uninstall-Passrelay"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_parses(script: Path) -> None:
    root = _tree(script.read_text())
    assert [(node.type, node.start_point) for node in _nodes(root) if node.type == "ERROR" or node.is_missing] == []
    assert not root.has_error


def test_the_parser_would_tell() -> None:
    assert _tree(SCRIPTS[0].read_text().replace("else {", "else", 1)).has_error


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_is_strict_and_plain_ascii(script: Path) -> None:
    # Windows PowerShell reads a file without a byte order mark in the machine's code page.
    assert script.read_bytes().isascii()
    lines = [line.strip() for line in script.read_text().splitlines()]
    strict, stop = lines.index("Set-StrictMode -Version Latest"), lines.index("$ErrorActionPreference = 'Stop'")
    before = lines[lines.index(")") + 1 : strict]
    assert before == [""], "nothing runs before it is strict"
    assert stop == strict + 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_registry_services_and_files_are_left_to_the_program(script: Path) -> None:
    own = {"exit-refused"}
    allowed = {"join-path", "test-path", "set-strictmode", "invoke-command", "select-object"}
    allowed |= {"convertfrom-json", "convertto-json"}
    assert _commands(script.read_text()) - own <= allowed | {"foreach-object"}


def test_the_check_above_would_see_a_registry_write() -> None:
    text = SCRIPTS[1].read_text() + "\nSet-ItemProperty HKLM:\\x -Name 'Notification Packages' -Value @('a')\n"
    assert "set-itemproperty" in _commands(text)


@pytest.mark.parametrize("script", CHANGING, ids=lambda script: script.stem)
def test_whatif_and_the_plan_never_carry_anything_out(script: Path) -> None:
    text = script.read_text()
    assert "SupportsShouldProcess" in text
    lines = [line.strip() for line in text[text.index("Set-StrictMode") :].splitlines()]
    silent, asked = (number for number, line in enumerate(lines) if "--yes" in line and not line.startswith("#"))
    # Silent: its block ends the script, so its --yes reaches nothing else.
    assert lines[silent] == "if (-not $WhatIfPreference) { $arguments += '--yes' }"
    assert lines[silent - 2] == "if ($Silent) {"
    assert lines[lines.index("}", silent) - 1] == "exit $code"
    # Otherwise the plan first, and then only what was agreed to.
    plan = lines.index("& $python @arguments")
    assert lines.index("}", silent) < plan
    assert lines[plan + 1] == "if ($LASTEXITCODE -ne 0 -or $WhatIfPreference) { exit $LASTEXITCODE }"
    assert lines[asked - 1] == "if ($PSCmdlet.ShouldProcess($env:COMPUTERNAME, 'Carry out these steps')) {"
    assert lines[asked] == "& $python @arguments --yes"
    assert text.rstrip().endswith("exit $LASTEXITCODE")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_what_the_program_says_on_stderr_ends_no_script(script: Path) -> None:
    # PowerShell issue 3996: under `Stop` the first line on stderr ends it, and the document is lost.
    text = script.read_text()
    runs = [match.start() for match in re.finditer(r"& \$python", text)]
    assert runs
    assert all(text.rindex("$ErrorActionPreference = 'Continue'", 0, at) for at in runs)
    documents = [line for line in text.splitlines() if "= & $python" in line]
    assert documents
    assert all(line.endswith("2>$null") for line in documents)


@pytest.mark.parametrize("script", CHANGING, ids=lambda script: script.stem)
def test_silent_always_answers_with_a_document(script: Path) -> None:
    text = script.read_text()
    assert "[Console]" not in text, "over remoting it goes nowhere"
    function = text[text.index("function Exit-Refused") : text.index("\n}\n", text.index("function Exit-Refused"))]
    silent, _, aloud = function.partition("else {")
    assert "if ($Silent) {" in silent
    assert silent.rstrip().rstrip("}").rstrip().endswith("| ConvertTo-Json -Compress -Depth 4")
    assert "$Host.UI.WriteErrorLine" in aloud
    # The same names as in the program's own document.
    refused = CliRunner().invoke(app, ["producer", "windows", "install", "--json"], env={"COLUMNS": "200"})
    document = json.loads(refused.stdout.splitlines()[-1])
    assert set(re.findall(r"(\w+) = ", silent.split("[ordered]")[1])) <= {*document, "done"}
    assert f"schema = '{document['schema']}'" in silent
    assert set(re.findall(r"(\w+) = ", silent.split("@(@{")[1].split("}")[0])) == set(document["failures"][0])
    # A program that cannot even begin, or does not know an option, says nothing on stdout.
    assert "if (-not $said) { Exit-Refused" in text


@pytest.mark.parametrize("text", [PAGE_TEXT, SCRIPTS[1].read_text()], ids=["windows.md", "help"])
def test_many_controllers_get_their_folders_first_and_the_hook_key_at_the_end(text: str) -> None:
    # A folder with something in it and no mark is refused: test_installer.py does it in this order, and in the other.
    assert text.count("-Silent }") == text.count("-Silent -HookKey") == 1
    then = text.partition("-Silent }")[2]
    assert "-Silent -HookKey" in then
    if text == PAGE_TEXT:
        between = then.partition("-Silent -HookKey")[0]
        steps = [between.index(step) for step in ("Copy-Item", "keys init producer", "keys enroll", "config check")]
        assert steps == sorted(steps)


def test_a_controller_that_cannot_be_reached_ends_no_look_and_has_its_line() -> None:
    status = SCRIPTS[0].read_text()
    (ask,) = [
        node for node in _nodes(_tree(status)) if node.type == "command" and node.text.startswith(b"Invoke-Command")
    ]
    assert b"-ErrorAction SilentlyContinue -ErrorVariable unreachable" in ask.text
    after = status[status.index("$unreachable |") :]
    assert "$_.TargetObject" in after
    assert "Good = $false; Failures =" in after
    # Every line has every column, or a table would show those of its first only.
    columns = re.findall(r"'(\w+)'", next(line for line in status.splitlines() if line.startswith("$columns")))
    made = {match for line in status.splitlines() for match in re.findall(r"(?:\{ |; |^ {8})(\w+) = ", line)}
    assert made - {"ComputerName", "ScriptBlock", "ArgumentList"} == set(columns)
    assert status.count("| Select-Object -Property $columns") == 3


def test_passrelay_itself_is_a_command_beside_the_scripts() -> None:
    # What it does: test_installer.py. Here: the folder that windows.md makes has it.
    (command,) = FOLDER.glob("*.cmd")
    assert command.stem == "passrelay"
    assert "cp producer/windows_hook/install/* FOLDER" in PAGE_TEXT


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_option_that_is_handed_on_exists(script: Path) -> None:
    text = script.read_text()
    code = text[text.index("Set-StrictMode") :]
    found = _CALL.search(code)
    assert found is not None
    said = CliRunner().invoke(app, ["producer", "windows", found[1] or found[2], "--help"], env={"COLUMNS": "200"})
    assert said.exit_code == 0
    options = set(re.findall(r"--[a-z][a-z-]+", code))
    assert options
    assert options <= set(re.findall(r"--[a-z][a-z-]+", said.stdout))
