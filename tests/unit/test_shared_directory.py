"""One Directory for several threads: who opens its connection, and what becomes of a failure."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from passrelay_consumer import directory as directory_module
from passrelay_consumer.directories import Directories, SharedDirectories
from passrelay_consumer.directory import Directory
from passrelay_consumer.ldap_messages import Kind, sized
from passrelay_consumer.result_codes import DirectoryError, Trouble
from passrelay_consumer.shared_connection import SharedConnection
from passrelay_schemas.idm_settings import IdmSettings
from tests.unit.ldap_script import PATIENCE_SECONDS, Script, done, found, reference, script

URL, OTHER = "ldaps://idm1.example", "ldaps://idm2.example"
IDM = IdmSettings(
    servers=(URL, OTHER),
    ca_file=Path("/ca"),
    bind_dn="uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
    password_file=Path("/password"),
)
THREADS = 4


class Seen:
    """The lock, and a signal when so many threads have come to it."""

    def __init__(self, lock: threading.Lock, count: int) -> None:
        self._lock = lock
        self._all = threading.Semaphore(0)
        self._count = count

    def __enter__(self) -> Self:
        self._all.release()
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self) -> None:
        for _ in range(self._count):
            assert self._all.acquire(timeout=PATIENCE_SECONDS)


def opened_by(monkeypatch: pytest.MonkeyPatch, directory: Directory, opens: Any) -> list[str]:
    """`opens` is called when all threads wait for a connection; the calls."""
    lock = Seen(directory._opening, THREADS)
    directory._opening = lock  # type: ignore[assignment]
    calls: list[str] = []

    def connect(url: str, _: IdmSettings) -> Any:
        if not calls:
            lock.wait()
        calls.append(url)
        return opens()

    monkeypatch.setattr(directory_module, "connect_bound", connect)
    return calls


def test_those_who_wait_for_a_connection_share_the_failure_of_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise DirectoryError(49, "wrong password")

    directory = Directory(URL, IDM)
    calls = opened_by(monkeypatch, directory, refused)
    with ThreadPoolExecutor(THREADS) as threads:
        results = [threads.submit(directory.read, "uid=alice") for _ in range(THREADS)]
        codes = [getattr(result.exception(PATIENCE_SECONDS), "code", None) for result in results]
    assert (codes, calls) == ([49] * THREADS, [URL])
    with pytest.raises(DirectoryError, match="wrong password"):
        directory.read("uid=alice")
    assert calls == [URL, URL], "who comes later tries again"


def test_a_failure_that_is_kept_keeps_nothing_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise DirectoryError(None, "no route")

    monkeypatch.setattr(directory_module, "connect_bound", refused)
    directory = Directory(URL, IDM)
    with pytest.raises(DirectoryError, match="no route"):
        directory.modify("uid=alice", {"userPassword": [("MODIFY_REPLACE", [b"canary"])]})
    assert directory._failed is not None
    assert directory._failed.__traceback__ is None
    assert directory._failed.__context__ is None


def test_those_who_wait_for_a_connection_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    directory = Directory(URL, IDM)
    calls = opened_by(monkeypatch, directory, lambda: SimpleNamespace(socket=ours))
    with theirs, ThreadPoolExecutor(THREADS) as threads:
        made = Script.__new__(Script)
        made.socket, made._received = theirs, b""
        results = [threads.submit(directory.read, "uid=alice") for _ in range(THREADS)]
        for number in [made.request().number for _ in range(THREADS)]:
            made.say(number, found(f"uid=user{number}"), done())
        entries = [result.result(PATIENCE_SECONDS) for result in results]
        assert len({entry.dn for entry in entries if entry is not None}) == THREADS
        assert calls == [URL]
        directory.close()


def test_what_was_not_sent_for_another_thread_left_the_connection_is_sent_on_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with script() as left, script() as new, ThreadPoolExecutor(1) as threads:
        directory = Directory(URL, IDM)
        connections = [left.connection, new.connection]
        monkeypatch.setattr(directory, "_open", lambda: connections.pop(0))
        left.connection.close()
        result = threads.submit(directory.read, "uid=alice")
        new.say(new.request().number, found("uid=alice"), done())
        entry = result.result(PATIENCE_SECONDS)
        assert entry is not None
        assert entry.dn == "uid=alice"


def ask(made: Script, *said: bytes) -> Any:
    """What a directory makes of these answers to one read."""
    directory = Directory(URL, IDM)
    directory._connection = made.connection
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(directory.read, "uid=alice")
        made.say(made.request().number, *said)
        error = result.exception(PATIENCE_SECONDS)
        return error or result.result()


def test_a_result_is_an_error_and_the_connection_goes_on() -> None:
    with script() as made:
        error = ask(made, done(code=53, words="read-only"))
        assert (error.code, error.text) == (53, "read-only")
        assert made.connection.usable


def test_more_entries_than_asked_for_and_references_are_no_error() -> None:
    with script() as made:
        entry = ask(made, reference("ldap://elsewhere/"), found("uid=alice", objectClass=b"person"), done(code=4))
        assert (entry.dn, entry.object_classes) == ("uid=alice", {"person"})
        assert ask(made, done()) is None


@pytest.mark.parametrize("said", [(sized(Kind.ENTRY, b"\x04\x7f"), done()), (sized(Kind.DONE, b"\x0a\x00"),)])
def test_what_cannot_be_read_is_server_trouble_and_leaves_the_connection(said: tuple[bytes, ...]) -> None:
    with script() as made:
        error = ask(made, *said)
        assert (error.code, error.trouble) == (None, Trouble.SERVER)
        assert not made.connection.usable


def test_each_server_has_a_directory_and_closing_leaves_what_is_on_its_way() -> None:
    directories = Directories(IDM)
    assert directories.on(URL) is directories.on(URL)
    assert directories.on(URL) is not directories.on(OTHER)
    with script() as made, ThreadPoolExecutor(1) as threads:
        directories.on(URL)._connection = made.connection
        result = threads.submit(directories.on(URL).modify, "uid=alice", {})
        number = made.request().number
        directories.close()
        made.say(number, done(Kind.MODIFIED))
        assert result.result(PATIENCE_SECONDS) is None
        assert isinstance(made.connection, SharedConnection)
        assert not made.connection.usable


def test_connections_are_dealt_out_evenly_and_each_thread_keeps_its_share() -> None:
    shared = SharedDirectories(IDM, connections=2)
    together = threading.Barrier(THREADS)

    def work() -> list[Directories]:
        together.wait(PATIENCE_SECONDS)  # a thread of its own for each
        return [shared.of_this_thread(), shared.of_this_thread()]  # after an unexpected exception it asks again

    with ThreadPoolExecutor(THREADS) as threads:
        shares = [future.result() for future in [threads.submit(work) for _ in range(THREADS)]]
    assert all(first is again for first, again in shares)
    assert sorted(Counter(id(first) for first, _ in shares).values()) == [2, 2]
