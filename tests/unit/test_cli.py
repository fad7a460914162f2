"""The command line as a whole: exit codes, one line for each failure, one document with --json, no traceback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from rich.table import Table
from typer import Exit
from typer.testing import CliRunner

from passrelay_ops import cli, config_check
from passrelay_ops.dead_letters import Letter
from passrelay_ops.letter_pages import lists, page
from passrelay_ops.options import parse_duration, parse_moment
from passrelay_ops.report import Report, printable
from passrelay_schemas import __version__
from passrelay_schemas.errors import ConfigurationError, PassrelayError, SafetyError, UnavailableError
from passrelay_schemas.keys import KeyUse, generate, write_private, write_public
from passrelay_schemas.secret import Secret
from tests.lab.folder import CANARY

PASSRELAY = Path(sys.executable).with_name("passrelay")
COMMANDS = (
    ("producer", "run"),
    ("producer", "init"),
    ("producer", "capture"),
    ("producer", "republish"),
    ("consumer", "run"),
    ("topology", "apply"),
    ("topology", "check"),
    ("config", "check"),
    ("keys", "init"),
    ("keys", "enroll"),
    ("keys", "list"),
    ("keys", "rotate"),
    ("keys", "retire"),
    ("keys", "revoke"),
    ("dead", "list"),
    ("dead", "show"),
    ("dead", "replay"),
    ("dead", "discard"),
    ("dead", "export"),
    ("ad", "check"),
    ("ad", "csr"),
    ("doctor",),
    ("audit",),
    ("status",),
    ("settle",),
    ("watch",),
    ("idm", "setup"),
    ("idm", "check"),
    ("idm", "ca"),
    ("idm", "managers", "list"),
    ("idm", "managers", "add"),
    ("idm", "managers", "remove"),
    ("idm", "marker", "show"),
    ("idm", "marker", "reset"),
    ("idm", "marker", "rebind"),
)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def ops_file(tmp_path: Path, closed_port: int) -> Path:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    document, private = generate(KeyUse.OPS)
    write_public(directory, document)
    write_private(directory, document, private)
    path = tmp_path / "ops.toml"
    path.write_text(f'[broker]\nurl = "amqp://127.0.0.1:{closed_port}/x"\n[keys]\ndirectory = "{directory}"\n')
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PASSRELAY, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"passrelay {__version__}\n")


def test_a_service_holds_no_code_of_another_command() -> None:
    code = """
import sys
from typer.testing import CliRunner
from passrelay_ops import cli
assert CliRunner().invoke(cli.app, ["consumer", "run", "--help"]).exit_code == 0
print(*(name for name in sys.modules if name.startswith("passrelay_ops.commands.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["passrelay_ops.commands.consumer"]


def test_a_mistyped_command_is_told_the_nearest() -> None:
    result = CliRunner().invoke(cli.app, ["prodcer", "run"])
    assert (result.exit_code, "Did you mean 'producer'?" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["frobnicate"], ["dead", "list", "--reason", "bad_luck"], ["status"]])
def test_usage_errors_end_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["topology", "apply"],
        ["topology", "check"],
        ["dead", "list"],
        ["dead", "show", "01940000-0000-7000-8000-00000000007a"],
        ["status", "alice"],
        ["settle", "--since", "1h"],
    ],
    ids=" ".join,
)
def test_an_unreachable_broker_ends_with_3(arguments: list[str], ops_file: Path, closed_port: int) -> None:
    result = run(*arguments, "--config", str(ops_file), "--json")
    document = json.loads(result.stdout.splitlines()[-1])
    assert result.returncode == 3
    assert document["ok"] is False
    assert any(f"127.0.0.1:{closed_port}" in failure["detail"] for failure in document["failures"])
    assert "Traceback" not in result.stderr
    assert "pika" not in result.stderr


