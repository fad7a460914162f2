"""What doctor makes of what the broker said: which check fails, which rest on it, and with which repair."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from passrelay_ops.check import Result, Row
from passrelay_ops.doctor import broker, rights
from passrelay_ops.doctor.broker import BrokerView
from passrelay_ops.doctor.greeting import Greeting, certificate_words
from passrelay_ops.doctor.rights import Act, Answer, Right
from passrelay_ops.topology import Finding, State
from passrelay_schemas.topology import DEAD, EVENTS, JOURNAL, NEWS, RETRY

ENDS = datetime(2027, 1, 1, tzinfo=UTC)
GOOD = Greeting(secure=True, expires_at=ENDS)


def asked(role: str) -> dict[Right, Answer]:
    """The answers to a login that may do exactly what its role needs."""
    every = [
        *(Right(Act.WRITE, name) for name in (EVENTS, RETRY, DEAD, JOURNAL, NEWS)),
        *(Right(Act.READ, name) for name in (EVENTS, DEAD, JOURNAL)),
        Right(Act.CONFIGURE, EVENTS),
    ]
    return {right: Answer.PERMITTED if rights.needed(role, right) else Answer.REFUSED for right in every}


def view(role: str, **changes: object) -> BrokerView:
    findings = (Finding("queue", EVENTS, State.OK),) if role == "ops" else ()
    given: dict[str, object] = {"user": role, "vhost": "passrelay", "version": "4.0.5", "rights": asked(role)}
    given |= {"findings": findings, "consumers": 1 if role == "ops" else None, "looked_at": ENDS - timedelta(days=90)}
    return BrokerView(GOOD, **{**given, **changes})  # type: ignore[arg-type]


def results(rows: list[Row]) -> dict[str, Result]:
    return {row.id: row.result for row in rows}


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.result is Result.FAIL]


@pytest.mark.parametrize("role", ["producer", "consumer", "ops"])
def test_each_role_with_exactly_its_permissions_is_good(role: str) -> None:
    rows = broker.rows("b", role, view(role))
    assert results(rows) == dict.fromkeys(broker.ids(role), Result.OK)
    assert ("broker.limits" in results(rows)) is (role == "ops")


@pytest.mark.parametrize(
    ("greeting", "check"),
    [
        (Greeting(secure=True, unreachable="refused"), "broker.connect"),
        (Greeting(secure=True, certificate_fault="expired", certificate_repair="renew"), "broker.certificate"),
        (Greeting(secure=True, client_fault="unknown ca"), "broker.client"),
    ],
)
def test_what_stands_behind_a_fault_is_unknown(greeting: Greeting, check: str) -> None:
    rows = broker.rows("b", "ops", BrokerView(greeting, "ops", "passrelay"))
    assert [row.id for row in rows] == list(broker.ids("ops"))
    position = broker.ids("ops").index(check)
    assert [row.result for row in rows[: position + 1]] == [Result.OK] * position + [Result.FAIL]
    assert {row.result for row in rows[position + 1 :]} == {Result.UNKNOWN}


@pytest.mark.parametrize(("days", "result"), [(15, Result.OK), (13, Result.FAIL)])
def test_a_certificate_near_its_end_fails_alone(days: int, result: Result) -> None:
    rows = broker.rows("b", "ops", view("ops", looked_at=ENDS - timedelta(days=days)))
    assert results(rows) == dict.fromkeys(broker.ids("ops"), Result.OK) | {"broker.certificate": result}
    for row in failed(rows):
        assert row.detail == "good until 2027-01-01: less than 14 days are left"
        assert "renew the broker's certificate" in row.repair


@pytest.mark.parametrize(
    ("code", "repair"), [(10, "renew"), (9, "clock"), (62, "a name that stands in"), (64, "a name"), (20, "ca_file")]
)
def test_each_fault_of_a_certificate_has_its_own_repair(code: int, repair: str) -> None:
    assert repair in certificate_words(code, "OpenSSL's words")[1]


def test_a_work_queue_that_nobody_reads_is_a_fault_and_says_how_much_waits() -> None:
    [row] = failed(broker.rows("b", "ops", view("ops", consumers=0, waiting=7)))
    assert row.id == "broker.consumers"
    assert "7 messages wait" in row.detail
    assert "passrelay consumer run" in row.repair
    unseen = broker.rows("b", "ops", view("ops", consumers=None))
    assert results(unseen)["broker.consumers"] is Result.UNKNOWN


def test_a_permission_too_few_and_one_too_many_are_named_with_the_command() -> None:
    changed = asked("producer") | {
        Right(Act.WRITE, EVENTS): Answer.REFUSED,
        Right(Act.READ, EVENTS): Answer.PERMITTED,
        Right(Act.WRITE, DEAD): Answer.MISSING,
    }
    [row] = failed(broker.rows("b", "producer", view("producer", rights=changed)))
    assert row.id == "broker.permissions"
    assert f"may not write {EVENTS}" in row.detail
    assert f"read {EVENTS}" in row.detail
    assert f"write {DEAD}" in row.detail, "permitted, though there is no such exchange"
    assert row.repair == (r"`rabbitmqctl set_permissions -p passrelay producer '^$' '^passrelay\.(events|news)$' '^$'`")


def test_what_is_missing_is_topology_and_what_is_refused_is_not_known_to_be() -> None:
    missing = asked("consumer") | {Right(Act.WRITE, JOURNAL): Answer.MISSING}
    [row] = failed(broker.rows("b", "consumer", view("consumer", rights=missing)))
    assert (row.id, row.repair) == ("broker.topology", "`passrelay topology apply`")
    assert JOURNAL in row.detail
    refused = asked("consumer") | {Right(Act.READ, EVENTS): Answer.REFUSED}
    rows = broker.rows("b", "consumer", view("consumer", rights=refused))
    assert results(rows)["broker.topology"] is Result.UNKNOWN
    assert [row.id for row in failed(rows)] == ["broker.permissions"]


def test_a_queue_of_another_shape_and_one_that_is_missing_are_told_apart() -> None:
    different = Finding("queue", EVENTS, State.DIFFERENT, "x-delivery-limit must be 1000, it is 3: delete it")
    [row] = failed(broker.rows("b", "ops", view("ops", findings=(different,))))
    assert (row.id, row.repair) == ("broker.limits", "delete it")
    gone = Finding("queue", EVENTS, State.MISSING, "missing")
    rows = broker.rows("b", "ops", view("ops", findings=(gone,)))
    assert [row.id for row in failed(rows)] == ["broker.topology"]
    assert results(rows)["broker.limits"] is Result.UNKNOWN


@pytest.mark.parametrize(
    ("version", "good"), [("3.10.8", True), ("4.0.5", True), ("3.9.29", False), ("3.8", False), ("unknown", False)]
)
def test_versions_are_compared_as_numbers(version: str, good: bool) -> None:
    assert bool(failed(broker.rows("b", "producer", view("producer", version=version)))) is not good
