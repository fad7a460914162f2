"""The Windows service without Windows: one run, its end, its log and what of it reaches the event log."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from passrelay_producer import service as producer_service
from passrelay_producer.windows import event_text, registry, service_log
from passrelay_producer.windows.event_text import Entry, Kind, entry_of
from passrelay_producer.windows.service import Hosted
from passrelay_producer.windows.service_log import ServiceLog
from passrelay_schemas import logs
from passrelay_schemas.errors import SafetyError
from passrelay_schemas.logs import Action, Log
from tests.lab.enrolment import toml
from tests.lab.folder import CANARY, canary_password


class FakeProducer:
    """Serves until it is stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


@pytest.fixture(autouse=True)
def log_as_before() -> Any:
    yield
    logs.configure()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "producer.toml"
    path.write_text(toml({"broker": {"url": "amqp://127.0.0.1/%2F"}, "source": {"stdin": {}}}))
    return path


def _lines(config: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.parent / "log" / service_log.NAME).read_text().splitlines()]


def test_running_is_said_when_it_runs_and_stop_ends_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    producer, running = FakeProducer(), threading.Event()

    def run(settings: Any, begun: Any) -> int:
        assert not running.is_set()
        begun(producer)
        Log("producer").info(Action.STARTED)
        assert producer.stopped.wait(60)
        return 0

    monkeypatch.setattr(producer_service, "run", run)
    hosted = Hosted(config, running.set)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(hosted.run()))
    thread.start()
    assert running.wait(60)
    hosted.stop()
    thread.join(60)
    assert codes == [0]
    assert [line["action"] for line in _lines(config)] == ["started"]


def test_a_stop_before_the_start_counts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = FakeProducer()

    def run(settings: Any, begun: Any) -> int:
        begun(producer)
        return 0 if producer.stopped.is_set() else 9

    monkeypatch.setattr(producer_service, "run", run)
    hosted = Hosted(config, lambda: None)
    hosted.stop()
    assert hosted.run() == 0


def test_a_wrong_configuration_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    config = tmp_path / "producer.toml"
    config.write_text('[broker]\nurl = "amqp://x:' + canary_password() + '@broker/"\n')
    assert Hosted(config, lambda: None).run() == 2
    (line,) = _lines(config)
    assert line["action"] == "not_started"
    assert line["level"] == "error"
    assert CANARY not in (tmp_path / "log" / service_log.NAME).read_text()


@pytest.mark.parametrize(("folder", "code"), [("C:\\records", 0), ("D:\\records", 2)])
def test_it_does_not_start_beside_a_hook_that_writes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, code: int
) -> None:
    config = tmp_path / "producer.toml"
    hook = {
        "folder": "C:/records",
        "controller": "ldaps://dc1.lab.example",
        "ca_file": "ca.pem",
        "bind_user": "lookup@lab.example",
        "password_file": "lookup-password",
    }
    config.write_text(toml({"broker": {"url": "amqp://127.0.0.1/%2F"}, "source": {"hook": hook}}))
    monkeypatch.setattr(registry, "values", lambda path: {"Folder": (folder, 1)})
    monkeypatch.setattr(producer_service, "run", lambda settings, begun: 0)
    assert Hosted(config, lambda: None).run() == code
    if code:
        assert "the hook writes to D:" in _lines(config)[0]["why"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(SafetyError("held by another"), 4, "held by another"), (ValueError(CANARY), 1, "ValueError")],
)
def test_a_failure_says_why_and_never_what_it_held(
    config: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
) -> None:
    def run(settings: Any, begun: Any) -> int:
        raise error

    monkeypatch.setattr(producer_service, "run", run)
    assert Hosted(config, lambda: None).run() == code
    (line,) = _lines(config)
    assert said in line["why"]
    assert CANARY not in json.dumps(line)


def test_warnings_errors_start_and_end_reach_the_event_log(tmp_path: Path) -> None:
    told: list[Entry] = []
    with ServiceLog(tmp_path, told.append) as sink:
        for level, action in (("info", "captured"), ("info", "started"), ("warning", "spool_full"), ("error", "brake")):
            sink.write(json.dumps({"action": action, "level": level, "why": "x: y"}))
            sink.write("\n")
    assert [entry.kind for entry in told] == [Kind.INFORMATION, Kind.WARNING, Kind.ERROR]
    assert told[1].text == "spool_full\r\nwhy: x: y"
    assert len((tmp_path / service_log.NAME).read_text().splitlines()) == 4


def test_what_is_no_line_of_the_log_stays_out_of_the_event_log() -> None:
    assert entry_of("Traceback (most recent call last):") is None
    assert entry_of("[1]") is None
    assert len(entry_of(json.dumps({"action": "a", "level": "error", "why": "x" * 99_999})).text) <= 31_839  # type: ignore[union-attr]


def test_the_event_ids_are_the_dlls() -> None:
    messages = (Path(__file__).parents[2] / "producer/windows_hook/messages.mc").read_text()
    for kind, severity in ((Kind.INFORMATION, "Informational"), (Kind.WARNING, "Warning"), (Kind.ERROR, "Error")):
        number = event_text.IDS[kind] & 0xFFFF
        assert f"MessageId={number}\nSeverity={severity}\n" in messages
        assert event_text.IDS[kind] >> 30 == {"Informational": 1, "Warning": 2, "Error": 3}[severity]


def test_the_log_turns_over_and_goes_on_when_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_log, "FILE_BYTES", 200)
    with ServiceLog(tmp_path, lambda entry: None) as sink:
        for number in range(30):
            sink.write(f"line {number:04} {'x' * 30}\n")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 1 + service_log.FILES
    assert all(path.stat().st_size <= 200 for path in tmp_path.iterdir())

    held = tmp_path / "held"
    with ServiceLog(held, lambda entry: None) as sink:
        # A viewer that holds a file open keeps Windows from renaming it.
        monkeypatch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(PermissionError()))
        for number in range(30):
            sink.write(f"line {number:04} {'x' * 30}\n")
    assert len((held / service_log.NAME).read_text().splitlines()) == 30
