"""A broker that hangs up in the moment of connecting is one that is away, no fault of ours."""

from __future__ import annotations

import errno
import io
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from passrelay_ops.connection import connect
from passrelay_schemas import logs
from passrelay_schemas.broker import BrokerSession
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.fault import Faults
from passrelay_schemas.logs import Log
from passrelay_schemas.secret import Secret
from tests.lab.process import wait_for


@pytest.fixture
def resetting(monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerSettings]:
    """Connections are accepted, and are gone when pika looks who is there (found by a campaign of faults)."""

    def gone(_: socket.socket) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(socket.socket, "getpeername", gone)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield BrokerSettings(url=Secret(f"amqp://127.0.0.1:{server.getsockname()[1]}/x"))


@pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")  # pika's own, at its failed attempt
def test_a_session_tries_again(resetting: BrokerSettings) -> None:
    said = io.StringIO()
    logs.configure(sink=said)
    log = Log("consumer")
    faults = Faults(log, lambda: None)
    session = BrokerSession(resetting, name="test", on_open=lambda _: None, on_close=lambda: None, log=log)
    thread = threading.Thread(target=faults.guard(session.run))
    thread.start()
    try:
        wait_for(lambda: said.getvalue().count("broker_lost") >= 2 or not thread.is_alive(), what="two attempts")
    finally:
        session.stop()
        thread.join(30)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert faults.error is None
    assert [line["attempt"] for line in lines[:2]] == [1, 2]
    assert "Transport endpoint is not connected" in lines[0]["why"]


@pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")
def test_an_operator_is_told_that_it_is_away(resetting: BrokerSettings) -> None:
    with pytest.raises(UnavailableError, match="cannot be used now"), connect(resetting):
        pass
