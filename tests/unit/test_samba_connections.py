"""A connection to the controller that others keep busy is replaced, and only by one to the same running controller."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from passrelay_consumer.ldap_messages import decode, message
from passrelay_producer.sources import samba
from passrelay_producer.sources.samba import _Watch
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_producer.sources.samba_pulse import Pulse
from passrelay_producer.supplemental import OpenPgpKeyFile
from passrelay_schemas.errors import UnavailableError
from tests.lab.process import wait_for
from tests.unit.ldap_script import done, found, notice


class Listener:
    """A private socket that accepts and says nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accepted: list[socket.socket] = []
        self._waiting: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def accept(self) -> socket.socket:
        taken, _ = self._listening.accept()
        taken.settimeout(10)
        self.accepted.append(taken)
        return taken

    def fill(self) -> None:
        """Others wait to be accepted, as many as have room."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._waiting.append(socket.socket(socket.AF_UNIX))
                self._waiting[-1].settimeout(0)
                self._waiting[-1].connect(str(self.path))

    def close(self) -> None:
        for one in (*self.accepted, *self._waiting, self._listening):
            one.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "ldapi")
    yield made
    made.close()


@pytest.fixture
def directory(listener: Listener) -> Iterator[SambaDirectory]:
    opened = SambaDirectory(listener.path)
    opened._open()
    listener.accept()
    yield opened
    opened.close()


def test_the_new_connection_stands_before_the_old_one_ends(listener: Listener, directory: SambaDirectory) -> None:
    directory.crowded = True
    directory.move()
    listener.accept()
    assert not directory.crowded
    (old, new) = listener.accepted
    while old.recv(4096):  # an unbind, then the end
        pass
    new.settimeout(0)
    with pytest.raises(BlockingIOError):
        new.recv(1)


def test_a_controller_that_was_stopped_in_between_has_to_be_looked_at_anew(
    listener: Listener, directory: SambaDirectory
) -> None:
    listener.accepted[0].close()
    with pytest.raises(UnavailableError, match="closed by the server"):
        directory.move()


def test_a_notice_on_the_old_connection_is_its_end(listener: Listener, directory: SambaDirectory) -> None:
    listener.accepted[0].sendall(notice("the controller stops"))
    with pytest.raises(UnavailableError, match="closed by the server"):
        directory.move()


def test_without_room_for_another_connection_the_old_one_serves(listener: Listener, directory: SambaDirectory) -> None:
    listener.fill()
    directory.crowded = True
    moving = threading.Thread(target=directory.move, daemon=True)
    moving.start()
    wait_for(lambda: not moving.is_alive(), what="the move was given up")
    assert directory.crowded  # so it is tried again
    (old,) = listener.accepted
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(directory.highest_usn)
        number = decode(old.recv(4096)).number
        old.sendall(message(number, found("", highestCommittedUSN=b"7")) + message(number, done()))
        assert asked.result() == 7


@pytest.fixture
def pulse(listener: Listener) -> Iterator[Pulse]:
    with Pulse(listener.path) as opened:
        listener.accept()
        yield opened


def test_the_pulse_goes_on_over_another_connection(listener: Listener, pulse: Pulse) -> None:
    pulse.move()
    (old, new) = listener.accepted[0], listener.accept()
    assert old.recv(1) == b""
    new.sendall(message(1, done()))
    assert pulse.moved()


def test_without_room_for_another_connection_the_pulse_keeps_its_old_one(listener: Listener, pulse: Pulse) -> None:
    listener.fill()
    pulse.move()
    listener.accepted[0].sendall(message(1, done()))
    assert pulse.moved()


class Connection:
    """Counts its moves."""

    def __init__(self, *, crowded: bool) -> None:
        self.crowded = crowded
        self.moves = 0

    def move(self) -> None:
        self.moves += 1


def test_only_who_waits_is_moved_and_not_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [100.0]
    monkeypatch.setattr("passrelay_producer.sources.samba.time.monotonic", lambda: clock[0])
    watch = _Watch(OpenPgpKeyFile(tmp_path / "key"))
    busy, free = Connection(crowded=True), Connection(crowded=False)
    for _ in range(3):
        watch.keep_apart(cast("Any", busy), cast("Any", free))
    assert (busy.moves, free.moves) == (1, 0)
    clock[0] += samba.MOVE_SECONDS
    watch.keep_apart(cast("Any", busy), cast("Any", free))
    assert (busy.moves, free.moves) == (2, 0)


def test_nobody_moves_while_nobody_waits(tmp_path: Path) -> None:
    watch = _Watch(OpenPgpKeyFile(tmp_path / "key"))
    free, busy = Connection(crowded=False), Connection(crowded=True)
    watch.keep_apart(cast("Any", free))
    watch.keep_apart(cast("Any", busy))
    assert (free.moves, busy.moves) == (0, 1)
