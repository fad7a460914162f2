"""Nobody reads the work queue: when that is a fault of its own, and when it rests on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from passrelay_ops.check import Result, Row
from passrelay_ops.doctor.consumers import explained

FILE = Path("/etc/passrelay/consumer.toml")
ONE, TWO = "ldaps://idm1.example", "ldaps://idm2.example"
SERVERS = [Row("idm.write", ONE, Result.UNKNOWN), Row("idm.write", TWO, Result.UNKNOWN)]
NOBODY = Row("broker.consumers", "b (ops.toml)", Result.FAIL, "nobody reads", "start it")


def failed(check: str, subject: str) -> Row:
    return Row(check, subject, Result.FAIL)


@pytest.mark.parametrize(
    ("others", "cause"),
    [
        ([], None),
        ([failed("idm.managers", ONE), failed("idm.connect", TWO)], "idm.managers"),
        ([failed("idm.connect", TWO)], None),
        ([failed("idm.unhashed", ONE), failed("idm.unhashed", TWO)], None),
        ([failed("broker.topology", "b (ops.toml)")], "broker.topology"),
        ([failed("broker.connect", "b (consumer.toml)")], "broker.connect"),
        ([failed("broker.connect", "b (producer.toml)")], None),
        ([failed("broker.permissions", "b (consumer.toml)")], None),
        ([failed("config.keys", str(FILE))], "config.keys"),
        ([failed("keys.signing", "dc1 in /etc/passrelay/keys")], None),
    ],
)
def test_it_rests_on_what_keeps_every_consumer_away_and_on_nothing_else(others: list[Row], cause: str | None) -> None:
    row = explained([NOBODY, *SERVERS, *others], [FILE])[0]
    assert row.result is (Result.FAIL if cause is None else Result.UNKNOWN)
    assert cause is None or row.detail == f"{cause} failed; nobody reads"


def test_a_server_that_takes_our_write_keeps_no_consumer_away() -> None:
    rows = [NOBODY, Row("idm.write", ONE, Result.OK), failed("idm.managers", ONE)]
    assert explained(rows, [FILE])[0] == NOBODY
