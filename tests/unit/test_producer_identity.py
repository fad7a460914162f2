"""When a key that was just put into the folder is in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from passrelay_producer.identity import wait_until_read


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
