"""The campaign's own checks find what they should."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from passrelay_schemas import logs
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.marker import Marker
from tests.faults.judge import Stored, Truth, audit, compare, complaints, matches
from tests.faults.site import Site
from tests.faults.wire import Wire
from tests.lab.directory_template import hashed
from tests.lab.process import Process, wait_for

GUID, EVENT = UUID(int=1), UUID(int=2)
TRUTH = Truth("u1", 7, "newest", ("oldest", "older", "old"))


def _marker(kvno: int) -> str:
    return str(Marker(0, kvno, 1, GUID, EVENT, "2026-01-01T00:00:00.000Z"))


def _details(found: Stored | None) -> list[tuple[str, str]]:
    return [(finding.check, finding.detail) for finding in compare(TRUTH, found, "a")]


def test_a_stored_password_is_known_and_no_other() -> None:
    assert matches(hashed("newest"), "newest")
    assert not matches(hashed("newest"), "Newest")
    assert not matches("{CLEAR}newest", "newest")


def test_what_ad_has_is_no_finding() -> None:
    assert _details(Stored(hashed("newest"), _marker(7), _marker(7))) == []


@pytest.mark.parametrize("found", [None, Stored(None, _marker(7), _marker(7)), Stored(hashed("newest"), None, None)])
def test_nothing_there_is_lost(found: Stored | None) -> None:
    assert [check for check, _ in _details(found)] == ["lost"]


@pytest.mark.parametrize(
    ("password", "marker", "proof", "words"),
    [
        ("newest", 6, 6, "marker at version 6, AD has 7"),
        ("newest", 7, 6, "two changes (7, 6)"),
        ("old", 7, 7, "the password 1 before the newest still works"),
        ("oldest", 7, 7, "the password 3 before the newest still works"),
        ("forged", 7, 7, "the newest password is not the stored one"),
    ],
)
def test_what_is_older_or_nobodys_is_stale(password: str, marker: int, proof: int, words: str) -> None:
    [(check, detail)] = _details(Stored(hashed(password), _marker(marker), _marker(proof)))
    assert check == "stale"
    assert words in detail


@pytest.mark.parametrize(
    ("document", "drift"),
    [
        ({"ok": True, "counts": {"in_sync": 10, "not_in_idm": 1, "excluded": 1}}, []),
        ({"ok": True, "counts": {"in_sync": 0, "not_in_idm": 11, "excluded": 1}}, ["0 of 10 are in sync"]),
        ({"ok": True}, ["0 of 10 are in sync"]),
        ({}, ["audit gave no document"]),
        ({"ok": False, "users": [{"user": "ad1", "state": "behind", "where": "lost"}]}, ["behind lost"]),
    ],
)
def test_an_audit_that_has_not_compared_everybody_is_a_finding(document: dict[str, Any], drift: list[str]) -> None:
    site = SimpleNamespace(operate=lambda *_: document, dc=SimpleNamespace(dns_domain="ad.example"))
    assert [finding.detail for finding in audit(cast("Any", site), 10)] == drift


def _wire(tmp_path: Path, program: str) -> Wire:
    directory = SimpleNamespace(listening=SimpleNamespace(ldap=1, ldaps=2))
    site = SimpleNamespace(
        dc=SimpleNamespace(address="127.0.0.1"),
        cluster=SimpleNamespace(nodes=[]),
        directories={"a": directory},
        folder=tmp_path,
        on_site=lambda work: work(),
    )
    wire = Wire(cast("Any", site))
    wire._process.command = [sys.executable, "-c", program]
    return wire


_LISTENING = "import sys, time; print('listening on lo', file=sys.stderr, flush=True); "


@pytest.mark.parametrize(
    ("program", "fault", "hits"),
    [
        (_LISTENING + "print('x' * 99 + 'Kanarie7', flush=True); time.sleep(60)", "", 1),
        (_LISTENING + "print('header of a file', flush=True); time.sleep(60)", "nothing was captured", 0),
        (_LISTENING + "print('half of it', flush=True)", "tcpdump ended by itself", 0),
    ],
)
def test_a_capture_that_saw_nothing_is_no_proof(tmp_path: Path, program: str, fault: str, hits: int) -> None:
    wire = _wire(tmp_path, program)
    wire.start()
    child = wire._process.child
    assert child is not None
    if "sleep" not in program:
        child.wait(30)
    elif hits:
        wait_for(lambda: bool(wire.bytes), what="a captured piece")
    wire.stop()
    assert wire.fault.startswith(fault)
    assert bool(fault) == bool(wire.fault)
    assert len(wire.hits) == hits


def test_a_process_that_had_ended_before_a_fault_ended_it_is_told(tmp_path: Path) -> None:
    ended, runs = (Process(name, ["sleep", time], log=tmp_path / name) for name, time in (("c1", "0"), ("c2", "60")))
    site = Site.__new__(Site)
    site._ended_by_us, site.ended_early = set(), []
    try:
        for process in (ended, runs):
            process.start()
        assert ended.child is not None
        ended.child.wait(30)
        for process in (ended, runs):
            site.expect_end(cast("Any", SimpleNamespace(name=process.name, process=process)))
    finally:
        runs.kill()
    assert site.ended_early == ["c1"]


def test_an_internal_error_is_found_as_the_log_writes_it(tmp_path: Path) -> None:
    path, said = tmp_path / "c1.log", io.StringIO()
    logs.configure(sink=said)
    Log("consumer").info(Action.STARTED)
    Log("consumer").error(Action.INTERNAL_ERROR, error="ValueError")
    path.write_text(said.getvalue())
    (found,) = complaints([path])
    assert (found.check, found.subject) == ("internal", "c1.log")
