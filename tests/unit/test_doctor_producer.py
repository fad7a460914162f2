"""What doctor makes of a producer: on its own host, and heard from far away."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from passrelay_ops.check import Result, Row
from passrelay_ops.doctor import keyring, producers, samba, spool
from passrelay_ops.doctor.samba import KeyFile, SambaView, fits
from passrelay_ops.doctor.spool import SpoolView
from passrelay_ops.news import Heard, Unbelieved
from passrelay_producer.sources import PendingReason
from passrelay_producer.spool_statistics import Statistics
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, generate
from passrelay_schemas.news import News
from passrelay_schemas.settings import OpsSettings, ProducerSettings
from passrelay_schemas.source_settings import SambaSourceSettings
from passrelay_schemas.verdict import Reason

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FINGERPRINT = "81DB980FDF46F8CDB414F74879724C885CFBA7AC"
SUBKEY = "0123456789ABCDEF0123456789ABCDEF01234567"
SAMBA = SambaSourceSettings()
SETTINGS = ProducerSettings.model_validate({"broker": {"url": "amqp://127.0.0.1/"}, "source": {"samba": {}}})


def seen(**changes: Any) -> SambaView:
    good = {
        "domain": "lab.example",
        "key_ids": (FINGERPRINT,),
        "key": KeyFile("", (FINGERPRINT, SUBKEY)),
        "proof": "opens",
        "looked_at": NOW,
    }
    return SambaView(**{**good, **changes})


def results(view: SambaView) -> dict[str, Result]:
    rows = samba.rows("producer.toml", SETTINGS, SAMBA, view)
    assert [row.id for row in rows] == list(samba.ids())
    return {row.id: row.result for row in rows if row.result is not Result.OK}


# --- the controller


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (seen(), {}),
        (seen(key_ids=()), {"producer.cleartext": Result.FAIL}),
        (
            seen(key_ids=(), proof=PendingReason.NO_CLEAR_TEXT),
            {"producer.cleartext": Result.FAIL, "producer.proof": Result.UNKNOWN},
        ),
        (
            seen(key=KeyFile("", (SUBKEY,)), proof=PendingReason.KEY_MISSING),
            {"producer.gpg_key": Result.FAIL, "producer.proof": Result.UNKNOWN},
        ),
        (seen(key=KeyFile("", (FINGERPRINT,), NOW - timedelta(days=1))), {"producer.gpg_key": Result.FAIL}),
        (seen(key=KeyFile("file: gone: export it")), {"producer.gpg_key": Result.FAIL}),
        (seen(proof=PendingReason.STALE_CLEAR_TEXT), {"producer.proof": Result.FAIL}),
        (seen(proof=None), {"producer.proof": Result.UNKNOWN}),
        (seen(key_ids=None), {"producer.cleartext": Result.UNKNOWN}),
        (
            seen(socket_fault="socket: no such file: is samba running", domain="", proof=None),
            {
                "producer.socket": Result.FAIL,
                "producer.domain": Result.UNKNOWN,
                "producer.filter": Result.UNKNOWN,
                "producer.proof": Result.UNKNOWN,
            },
        ),
    ],
)
def test_one_fault_of_a_controller_is_one_failed_check(view: SambaView, expected: Mapping[str, Result]) -> None:
    assert results(view) == expected


@pytest.mark.parametrize(
    ("key_id", "good"),
    [
        (FINGERPRINT, True),
        (FINGERPRINT[-16:].lower(), True),
        ("0x" + FINGERPRINT[-8:], True),
        (SUBKEY, True),
        ("F" * 40, False),
        ("capture@lab.example", True),
    ],
)
def test_a_key_is_named_by_any_part_that_gnupg_takes(key_id: str, good: bool) -> None:
    assert fits([key_id], [FINGERPRINT, SUBKEY]) is good


# --- the spool


def statistics(**changes: Any) -> Statistics:
    given = {"events": {}, "oldest_queued_by_key": {}, "used_bytes": 0, "free_bytes": 10**9, "pending": {}}
    return Statistics(**{**given, **changes})


def begun(found: Statistics, *, running: bool) -> SpoolView:
    return SpoolView(initialised=True, statistics=found, running=running)


def spooled(view: SpoolView, *, broker_good: bool = True) -> dict[str, Result]:
    rows = spool.rows("producer.toml", SETTINGS, view, broker_good=broker_good, now=NOW.timestamp())
    return {row.id: row.result for row in rows if row.result is not Result.OK}


def test_a_spool_that_is_full_or_not_begun_and_a_producer_that_does_not_run() -> None:
    assert spooled(begun(statistics(), running=True)) == {}
    assert spooled(begun(statistics(free_bytes=1000), running=True)) == {"producer.spool": Result.FAIL}
    assert spooled(begun(statistics(), running=False)) == {"producer.running": Result.FAIL}
    assert spooled(SpoolView(running=False)) == {
        "producer.initialised": Result.FAIL,
        "producer.running": Result.UNKNOWN,
    }


def test_what_waits_long_is_a_fault_of_its_own_only_where_nothing_else_explains_it() -> None:
    old = statistics(oldest_queued_by_key={"key": NOW.timestamp() - 601})
    assert spooled(begun(old, running=True)) == {"producer.published": Result.FAIL}
    assert spooled(begun(old, running=True), broker_good=False) == {"producer.published": Result.UNKNOWN}
    assert spooled(begun(old, running=False)) == {
        "producer.running": Result.FAIL,
        "producer.published": Result.UNKNOWN,
    }


# --- keys


def key(producer: str = "dc1", **changes: Any) -> KeyDocument:
    return generate(KeyUse.SIGNING, producer=producer)[0].model_copy(update=changes)


def test_a_producer_without_a_key_that_is_believed_is_named() -> None:
    assert keyring.signing("keys", "dc1", [key()]).result is Result.OK
    revoked = keyring.signing("keys", "dc1", [key(status=KeyStatus.REVOKED), key("dc2")])
    assert (revoked.result, "revoked" in revoked.detail) == (Result.FAIL, True)
    assert "keys enroll" in keyring.signing("keys", "dc1", [key("dc2")]).repair


def test_only_keys_in_use_expire() -> None:
    gone = NOW - timedelta(days=1)
    assert keyring.expiry("keys", [key(expires_at=gone)], NOW).result is Result.FAIL
    assert keyring.expiry("keys", [key(expires_at=gone, status=KeyStatus.RETIRED)], NOW).result is Result.OK
    soon = keyring.expiry("keys", [key(expires_at=NOW + timedelta(days=3))], NOW)
    assert (soon.result, "ends on 2026-11-28" in soon.detail) == (Result.OK, True)


# --- heard from far away


def news(producer: str = "dc1", age: timedelta = timedelta(), **changes: Any) -> News:
    given = {
        "signing_key_id": "A" * 24,
        "producer": producer,
        "source": "samba",
        "domains": ("lab.example",),
        "controller": f"{producer}.lab.example",
        "openpgp_fingerprints": (FINGERPRINT,),
        "version": "1",
        "sent_at": NOW - age,
        "started_at": NOW - age,
    }
    return News.model_validate({**given, **changes})


def heard(*said: News, unbelieved: tuple[Unbelieved, ...] = ()) -> Heard:
    return Heard({one.producer: one for one in said}, unbelieved)


def ops(*names: str) -> OpsSettings:
    domain = {"name": "lab.example", "sid": "S-1-5-21-1-2-3", "producers": names}
    return OpsSettings.model_validate({"broker": {"url": "amqp://127.0.0.1/"}, "domain": [domain]})


def test_a_silent_producer_fails_unless_another_check_says_why() -> None:
    silent = heard(news("dc2", timedelta(minutes=6)))
    rows = producers.alive(["dc1", "dc2"], heard(news(), *silent.news.values()), {}, NOW)
    assert [row.result for row in rows] == [Result.OK, Result.FAIL]
    [explained] = producers.alive(["dc2"], silent, {"dc2": "producer.running"}, NOW)
    assert (explained.result, "producer.running" in explained.detail) == (Result.UNKNOWN, True)
    [deaf] = producers.alive(["dc1"], "a check of the broker is not ok", {}, NOW)
    assert deaf.result is Result.UNKNOWN


def test_who_signs_with_a_revoked_key_is_named_and_forgers_of_a_living_one_are_not() -> None:
    forged = Unbelieved(7, Reason.REVOKED, "revoked", "dc1", "K" * 24)
    row = Row("keys.signing", "dc1 in keys", Result.OK)
    assert producers.misused(heard(news(), unbelieved=(forged,)), NOW) == {}
    wrong = producers.misused(heard(unbelieved=(forged,)), NOW)
    failed = producers.signing(row, wrong["dc1"])
    assert (failed.result, "K" * 24 in failed.detail) == (Result.FAIL, True)
    assert producers.signing(row, None) is row


def test_producers_of_a_domain_with_different_keys_are_named() -> None:
    [row] = producers.one_key(ops(), heard(news(), news("dc2", openpgp_fingerprints=(SUBKEY,))))
    assert (row.result, SUBKEY in row.detail, "dc1" in row.detail) == (Result.FAIL, True, True)
    both = news("dc2", openpgp_fingerprints=(SUBKEY, FINGERPRINT))
    assert producers.one_key(ops(), heard(news(), both))[0].result is Result.OK
    assert producers.one_key(ops(), heard(news("feed", source="stdin")))[0].result is Result.OK


def test_a_controller_whose_producer_is_silent_is_not_told_twice() -> None:
    row = Row("ad.producers", "DC1.lab.example", Result.FAIL, "silent", "start it")
    silent = heard(news(age=timedelta(minutes=6)))
    assert producers.at_controller(row, silent, ["dc1"]).result is Result.UNKNOWN
    assert producers.at_controller(row, silent, []).result is Result.FAIL
    assert producers.at_controller(row, heard(news("dc2")), ["dc2"]).result is Result.FAIL, "another controller's"


def test_who_should_be_heard() -> None:
    keys = [key("dc1"), key("dc2", status=KeyStatus.REVOKED)]
    assert producers.expected(ops("dc3"), keys) == ["dc3"]
    assert producers.expected(ops(), keys) == ["dc1"]


def test_the_lock_of_a_directory_is_seen_without_taking_it(tmp_path: Path) -> None:
    from passrelay_producer.spool_lock import alone

    assert spool._held(tmp_path) is False
    with alone(tmp_path):
        assert spool._held(tmp_path) is True
    assert spool._held(tmp_path / "nowhere") is None
