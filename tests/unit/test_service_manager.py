"""What systemd hears: ready at once, the watchdog only from a process that works, and the end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from passrelay_schemas.service_manager import supervised


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(30)
        receiver.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().splitlines()


def test_without_a_watchdog_only_the_start_and_the_end_are_told(manager: socket.socket) -> None:
    with supervised(list):
        assert heard(manager) == ["READY=1"]
    assert heard(manager) == ["STOPPING=1"]


def test_the_watchdog_hears_a_process_that_works_and_not_one_that_is_stuck(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    troubles: list[str] = []
    with supervised(lambda: troubles):
        assert heard(manager) == ["READY=1"]
        for _ in range(3):
            assert heard(manager) == ["STATUS=", "WATCHDOG=1"]
        troubles.append("capture: not running")
        # At most one beat was under way.
        assert ["STATUS=capture: not running"] in [heard(manager), heard(manager)]
        assert heard(manager) == ["STATUS=capture: not running"]


def test_another_process_s_watchdog_is_not_ours(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    with supervised(list):
        assert heard(manager) == ["READY=1"]
    assert heard(manager) == ["STOPPING=1"]


@pytest.mark.parametrize("address", ["", "/nobody/listens/here"])
def test_without_systemd_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with supervised(list):
        pass
