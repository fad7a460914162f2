"""The keyring: what changes in its directory counts at the next look, and a fault never half-loads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from passrelay_schemas.errors import KeyFileError, UnknownKeyError, UntrustedError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import (
    KeyDocument,
    KeyStatus,
    KeyUse,
    generate,
    private_path,
    public_path,
    write_private,
    write_public,
)
from tests.unit.builders import PRODUCER


def add(
    directory: Path, use: KeyUse, *, producer: str | None = None, private: bool = True, age: int = 0
) -> KeyDocument:
    document, secret = generate(use, producer=producer)
    document = document.model_copy(update={"created_at": document.created_at - timedelta(days=age)})
    write_public(directory, document)
    if private:
        write_private(directory, document, secret)
    return document


def set_status(directory: Path, document: KeyDocument, status: KeyStatus) -> None:
    write_public(directory, document.model_copy(update={"status": status}))


def test_a_new_key_is_seen_at_the_next_refresh(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    assert keyring.newest(KeyUse.RECIPIENT) is None
    document = add(tmp_path, KeyUse.RECIPIENT)
    assert keyring.refresh() is True
    assert keyring.refresh() is False
    assert keyring.recipient() == document
    assert keyring.opener(document.key_id).document == document


def test_a_removed_key_is_gone_at_the_next_refresh(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.RECIPIENT)
    keyring = Keyring(tmp_path)
    private_path(tmp_path, document.key_id).unlink()
    assert keyring.refresh() is True
    with pytest.raises(UnknownKeyError, match=document.key_id):
        keyring.opener(document.key_id)
    public_path(tmp_path, document.key_id).unlink()
    assert keyring.refresh() is True
    assert list(keyring.documents()) == []


def test_a_revocation_is_seen_at_the_next_refresh(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    keyring = Keyring(tmp_path)
    assert keyring.signing_key(document.key_id).status is KeyStatus.ACTIVE
    set_status(tmp_path, document, KeyStatus.REVOKED)
    assert keyring.refresh() is True
    assert keyring.signing_key(document.key_id).status is KeyStatus.REVOKED


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.SIGNING, producer="dc1")
    path = public_path(tmp_path, document.key_id)
    before = path.stat()
    keyring = Keyring(tmp_path)
    path.write_text(path.read_text().replace('"dc1"', '"dc2"'))  # cp -p and rsync --times keep the time like this
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert keyring.refresh() is True
    assert keyring.signing_key(document.key_id).producer == "dc2"


def test_a_widened_mode_is_seen_and_the_old_key_stays(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.RECIPIENT)
    keyring = Keyring(tmp_path)
    path = private_path(tmp_path, document.key_id)
    path.chmod(0o644)
    for _ in range(2):  # the fault is told again until it is repaired
        with pytest.raises(KeyFileError, match="chmod 600"):
            keyring.refresh()
        assert keyring.opener(document.key_id).document == document
    path.chmod(0o600)
    keyring.refresh()
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Keyring(tmp_path)


def test_a_damaged_file_stops_the_start_and_a_refresh_takes_the_others(tmp_path: Path) -> None:
    old = add(tmp_path, KeyUse.RECIPIENT)
    keyring = Keyring(tmp_path)
    new = add(tmp_path, KeyUse.RECIPIENT)
    damaged = tmp_path / "damaged.pub.json"
    damaged.write_text("{")
    with pytest.raises(KeyFileError, match=r"damaged\.pub\.json"):
        keyring.refresh()
    assert {document.key_id for document in keyring.documents()} == {old.key_id, new.key_id}
    assert keyring.opener(new.key_id)
    with pytest.raises(KeyFileError, match=r"damaged\.pub\.json"):
        Keyring(tmp_path)
    damaged.unlink()
    assert keyring.refresh() is True
    assert {document.key_id for document in keyring.documents()} == {old.key_id, new.key_id}


def wide_private(directory: Path) -> None:
    private_path(directory, add(directory, KeyUse.RECIPIENT).key_id).chmod(0o644)


def damaged_document(directory: Path) -> None:
    (directory / "damaged.pub.json").write_text("{")


def open_directory(directory: Path) -> None:
    directory.chmod(0o777)


@pytest.mark.parametrize("slip", [wide_private, damaged_document, open_directory])
def test_a_slip_elsewhere_hides_no_revocation(tmp_path: Path, slip: Callable[[Path], None]) -> None:
    signing = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    recipient = add(tmp_path, KeyUse.RECIPIENT)
    keyring = Keyring(tmp_path)
    slip(tmp_path)
    for document in (signing, recipient):
        set_status(tmp_path, document, KeyStatus.REVOKED)
    for _ in range(2):
        with pytest.raises(KeyFileError):
            keyring.refresh()
        assert keyring.signing_key(signing.key_id).status is KeyStatus.REVOKED
        with pytest.raises(UnknownKeyError):
            keyring.opener(recipient.key_id)


def test_a_faulty_private_file_keeps_its_key_but_not_its_status(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.RECIPIENT)
    keyring = Keyring(tmp_path)
    private_path(tmp_path, document.key_id).chmod(0o644)
    set_status(tmp_path, document, KeyStatus.REVOKED)
    with pytest.raises(KeyFileError, match="chmod 600"):
        keyring.refresh()
    with pytest.raises(UnknownKeyError):
        keyring.opener(document.key_id)


def test_a_damaged_document_leaves_its_key_as_it_was(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    keyring = Keyring(tmp_path)
    public_path(tmp_path, document.key_id).write_text("{")
    with pytest.raises(KeyFileError):
        keyring.refresh()
    assert keyring.signing_key(document.key_id) == document


def test_nobody_enrolls_a_key_through_a_directory_that_others_may_write(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    document = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    tmp_path.chmod(0o777)
    with pytest.raises(KeyFileError, match="enroll keys of their own"):
        keyring.refresh()
    with pytest.raises(UntrustedError):
        keyring.signing_key(document.key_id)


def test_documents_alone_are_read_where_private_files_are_somebody_elses(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.RECIPIENT)
    private_path(tmp_path, document.key_id).chmod(0o440)
    keyring = Keyring(tmp_path, private=False)
    assert keyring.recipient() == document
    assert keyring.has_private(document)
    with pytest.raises(UnknownKeyError):
        keyring.opener(document.key_id)


@pytest.mark.parametrize("name", ["0.pub.json", "zzz.pub.json", "old copy.pub.json"])
def test_a_forgotten_copy_hides_no_revocation_from_who_runs(tmp_path: Path, name: str) -> None:
    document = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    keyring = Keyring(tmp_path)
    shutil.copy(public_path(tmp_path, document.key_id), tmp_path / name)
    set_status(tmp_path, document, KeyStatus.REVOKED)
    with pytest.raises(KeyFileError, match="in another file too"):
        keyring.refresh()
    assert keyring.signing_key(document.key_id).status is KeyStatus.REVOKED


@pytest.mark.parametrize("name", ["0.pub.json", "zzz.pub.json", "old copy.pub.json"])
def test_a_forgotten_copy_cannot_undo_a_revocation(tmp_path: Path, name: str) -> None:
    document = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    shutil.copy(public_path(tmp_path, document.key_id), tmp_path / name)
    set_status(tmp_path, document, KeyStatus.REVOKED)
    with pytest.raises(KeyFileError, match=f"{document.key_id} is in another file too"):
        Keyring(tmp_path)


def test_hidden_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.OPS)
    keyring = Keyring(tmp_path)
    for name in (".half-written.pub.json", f".{document.key_id}.pub.json.1.new", "README", "x.key.bak", ".x.key"):
        (tmp_path / name).write_text("{")
    assert keyring.refresh() is False
    assert list(Keyring(tmp_path).documents()) == [document]


def test_swapped_private_files_stop_the_start(tmp_path: Path) -> None:
    first, second = (add(tmp_path, KeyUse.RECIPIENT) for _ in range(2))
    one, other = private_path(tmp_path, first.key_id), private_path(tmp_path, second.key_id)
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    with pytest.raises(KeyFileError, match="does not belong to"):
        Keyring(tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"missing.*keys init"):
        Keyring(tmp_path / "keys")
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot be read"):
        Keyring(tmp_path / "file")


def test_the_youngest_active_key_is_sealed_to(tmp_path: Path) -> None:
    old = add(tmp_path, KeyUse.RECIPIENT, age=10)
    new = add(tmp_path, KeyUse.RECIPIENT, age=1)
    assert Keyring(tmp_path).recipient() == new
    set_status(tmp_path, new, KeyStatus.RETIRED)
    keyring = Keyring(tmp_path)
    assert keyring.recipient() == old
    assert keyring.opener(new.key_id).document.status is KeyStatus.RETIRED
    set_status(tmp_path, old, KeyStatus.RETIRED)
    with pytest.raises(KeyFileError, match="no active recipient key"):
        Keyring(tmp_path).recipient()


def test_a_revoked_recipient_key_opens_nothing(tmp_path: Path) -> None:
    document = add(tmp_path, KeyUse.RECIPIENT)
    set_status(tmp_path, document, KeyStatus.REVOKED)
    with pytest.raises(UnknownKeyError):
        Keyring(tmp_path).opener(document.key_id)


def test_a_key_serves_its_own_use_only(tmp_path: Path) -> None:
    recipient = add(tmp_path, KeyUse.RECIPIENT)
    ops = add(tmp_path, KeyUse.OPS)
    signing = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER)
    keyring = Keyring(tmp_path)
    assert keyring.newest(KeyUse.OPS) == ops
    for key_id in (recipient.key_id, ops.key_id, "unknown-key"):
        with pytest.raises(UntrustedError, match=key_id):
            keyring.signing_key(key_id)
    for key_id in (signing.key_id, ops.key_id, "unknown-key"):
        with pytest.raises(UnknownKeyError, match=key_id):
            keyring.opener(key_id)
    with pytest.raises(UnknownKeyError):
        keyring.opener(recipient.key_id, KeyUse.OPS)
    assert keyring.opener(ops.key_id, KeyUse.OPS).document == ops


def test_the_signer_is_this_hosts_youngest_active_key(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no active signing key"):
        Keyring(tmp_path).signer()
    old = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER, age=10)
    new = add(tmp_path, KeyUse.SIGNING, producer=PRODUCER, age=1)
    add(tmp_path, KeyUse.SIGNING, producer="dc9", private=False)  # another host's public document
    keyring = Keyring(tmp_path)
    assert keyring.signer().document == new
    assert keyring.signer(PRODUCER).document == new
    with pytest.raises(KeyFileError, match="of producer dc9"):
        keyring.signer("dc9")
    for document in (old, new):
        set_status(tmp_path, document, KeyStatus.REVOKED)
    keyring.refresh()
    with pytest.raises(KeyFileError, match=f"keys rotate signing {PRODUCER}"):  # init's would be used at once
        keyring.signer()
    set_status(tmp_path, old, KeyStatus.ACTIVE)
    set_status(tmp_path, new, KeyStatus.RETIRED)
    keyring.refresh()
    assert keyring.signer().document == old
