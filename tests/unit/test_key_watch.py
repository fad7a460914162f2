"""A running service and its key directory: a fault is told again while it lasts, and hides no revocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from passrelay_producer.identity import Identity
from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.key_watch import KeyWatch
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, generate, write_private, write_public
from passrelay_schemas.logs import Log
from tests.unit.builders import PRODUCER


def test_a_fault_is_told_again_while_it_lasts_and_a_revocation_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("passrelay_schemas.key_watch.time.monotonic", lambda: now)
    signing, _ = generate(KeyUse.SIGNING, producer=PRODUCER)
    write_public(tmp_path, signing)
    keyring = Keyring(tmp_path)
    watch = KeyWatch(keyring, Log("test"))

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


def test_a_look_tells_whether_anything_counts_anew_also_beside_a_fault(tmp_path: Path) -> None:
    signing, _ = generate(KeyUse.SIGNING, producer=PRODUCER)
    write_public(tmp_path, signing)
    watch = KeyWatch(Keyring(tmp_path), Log("test"))
    (tmp_path / "damaged.pub.json").write_text("{")
    assert watch.look() is False
    write_public(tmp_path, signing.with_status(KeyStatus.REVOKED))
    assert watch.look() is True
    assert watch.look() is False


def test_nobodys_fault_makes_a_producer_sign_with_its_revoked_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    keys = []
    for use, producer in ((KeyUse.RECIPIENT, None), (KeyUse.SIGNING, PRODUCER), (KeyUse.SIGNING, PRODUCER)):
        document, private = generate(use, producer=producer)
        write_private(tmp_path, document, private)
        keys.append(document)
    _, old, new = keys
    for document in (keys[0], old):
        write_public(tmp_path, document)
    identity = Identity(tmp_path, log=Log("test"))
    assert identity.signer(PRODUCER).document == old
    (tmp_path / "damaged.pub.json").write_text("{")
    assert identity.signer(PRODUCER).document == old
    write_public(tmp_path, old.with_status(KeyStatus.REVOKED))
    with pytest.raises(KeyFileError, match="no active signing key"):
        identity.signer(PRODUCER)
    write_public(tmp_path, new)
    assert identity.signer(PRODUCER).document == new
