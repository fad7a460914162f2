"""Key files: damaged, swapped, or readable by others, they are refused by name before anything uses them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from passrelay_schemas import limits
from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.keys import (
    ED25519,
    KeyDocument,
    KeyStatus,
    KeyUse,
    generate,
    key_id_of,
    private_path,
    public_path,
    read_private,
    read_public,
    write_private,
    write_public,
)
from passrelay_schemas.strict_json import b64url
from passrelay_schemas.suites import MLKEM768_X25519, P256, SUITES
from tests.unit.builders import PRODUCER, changed

KINDS: dict[str, Callable[[], tuple[KeyDocument, bytes]]] = {
    "recipient": lambda: generate(KeyUse.RECIPIENT),
    "recipient p256": lambda: generate(KeyUse.RECIPIENT, algorithm=P256),
    "signing": lambda: generate(KeyUse.SIGNING, producer=PRODUCER),
    "ops": lambda: generate(KeyUse.OPS),
}


@pytest.fixture(params=list(KINDS))
def pair(request: pytest.FixtureRequest) -> tuple[KeyDocument, bytes]:
    return KINDS[request.param]()


def test_keys_come_back_from_their_files(tmp_path: Path, pair: tuple[KeyDocument, bytes]) -> None:
    document, private = pair
    public_file, private_file = write_public(tmp_path, document), write_private(tmp_path, document, private)
    assert (public_file, private_file) == (
        public_path(tmp_path, document.key_id),
        private_path(tmp_path, document.key_id),
    )
    assert read_public(public_file) == document
    assert read_private(private_file, document) == private
    assert stat.S_IMODE(private_file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([public_file.name, private_file.name])
    assert b64url(private) not in public_file.read_text()


def test_a_private_file_is_never_wider_than_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    document, private = generate(KeyUse.OPS)
    before = os.umask(0)
    try:
        path = write_private(tmp_path, document, private)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes files for other accounts")
def test_what_root_writes_belongs_to_the_directorys_owner(tmp_path: Path) -> None:
    """Or root's `keys rotate` would leave a file that the service cannot read, and so not start with."""
    os.chown(tmp_path, 65534, 65533)
    document, private = generate(KeyUse.OPS)
    for path in (write_public(tmp_path, document), write_private(tmp_path, document, private)):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (65534, 65533)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_private_files_of_the_owner_alone_are_taken(tmp_path: Path, mode: int) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_private(tmp_path, document, private)
    path.chmod(mode)
    assert read_private(path, document) == private


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777, 0o440])
def test_private_files_open_to_others_are_refused_with_the_repair(tmp_path: Path, mode: int) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_private(tmp_path, document, private)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        read_private(path, document)


def test_missing_files_say_how_to_make_them(tmp_path: Path) -> None:
    document, _ = generate(KeyUse.OPS)
    with pytest.raises(KeyFileError, match=r"missing.*keys init"):
        read_private(private_path(tmp_path, document.key_id), document)
    with pytest.raises(KeyFileError, match="missing"):
        read_public(public_path(tmp_path, document.key_id))
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_public(tmp_path)
    with pytest.raises(KeyFileError, match="cannot be written"):
        write_public(tmp_path / "nowhere", document)


def test_every_truncation_is_refused_and_shows_no_key(tmp_path: Path) -> None:
    document, private = generate(KeyUse.SIGNING, producer=PRODUCER)
    path = write_private(tmp_path, document, private)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(KeyFileError, match="restore the key from its backup") as caught:
            read_private(path, document)
        assert b64url(private)[:8] not in str(caught.value)
    public_file = write_public(tmp_path, document)
    whole = public_file.read_bytes().rstrip()
    for length in range(len(whole)):
        public_file.write_bytes(whole[:length])
        with pytest.raises(KeyFileError, match="get the document again"):
            read_public(public_file)


