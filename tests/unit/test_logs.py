"""The log: one JSON line each on stderr, words from a closed list, never a traceback."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from passrelay_schemas.errors import MalformedError
from passrelay_schemas.logs import Action, Log, configure
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import parse_object
from tests.lab.folder import CANARY
from tests.unit.builders import PASSWORD


def fail() -> None:
    password = PASSWORD
    raise RuntimeError(f"boom {password}")


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""  # stdout belongs to --json and to the stdin source's answers
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_one_json_object_with_action_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    Log("consumer").warning(Action.BROKER_LOST, why='two\nlines and "quotes"', attempt=3)
    (line,) = lines(capsys)
    assert line["action"] == "broker_lost"
    assert line["level"] == "warning"
    assert line["component"] == "consumer"
    assert line["why"] == 'two\nlines and "quotes"'
    assert line["timestamp"].endswith("Z")


def test_a_line_is_written_at_once_with_its_end() -> None:
    """As stderr is where PYTHONUNBUFFERED is set: each write a system call, between two of which a process may die."""
    written: list[bytes] = []

    class Unbuffered(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            written.append(bytes(data))
            return len(data)

    configure(sink=io.TextIOWrapper(Unbuffered(), write_through=True))  # type: ignore[type-var]
    log = Log("producer")
    log.info(Action.STARTED)
    log.info(Action.STOPPED)
    assert [json.loads(line)["action"] for line in written] == ["started", "stopped"]
    assert all(line.endswith(b"}\n") for line in written)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_not_written(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(level)
    log = Log("x")
    for write in (log.debug, log.info, log.warning, log.error):
        write(Action.STARTED)
    order = ["debug", "info", "warning", "error"]
    assert [line["level"] for line in lines(capsys)] == order[order.index(level) :]


@pytest.mark.parametrize("fields", [{"exc_info": True}, {"stack_info": True}, {"exception": PASSWORD}])
def test_tracebacks_are_dropped(fields: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    try:
        fail()
    except RuntimeError:
        Log("x").error(Action.INTERNAL_ERROR, **fields)
    (line,) = lines(capsys)
    assert CANARY not in json.dumps(line)
    assert "Traceback" not in json.dumps(line)
    assert not set(line) & {"exc_info", "stack_info", "exception", "stack"}


def test_a_given_exception_is_dropped_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    Log("x").error(Action.INTERNAL_ERROR, exc_info=RuntimeError(PASSWORD))
    assert CANARY not in json.dumps(lines(capsys))


@pytest.mark.parametrize("action", ["started", "anything", CANARY])
def test_only_words_of_the_closed_list_are_taken(action: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    with pytest.raises(AttributeError):
        Log("x").info(action)
    assert lines(capsys) == []


def test_the_words_are_lower_case_and_each_stands_for_one_thing() -> None:
    words = [action.value for action in Action]
    assert len(set(words)) == len(words)
    assert all(word.replace("_", "").isalpha() and word.islower() for word in words)


def test_a_log_made_before_the_set_up_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A module's log is often made at import: structlog's own defaults print tracebacks with locals to stdout."""
    early = Log("early")
    configure("warning")
    early.info(Action.STARTED)
    try:
        fail()
    except RuntimeError:
        early.error(Action.INTERNAL_ERROR, exc_info=True)
    (line,) = lines(capsys)
    assert line["component"] == "early"
    assert CANARY not in json.dumps(line)


def test_secrets_and_refused_documents_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log = Log("x")
    log.info(Action.CAPTURED, secret=Secret(PASSWORD), deep=[{"x": Secret(PASSWORD)}])
    with pytest.raises(MalformedError) as caught:
        parse_object(b'{"password": "' + PASSWORD.encode(), what="event")
    error = caught.value
    log.error(Action.DEAD, why=str(error), error=error, cause=error.__context__)
    written = lines(capsys)
    assert len(written) == 2
    assert CANARY not in json.dumps(written)


@pytest.mark.parametrize("name", ["pika", "pika.adapters.blocking_connection", "ldap3"])
def test_libraries_that_log_message_contents_are_silent(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    logging.getLogger(name).critical("%s", PASSWORD)
    assert CANARY not in "".join(capsys.readouterr())
    assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL)
