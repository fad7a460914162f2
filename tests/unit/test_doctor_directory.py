"""What doctor makes of an IdM server: the write, the clock, clear text in the changelog, and replication."""

from __future__ import annotations

from datetime import timedelta

import pytest

from passrelay_consumer.directory import ProbeResult
from passrelay_ops.check import Result, Row
from passrelay_ops.doctor import directory
from passrelay_ops.doctor.directory import Agreement, agreement

URL = "ldaps://idm1.example"


def agreed(status: str, **more: str) -> Agreement:
    entry = {"nsds5replicahost": ("idm2.example",), "nsds5replicaport": ("389",)}
    entry["nsds5replicalastupdatestatus"] = (status,)
    return agreement({**entry, **{name: (value,) for name, value in more.items()}})


@pytest.mark.parametrize(
    ("status", "good"),
    [
        ("Error (0) Replica acquired successfully: Incremental update succeeded", True),
        ("Error (-1) Problem connecting to replica - LDAP error: Can't contact LDAP server", False),
        ("Error (18) Replication error acquiring replica: Incremental update transient error", False),
        ("", True),
    ],
)
def test_an_agreement_says_how_it_is_by_its_number(status: str, good: bool) -> None:
    assert agreed(status).good is good


def test_newer_servers_say_it_as_json_too() -> None:
    assert not agreed("Error (0) fine", nsds5replicalastupdatestatusjson='{"state": "red"}').good
    assert agreed("Error (0) fine", nsds5replicalastupdatestatusjson="no json").good


def test_replication_to_a_server_that_is_out_of_reach_follows_from_that() -> None:
    broken = agreed("Error (-1) Problem connecting to replica")
    assert directory._replication(URL, [broken], set()).result is Result.FAIL
    assert directory._replication(URL, [broken], {"idm2.example"}).result is Result.UNKNOWN
    off = agreed("Error (0) fine", nsds5replicaenabled="off")
    assert "switched off" in directory._replication(URL, [off], set()).detail
    assert directory._replication(URL, None, set()).result is Result.UNKNOWN


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("certificate verify failed: Hostname mismatch", {"idm.connect": Result.OK, "idm.certificate": Result.FAIL}),
        ("Connection refused", {"idm.connect": Result.FAIL, "idm.certificate": Result.UNKNOWN}),
    ],
)
def test_the_way_there_and_the_certificate_are_two_checks(detail: str, expected: dict[str, Result]) -> None:
    found = directory.told_apart([Row("idm.connect", URL, Result.FAIL, detail, "repair")])
    assert {row.id: row.result for row in found} == expected
    assert next(row.repair for row in found if row.result is Result.FAIL) == "repair"


def test_a_refused_write_is_a_fault_of_its_own_only_where_nothing_else_explains_it() -> None:
    probe = ProbeResult("expiry", "the server expires every password that we set", "managers add")
    alone = directory._write(URL, probe, [Row("idm.managers", URL, Result.UNKNOWN)])
    assert (alone.result, alone.repair) == (Result.FAIL, "managers add")
    explained = directory._write(URL, probe, [Row("idm.managers", URL, Result.FAIL)])
    assert explained.result is Result.UNKNOWN
    assert "idm.managers" in explained.detail


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(0, Result.OK), (60, Result.OK), (61, Result.FAIL), (-61, Result.FAIL), (None, Result.UNKNOWN)],
)
def test_a_clock_may_be_off_by_a_minute(seconds: int | None, result: Result) -> None:
    offset = None if seconds is None else timedelta(seconds=seconds)
    assert directory._clock(URL, ProbeResult(None, clock_offset=offset)).result is result


@pytest.mark.parametrize(
    ("switch", "result"), [("nolog", Result.OK), ("off", Result.OK), ("on", Result.FAIL), (None, Result.UNKNOWN)]
)
def test_clear_text_in_the_changelog(switch: str | None, result: Result) -> None:
    assert directory._unhashed(URL, switch).result is result