@pytest.mark.parametrize("file", ["public", "private"])
def test_an_oversize_file_is_refused(tmp_path: Path, file: str) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_public(tmp_path, document) if file == "public" else write_private(tmp_path, document, private)
    path.write_bytes(path.read_bytes().ljust(limits.MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(KeyFileError, match="not a key file"):
        read_public(path) if file == "public" else read_private(path, document)


def test_swapped_private_files_are_refused(tmp_path: Path, pair: tuple[KeyDocument, bytes]) -> None:
    document, private = pair
    for use, producer, algorithm in (
        (document.use, document.producer, document.algorithm),
        (KeyUse.OPS, None, P256),
        (KeyUse.SIGNING, "dc2", None),
    ):
        other, other_private = generate(use, producer=producer, algorithm=algorithm)
        swapped = write_private(tmp_path, other, other_private)
        with pytest.raises(KeyFileError, match=f"does not belong to {document.key_id}"):
            read_private(swapped, document)
        # the right names around another key's bytes
        with pytest.raises(KeyFileError, match="does not belong to"):
            read_private(write_private(tmp_path, document, other_private), document)
    assert read_private(write_private(tmp_path, document, private), document) == private


@pytest.mark.parametrize("raw", [b"", b"x", b"\0" * 32, b"\xff" * 32, b"\0" * 96, b"\xff" * 95])
def test_private_bytes_that_are_no_key_are_refused(tmp_path: Path, pair: tuple[KeyDocument, bytes], raw: bytes) -> None:
    document, _ = pair
    with pytest.raises(KeyFileError, match="does not belong to"):
        read_private(write_private(tmp_path, document, raw), document)


BROKEN_PRIVATE: dict[str, dict[str, Any]] = {
    "no schema": {"schema": ...},
    "public schema": {"schema": "passrelay.key/1"},
    "unknown field": {"extra": 1},
    "private number": {"private": 5},
    "private null": {"private": None},
    "private not base64url": {"private": "+/+/"},
    "use unknown": {"use": "everything"},
    "no key id": {"key_id": ...},
    "key id of another key": {"key_id": "another-key-id"},
    "algorithm of another key": {"algorithm": P256},
}


@pytest.mark.parametrize("case", BROKEN_PRIVATE)
def test_a_damaged_private_file_is_refused_and_shows_no_key(tmp_path: Path, case: str) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_private(tmp_path, document, private)
    path.write_bytes(changed(path.read_bytes(), **BROKEN_PRIVATE[case]))
    with pytest.raises(KeyFileError) as caught:
        read_private(path, document)
    assert b64url(private)[:8] not in str(caught.value)
    assert str(path) in str(caught.value)


OTHER, _ = generate(KeyUse.OPS)
BROKEN_PUBLIC: dict[str, dict[str, Any]] = {
    "public replaced": {"public": OTHER.public},
    "key id replaced": {"key_id": OTHER.key_id},
    "algorithm replaced": {"algorithm": P256},
    "algorithm unknown": {"algorithm": "none", "key_id": key_id_of("none", OTHER.public_bytes), "public": OTHER.public},
    "signing algorithm": {
        "algorithm": ED25519,
        "key_id": key_id_of(ED25519, OTHER.public_bytes),
        "public": OTHER.public,
    },
    "public is no key": {"public": "QUJD", "key_id": key_id_of(MLKEM768_X25519, b"ABC")},
    "public of zeros": {"public": b64url(b"\xff" * 1216), "key_id": key_id_of(MLKEM768_X25519, b"\xff" * 1216)},
    "public padded": {"public": OTHER.public + "="},
    "public empty": {"public": "", "key_id": key_id_of(MLKEM768_X25519, b"")},
    "use signing without producer": {"use": "signing"},
    "producer on an ops key": {"producer": PRODUCER},
    "use unknown": {"use": "x"},
    "status unknown": {"status": "fine"},
    "schema missing": {"schema": ...},
    "schema version 2": {"schema": "passrelay.key/2"},
    "private schema": {"schema": "passrelay.private-key/1"},
    "unknown field": {"note": "x"},
    "created_at missing": {"created_at": ...},
    "created_at without a zone": {"created_at": "2026-01-01T00:00:00"},
}


@pytest.mark.parametrize("case", BROKEN_PUBLIC)
def test_a_changed_public_document_is_refused(tmp_path: Path, case: str) -> None:
    document, _ = generate(KeyUse.OPS)
    path = write_public(tmp_path, document)
    path.write_bytes(changed(path.read_bytes(), **BROKEN_PUBLIC[case]))
    with pytest.raises(KeyFileError, match=f"key file {path}: "):
        read_public(path)


def test_the_key_id_stands_for_algorithm_and_public_part() -> None:
    document, _ = generate(KeyUse.OPS)
    assert document.key_id == key_id_of(document.algorithm, document.public_bytes)
    assert len({key_id_of(algorithm, b"x") for algorithm in [*SUITES, ED25519]}) == 3
    assert document.fingerprint.count(" ") == 7
    assert document.fingerprint != OTHER.fingerprint


def test_no_key_id_looks_like_an_option_of_a_command() -> None:
    made = [generate(KeyUse.SIGNING, producer=PRODUCER)[0] for _ in range(600)]  # without care nine of these would
    assert not any(document.key_id.startswith("-") for document in made)


def test_status_and_expiry_are_not_part_of_the_id(tmp_path: Path) -> None:
    document, _ = generate(KeyUse.SIGNING, producer=PRODUCER)
    revoked = document.model_copy(update={"status": KeyStatus.REVOKED})
    assert read_public(write_public(tmp_path, revoked)).status is KeyStatus.REVOKED


def test_an_unknown_algorithm_is_refused_by_name() -> None:
    with pytest.raises(KeyFileError, match="'RSA' is not one of"):
        generate(KeyUse.RECIPIENT, algorithm="RSA")


def test_rewriting_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, private = generate(KeyUse.OPS)
    path = write_private(tmp_path, document, private)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        write_private(tmp_path, document, b"other")
    assert read_private(path, document) == private
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    assert json.loads(path.read_text())["key_id"] == document.key_id
