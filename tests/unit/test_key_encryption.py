"""Private files under a passphrase: opened with it and as whose they are, refused otherwise, and never quoted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.key_encryption import CIPHER
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, generate, private_path, read_private, write_private, write_public
from passrelay_schemas.process_settings import KeysSettings
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import b64url
from tests.lab.folder import CANARY, canary_password
from tests.unit.builders import changed

PASSPHRASE = canary_password("-a-long-one")


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text(PASSPHRASE + "\n")
    return path


def test_an_encrypted_key_opens_with_its_passphrase_alone(tmp_path: Path, passphrase_file: Path) -> None:
    document, private = generate(KeyUse.RECIPIENT)
    path = write_private(tmp_path, document, private, passphrase=Secret(PASSPHRASE))
    assert read_private(path, document, passphrase_file=passphrase_file) == private
    content = path.read_text()
    assert b64url(private) not in content
    assert CANARY not in content
    assert json.loads(content)["encrypted"]["cipher"] == CIPHER
    with pytest.raises(KeyFileError, match=r"encrypted.*passphrase_file"):
        read_private(path, document)
    passphrase_file.write_text(PASSPHRASE + "x")
    with pytest.raises(KeyFileError, match="does not open it") as caught:
        read_private(path, document, passphrase_file=passphrase_file)
    assert CANARY not in str(caught.value)
    passphrase_file.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_private(path, document, passphrase_file=passphrase_file)


def test_two_files_of_one_key_and_passphrase_have_nothing_in_common(tmp_path: Path) -> None:
    document, private = generate(KeyUse.SIGNING, producer="dc1")
    encrypted = [
        json.loads(write_private(tmp_path, document, private, passphrase=Secret(PASSPHRASE)).read_bytes())["encrypted"]
        for _ in range(2)
    ]
    assert all(encrypted[0][name] != encrypted[1][name] for name in ("salt", "nonce", "sealed"))


@pytest.mark.parametrize("field", ["salt", "nonce", "sealed"])
def test_a_changed_file_does_not_open(tmp_path: Path, passphrase_file: Path, field: str) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_private(tmp_path, document, private, passphrase=Secret(PASSPHRASE))
    encrypted = json.loads(path.read_bytes())["encrypted"]
    text = encrypted[field]
    for broken in (("B" if text[0] == "A" else "A") + text[1:], text[:-4]):
        path.write_bytes(changed(path.read_bytes(), encrypted=encrypted | {field: broken}))
        with pytest.raises(KeyFileError):
            read_private(path, document, passphrase_file=passphrase_file)


def test_what_is_encrypted_for_one_key_opens_under_no_other_name(tmp_path: Path, passphrase_file: Path) -> None:
    document, private = generate(KeyUse.OPS)
    recipient = document.model_copy(update={"use": KeyUse.RECIPIENT})  # the same key, called something else
    path = write_private(tmp_path, document, private, passphrase=Secret(PASSPHRASE))
    path.write_bytes(changed(path.read_bytes(), use="recipient"))
    with pytest.raises(KeyFileError, match="does not open it"):
        read_private(path, recipient, passphrase_file=passphrase_file)


@pytest.mark.parametrize("changes", [{"private": "QUJD"}, {"encrypted": ...}, {"encrypted": {"cipher": "rot13"}}])
def test_a_file_has_exactly_one_known_form(tmp_path: Path, passphrase_file: Path, changes: dict[str, object]) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_private(tmp_path, document, private, passphrase=Secret(PASSPHRASE))
    path.write_bytes(changed(path.read_bytes(), **changes))
    with pytest.raises(KeyFileError, match="restore the key from its backup"):
        read_private(path, document, passphrase_file=passphrase_file)


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    document, private = generate(KeyUse.OPS)
    with pytest.raises(KeyFileError, match="shorter than 16"):
        write_private(tmp_path, document, private, passphrase=Secret(CANARY))
    assert list(tmp_path.iterdir()) == []


def test_a_keyring_opens_its_encrypted_keys(tmp_path: Path, passphrase_file: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    for use, producer in ((KeyUse.RECIPIENT, None), (KeyUse.SIGNING, "dc1")):
        document, private = generate(use, producer=producer)
        write_public(directory, document)
        write_private(directory, document, private, passphrase=Secret(PASSPHRASE))
    keyring = Keyring.of(KeysSettings(directory=directory, passphrase_file=passphrase_file))
    assert keyring.opener(keyring.recipient().key_id)
    assert keyring.signer("dc1").document.producer == "dc1"
    with pytest.raises(KeyFileError, match="encrypted"):
        Keyring(directory)


def test_while_another_file_has_a_fault_no_unchanged_key_is_decrypted_again(
    tmp_path: Path, passphrase_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    document, private = generate(KeyUse.RECIPIENT)
    write_public(directory, document)
    held = write_private(directory, document, private, passphrase=Secret(PASSPHRASE))
    decrypted: list[Path] = []

    def counted(path: Path, *arguments: Any, **more: Any) -> bytes:
        decrypted.append(path)
        return read_private(path, *arguments, **more)

    monkeypatch.setattr("passrelay_schemas.keyring.read_private", counted)
    keyring = Keyring(directory, passphrase_file=passphrase_file)
    opener = keyring.opener(document.key_id)
    (directory / "damaged.pub.json").write_text("{")
    for _ in range(2):
        with pytest.raises(KeyFileError, match="damaged"):
            keyring.refresh()
    assert decrypted == [held]
    assert keyring.opener(document.key_id) is opener
    # What changes is read all the same, again at each look, and the key stays as it was.
    (directory / "damaged.pub.json").unlink()
    held.chmod(0o644)
    for _ in range(2):
        with pytest.raises(KeyFileError, match=held.name):
            keyring.refresh()
    assert keyring.opener(document.key_id) is opener
    held.chmod(0o600)
    assert keyring.refresh() is True
    write_public(directory, document.with_status(KeyStatus.RETIRED))
    assert keyring.refresh() is True
    assert keyring.opener(document.key_id).document.status is KeyStatus.RETIRED


def test_a_link_to_a_credential_that_is_not_there_counts_as_no_private_key(tmp_path: Path) -> None:
    document, private = generate(KeyUse.OPS)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    held = write_private(credentials, document, private)
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    write_public(directory, document)
    private_path(directory, document.key_id).symlink_to(held)
    keyring = Keyring(directory)
    assert keyring.has_private(document)
    assert keyring.opener(document.key_id, KeyUse.OPS)
    held.unlink()
    keyring.refresh()
    assert not keyring.has_private(document)
    assert list(Keyring(directory).documents()) == [document]