def test_a_broker_that_never_answers_ends_within_its_timeout(ops_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passrelay_schemas.broker._CONNECT_SECONDS", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setenv("PASSRELAY_BROKER__URL", f"amqp://127.0.0.1:{mute.getsockname()[1]}/x")
        result = CliRunner().invoke(cli.app, ["topology", "check", "--config", str(ops_file)])
    assert result.exit_code == 3


def test_what_speaks_no_amqp_is_named(ops_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(100)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.socket() as server:
        server.settimeout(30)
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("PASSRELAY_BROKER__URL", f"amqp://127.0.0.1:{server.getsockname()[1]}/x")
        thread = threading.Thread(target=answer)
        thread.start()
        result = CliRunner().invoke(cli.app, ["dead", "list", "--config", str(ops_file)])
        thread.join(timeout=30)
    assert result.exit_code == 3
    assert "check the port" in result.stderr


def test_the_url_never_shows_its_password(ops_file: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setenv("PASSRELAY_BROKER__URL", f"amqp://user:{CANARY}@127.0.0.1:{closed_port}/x")
    result = CliRunner().invoke(cli.app, ["dead", "list", "--config", str(ops_file), "--json"])
    assert result.exit_code == 3
    assert CANARY not in result.output


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    result = run("topology", "check", "--config", str(path))
    assert result.returncode == 2
    assert result.stderr == f"passrelay: configuration {path}: missing: write it, or name another with --config\n"


@pytest.mark.parametrize(("arguments", "complaint"), [([], "exactly one"), (["--user", "x", "--all"], "exactly one")])
def test_capture_wants_one_user_or_all(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(cli.app, ["producer", "capture", *arguments])
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_republish_refuses_a_time_without_offset() -> None:
    result = CliRunner().invoke(cli.app, ["producer", "republish", "--since", "2026-11-24T08:00:00"])
    assert result.exit_code == 2
    assert "offset" in result.stderr


@pytest.mark.parametrize(
    ("since", "complaint"),
    [("2999-01-01T00:00:00Z", "future"), ("yesterday", "not a time"), ("2026-11-24T08:00:00", "offset")],
)
def test_settle_refuses_a_wrong_time(since: str, complaint: str, ops_file: Path) -> None:
    result = CliRunner().invoke(cli.app, ["settle", "--since", since, "--config", str(ops_file)])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert since[:10] in result.stderr


@pytest.mark.parametrize("arguments", [["--guid", "no-guid"], []])
def test_rebind_wants_a_guid(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["idm", "marker", "rebind", "alice", *arguments])
    assert result.exit_code == 2
    assert "guid" in result.stderr.lower()


def leave(body: Callable[[Report], object], *, as_json: bool = False) -> int:
    """The exit code of a report around `body`."""

    def command() -> None:
        with Report("doctor", as_json=as_json) as report:
            body(report)

    with pytest.raises(Exit) as ended:
        command()
    return ended.value.exit_code


def throw(error: BaseException) -> Callable[[Report], object]:
    def body(_: Report) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PassrelayError("x"), 1),
        (ConfigurationError("x"), 2),
        (UnavailableError("x"), 3),
        (SafetyError("x"), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 1),
    ],
)
def test_an_error_decides_the_exit_code(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(throw(error), as_json=True) == code
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert len(document["failures"]) == 1


def test_the_common_shape(capsys: pytest.CaptureFixture[str]) -> None:
    def body(report: Report) -> None:
        report["rows"] = [1]
        report["when"] = datetime(2026, 11, 24, tzinfo=UTC)

    assert leave(body, as_json=True) == 0
    [line] = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["schema"] == "passrelay.doctor/1"
    assert document["ok"] is True
    assert document["version"] == __version__
    assert document["started_at"].endswith("Z")
    assert isinstance(document["duration_seconds"], float)
    assert set(document["machine"]) == {"os", "python", "cores"}
    assert set(document["servers"]) == {"rabbitmq", "directory", "samba"}
    assert document["failures"] == []
    assert document["rows"] == [1]
    assert document["when"] == "2026-11-24T00:00:00.000Z"


def test_an_unexpected_error_shows_type_and_place_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(throw(RuntimeError(CANARY)), as_json=True) == 1
    captured = capsys.readouterr()
    assert "RuntimeError at " in captured.err
    assert CANARY not in captured.out + captured.err
    assert "Traceback" not in captured.err


def test_the_highest_exit_code_counts() -> None:
    def body(report: Report) -> None:
        report.fail("a", "b", "c", exit_code=3)
        report.fail("a", "b", "c")
        report.finish(2)

    assert leave(body) == 3


@pytest.mark.parametrize("as_json", [False, True])
def test_people_read_stdout_and_programs_its_last_line(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def body(report: Report) -> None:
        report.say("for people")
        report.progress("going on")

    leave(body, as_json=as_json)
    captured = capsys.readouterr()
    assert captured.err == "going on\n"
    assert ("for people" in captured.out) is not as_json


def test_a_long_row_is_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", "b")
    table.add_row("x" * 120, "y" * 120)
    leave(lambda report: report.say(table))
    assert any("x" * 120 in line and "y" * 120 in line for line in capsys.readouterr().out.splitlines())


HOSTILE = "\x1b[2Jx\x1b]52;c;ZXZpbA==\x07y\u202ez\x9b1m\r\x7f"
"""Clears the screen, fills the clipboard (OSC 52), turns the line round (RLO), and C1's CSI."""


def test_printable_keeps_all_that_is_only_text() -> None:
    assert printable("Zoë 日本 \t|\n") == "Zoë 日本 \t|\n"
    assert printable(HOSTILE) == "\ufffd[2Jx\ufffd]52;c;ZXZpbA==\ufffdy\ufffdz\ufffd1m\ufffd\ufffd"


@pytest.mark.parametrize("as_json", [False, True])
def test_no_name_or_reason_of_another_host_reaches_the_terminal_raw(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    letter = Letter(UUID(int=1), 0, HOSTILE, HOSTILE, HOSTILE, 1, 0, 1, now, now, account=HOSTILE)

    def body(report: Report) -> None:
        report["letters"] = [letter.document()]
        report.say("".join(lists([letter], now)))
        report.say(page(letter, [{"offset": 0, "account": HOSTILE, "diagnostic": HOSTILE}]))
        report.say(HOSTILE)
        report.progress(HOSTILE)
        report.fail("check", HOSTILE, HOSTILE)

    assert leave(body, as_json=as_json) == 1
    captured = capsys.readouterr()
    for raw in "\x1b\x07\u202e\x9b\r":
        assert raw not in captured.out + captured.err
    assert captured.err.count(printable(HOSTILE)) == 3
    if as_json:
        assert json.loads(captured.out)["letters"][0]["account"] == HOSTILE
    else:
        assert captured.out.count(printable(HOSTILE)) == 7


def test_a_secret_in_a_document_stays_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    leave(lambda report: report.__setitem__("value", Secret(CANARY)), as_json=True)
    assert CANARY not in capsys.readouterr().out


def test_main_ends_with_one_line_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert error.startswith("passrelay: internal error: ValueError at ")
    assert CANARY not in error


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config_check, "check", interrupted)
    result = CliRunner().invoke(cli.app, ["config", "check", "--config", str(tmp_path / "ops.toml")])
    assert result.exit_code == 130


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604_800), ("0s", 0)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text, option="--x") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1w", "1 h", "9" * 400 + "d"])
def test_wrong_durations_name_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--older-than"):
        parse_duration(text, option="--older-than")


def test_moments() -> None:
    moment = datetime(2026, 11, 24, 8, tzinfo=UTC)
    assert parse_moment("2026-11-24T08:00:00Z", option="--since") == moment
    assert parse_moment("2026-11-24T09:00:00+01:00", option="--since") == moment
    assert parse_moment("1h", option="--since") < datetime.now(UTC)


@pytest.mark.parametrize("text", ["yesterday", "2026-11-24", "", "900000000d"])
def test_wrong_moments_name_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--since"):
        parse_moment(text, option="--since")
