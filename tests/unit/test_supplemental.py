"""supplementalCredentials: the right clear text or a typed reason, whatever the blob holds."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pysequoia
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_producer.nt_hash import matches, md4
from passrelay_producer.sources import PendingReason
from passrelay_producer.supplemental import (
    SAMBA_GPG,
    ClearTextError,
    OpenPgpKeyFile,
    SupplementalError,
    clear_text,
    packages,
)
from passrelay_schemas.errors import KeyFileError
from tests.lab.folder import CANARY

PASSWORD = f"{CANARY}-\u5bc6\U0001f511"


def package(name: str, data: bytes) -> bytes:
    raw_name, raw_data = name.encode("utf-16-le"), data.hex().upper().encode()
    return struct.pack("<HHH", len(raw_name), len(raw_data), 1) + raw_name + raw_data


def blob(*parts: bytes, signature: int = 0x50, count: int | None = None, tail: bytes = b"\0") -> bytes:
    body = b" \0" * 48 + struct.pack("<HH", signature, len(parts) if count is None else count) + b"".join(parts)
    return struct.pack("<III", 0, len(body), 0) + body + tail


@pytest.fixture(scope="module")
def secret_key() -> pysequoia.Tsk:
    return pysequoia.Tsk.generate(user_id="capture")


def write_key(path: Path, *keys: pysequoia.Tsk, mode: int = 0o600) -> OpenPgpKeyFile:
    path.write_bytes(b"".join(bytes(key) for key in keys))
    path.chmod(mode)
    return OpenPgpKeyFile(path)


def printed(*keys: pysequoia.Tsk) -> tuple[str, ...]:
    """Their fingerprints as GnuPG prints them."""
    return tuple(key.extract_certificate().fingerprint.upper() for key in keys)


def sealed(password: str, key: pysequoia.Tsk) -> bytes:
    content = password.encode("utf-16-le", "surrogatepass")
    return pysequoia.encrypt(content, recipients=[key.extract_certificate()])


def reason(**arguments: object) -> PendingReason:
    with pytest.raises(ClearTextError) as caught:
        clear_text(**arguments)  # type: ignore[arg-type]
    assert CANARY not in f"{caught.value!r} {caught.value.__context__!r}"
    return caught.value.reason


NT_HASH = md4(PASSWORD.encode("utf-16-le"))


def test_md4_vectors_of_rfc_1320() -> None:
    assert md4(b"").hex() == "31d6cfe0d16ae931b73c59d7e0c089c0"
    assert md4(b"abc").hex() == "a448017aaf21d8525fc10ae87aa6729d"
    assert md4(b"message digest").hex() == "d9130a8164549fe818874806e1c7014b"
    assert md4(b"1234567890" * 8).hex() == "e33b4ddc9c38f2199c3e7b164fcc0536"


def test_nt_hash_of_a_known_password() -> None:
    assert matches("password".encode("utf-16-le"), bytes.fromhex("8846f7eaee8fb117ad06bdd830b7586c"))
    assert not matches("Password".encode("utf-16-le"), bytes.fromhex("8846f7eaee8fb117ad06bdd830b7586c"))


def test_packages_by_name() -> None:
    raw = blob(package("Primary:Kerberos", b"keys"), package(SAMBA_GPG, b"message"))
    assert packages(raw) == {"Primary:Kerberos": b"keys", SAMBA_GPG: b"message"}
    assert packages(raw[:-1]) == packages(raw)
    assert packages(struct.pack("<III", 0, 96, 0) + b" \0" * 48) == {}


GOOD = blob(package(SAMBA_GPG, b"message"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        GOOD[:107],
        b"\1" + GOOD[1:],
        GOOD[:8] + b"\1" + GOOD[9:],
        struct.pack("<III", 0, 10, 0) + GOOD[12:],
        struct.pack("<III", 0, 0xFFFFFFFF, 0) + GOOD[12:],
        struct.pack("<III", 0, 98, 0) + b" \0" * 48 + b"P\0",
        GOOD[:-2],
        GOOD + b"\0",
        blob(package(SAMBA_GPG, b"message"), signature=0x51),
        blob(package(SAMBA_GPG, b"message"), count=2),
        blob(package(SAMBA_GPG, b"message"), count=0),
        blob(package(SAMBA_GPG, b"message"), package(SAMBA_GPG, b"other")),
        blob(struct.pack("<HHH", 2, 2, 0) + b"a\0zz"),
        blob(struct.pack("<HHH", 2, 3, 0) + b"a\0abc"),
        blob(struct.pack("<HHH", 1, 2, 0) + b"aab"),
        blob(struct.pack("<HHH", 2, 0xFFFF, 0) + b"a\0ab"),
        blob(struct.pack("<HH", 2, 2)),
    ],
)
def test_malformed_blobs_are_refused(raw: bytes) -> None:
    with pytest.raises(SupplementalError):
        packages(raw)
    assert reason(blob=raw, unicode_pwd=NT_HASH, key=OpenPgpKeyFile(Path("/nowhere"))) is PendingReason.UNREADABLE


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_bytes_give_packages_or_the_typed_error(head: bytes, tail: bytes) -> None:
    for raw in (head, GOOD[: len(head)] + tail, blob(head, count=1), GOOD[:112] + head + GOOD[112 + len(head) :]):
        with contextlib.suppress(SupplementalError):
            packages(raw)


def test_clear_text_of_the_current_password(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    key = write_key(tmp_path / "key", secret_key)
    raw = blob(package("Primary:Kerberos", b"keys"), package(SAMBA_GPG, sealed(PASSWORD, secret_key)))
    assert clear_text(blob=raw, unicode_pwd=NT_HASH, key=key).reveal() == PASSWORD


def test_a_package_of_an_older_password_is_stale(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    key = write_key(tmp_path / "key", secret_key)
    raw = blob(package(SAMBA_GPG, sealed(f"{CANARY}-old", secret_key)))
    assert reason(blob=raw, unicode_pwd=NT_HASH, key=key) is PendingReason.STALE_CLEAR_TEXT


def test_no_package_is_no_clear_text(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    key = write_key(tmp_path / "key", secret_key)
    for raw in (None, blob(package("Primary:Kerberos", b"keys"))):
        assert reason(blob=raw, unicode_pwd=NT_HASH, key=key) is PendingReason.NO_CLEAR_TEXT


def test_a_key_that_arrives_later_opens_what_waited(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    raw = blob(package(SAMBA_GPG, sealed(PASSWORD, secret_key)))
    path = tmp_path / "key"
    key = OpenPgpKeyFile(path)
    missing = key.state
    assert reason(blob=raw, unicode_pwd=NT_HASH, key=key) is PendingReason.KEY_MISSING
    other = pysequoia.Tsk.generate(user_id="other")
    write_key(path, other)
    assert reason(blob=raw, unicode_pwd=NT_HASH, key=key) is PendingReason.KEY_MISSING
    wrong = key.state
    assert key.fingerprints == printed(other)
    write_key(path, other, secret_key)
    assert key.fingerprints == printed(other, secret_key)
    assert len({missing, wrong, key.state}) == 3
    assert clear_text(blob=raw, unicode_pwd=NT_HASH, key=key).reveal() == PASSWORD
    path.unlink()
    assert key.fingerprints == ()
    assert reason(blob=raw, unicode_pwd=NT_HASH, key=key) is PendingReason.KEY_MISSING


def test_damaged_messages_and_odd_lengths_are_reasons_too(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    key = write_key(tmp_path / "key", secret_key)
    message = sealed(PASSWORD, secret_key)
    cut = blob(package(SAMBA_GPG, message[: len(message) // 2]))
    assert reason(blob=cut, unicode_pwd=NT_HASH, key=key) is PendingReason.KEY_MISSING
    odd = CANARY.encode() + b"x"
    whole = blob(package(SAMBA_GPG, pysequoia.encrypt(odd, recipients=[secret_key.extract_certificate()])))
    assert reason(blob=whole, unicode_pwd=md4(odd), key=key) is PendingReason.UNREADABLE
    assert reason(blob=whole, unicode_pwd=None, key=key) is PendingReason.UNREADABLE


def test_a_lone_surrogate_comes_through(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    key = write_key(tmp_path / "key", secret_key)
    password = f"{CANARY}\ud800"
    raw = blob(package(SAMBA_GPG, sealed(password, secret_key)))
    digest = md4(password.encode("utf-16-le", "surrogatepass"))
    assert clear_text(blob=raw, unicode_pwd=digest, key=key).reveal() == password


@pytest.mark.parametrize(("content", "mode"), [(b"junk", 0o600), (b"", 0o600), (None, 0o644), (None, 0o640)])
def test_key_files_that_are_refused_name_the_repair(
    tmp_path: Path, secret_key: pysequoia.Tsk, content: bytes | None, mode: int
) -> None:
    path = tmp_path / "key"
    key = write_key(path, secret_key, mode=mode)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"gpg_key_file .*(export|chmod 600)"):
        key.check()


def test_a_public_key_alone_is_refused(tmp_path: Path, secret_key: pysequoia.Tsk) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(secret_key.extract_certificate()))
    with pytest.raises(KeyFileError, match="no secret OpenPGP key"):
        OpenPgpKeyFile(path).check()
    with pytest.raises(KeyFileError, match="No such file"):
        OpenPgpKeyFile(tmp_path / "none").check()
