"""A running consumer and its key directory: a fault is told again while it lasts, and hides no revocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from passrelay_consumer.key_watch import KeyWatch
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, generate, write_public
from passrelay_schemas.logs import Log
from tests.unit.builders import PRODUCER


def test_a_fault_is_told_again_while_it_lasts_and_a_revocation_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("passrelay_consumer.key_watch.time.monotonic", lambda: now)
    signing, _ = generate(KeyUse.SIGNING, producer=PRODUCER)
    write_public(tmp_path, signing)
    keyring = Keyring(tmp_path)
    watch = KeyWatch(keyring, ConsumerMetrics(), Log("consumer"))

    def told() -> list[str]:
        with capture_logs() as lines:
            watch.look()
        return [line["action"] for line in lines]

    assert told() == []
    damaged = tmp_path / "damaged.pub.json"
    damaged.write_text("{")
    assert told() == ["keyring_fault"]
    assert told() == []
    write_public(tmp_path, signing.with_status(KeyStatus.REVOKED))
    assert told() == ["keyring_read"]
    assert keyring.signing_key(signing.key_id).status is KeyStatus.REVOKED
    now += 601
    assert told() == ["keyring_fault"]
    damaged.unlink()
    assert told() == ["keyring_read"]
    damaged.write_text("{")
    assert told() == ["keyring_fault"]
