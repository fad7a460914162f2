"""When a key that was just put into the folder is in use."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from passrelay_producer import service
from passrelay_producer.identity import wait_until_read
from passrelay_producer.spool import Spool
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.source_settings import SpoolSettings


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_young_file_is_waited_for_and_an_old_one_is_not(tmp_path: Path, slept: list[float]) -> None:
    (tmp_path / "a.pub.json").touch()
    wait_until_read(tmp_path)
    for path in (tmp_path / "a.pub.json", tmp_path):
        os.utime(path, (1000, 1000))
    wait_until_read(tmp_path)
    assert slept[0] > 2
    assert slept[1] == 0


def test_a_link_to_a_credential_that_is_not_there_now_is_no_fault(tmp_path: Path, slept: list[float]) -> None:
    (tmp_path / "a.key").symlink_to("/run/credentials/passrelay-producer.service/a.key")
    wait_until_read(tmp_path)
    wait_until_read(tmp_path / "missing")
    assert slept[0] > 2
    assert slept[1] == 0


def test_republish_waits_for_the_keys_before_it_touches_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else it is published with the key that was just revoked (found by a campaign of faults).
    done: list[object] = []
    monkeypatch.setattr(service, "wait_until_read", done.append)

    def republish(_: Spool, __: object) -> int:
        done.append("republished")
        return 0

    monkeypatch.setattr(Spool, "republish", republish)
    settings = SimpleNamespace(
        keys=SimpleNamespace(directory=tmp_path / "keys"), spool=SpoolSettings(path=tmp_path / "spool.db")
    )
    service.republish(cast("Any", settings), utc_now() - timedelta(hours=1))
    assert done == [tmp_path / "keys", "republished"]
