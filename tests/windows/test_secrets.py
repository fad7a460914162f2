"""The password is in no file, no system call, no log, and in no memory after the call."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from passrelay_schemas.keys import KeyDocument, KeyUse, generate
from passrelay_schemas.sealing import Opener
from tests.lab.folder import CANARY, find_canary
from tests.lab.process import MissingServerError, run_tool
from tests.windows.harness import Harness
from tests.windows.native_hook import POINT
from tests.windows.records import HEADER, PART, open_all, records
from tests.windows.wine import Wine


@pytest.mark.parametrize("how", ["good", "torn"])
def test_no_copy_is_left_in_memory(hook: Harness, how: str) -> None:
    """`torn` ends in a fault in the middle of copying."""
    assert hook.ask("traces", how, 1105) == "0"


def test_a_copy_that_is_left_would_be_found(hook: Harness) -> None:
    assert hook.ask("traces", "kept", 1105) != "0"


def test_none_of_hpkes_secrets_is_left_on_the_stack(hook: Harness, spool: Path) -> None:
    """Whoever had one of them could open the record; the recipient can compute them all again."""
    document, private = generate(KeyUse.HOOK)
    hook.set_key(document)
    left = bytes.fromhex(hook.ask("stack", 1105))
    (path,) = records(spool)
    raw = path.read_bytes()
    header, encapsulated, sealed = raw[:HEADER], raw[HEADER : HEADER + POINT], raw[HEADER + POINT : PART]
    assert encapsulated in left  # the calls' own frames were looked at
    secrets = _secrets(private, document.public_bytes, encapsulated, header)
    plain = AESGCM(secrets["key"]).decrypt(secrets["nonce"], sealed, None)
    assert f"{CANARY}-1105-0".encode("utf-16-le") in plain  # and these are the secrets
    assert [name for name, secret in secrets.items() if secret in left] == []


def _secrets(private: bytes, public: bytes, encapsulated: bytes, info: bytes) -> dict[str, bytes]:
    """All that sealing computes on its way (RFC 9180 4.1, 5.1), as the DLL has it; bcrypt.dll's copies are its own."""
    ours = ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encapsulated)
    kem, suite = b"KEM\x00\x10", b"HPKE\x00\x10\x00\x01\x00\x02"

    def extract(salt: bytes, of: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + of + label + ikm, "sha256")

    def expand(prk: bytes, of: bytes, label: bytes, context: bytes, length: int) -> bytes:
        block = length.to_bytes(2, "big") + b"HPKE-v1" + of + label + context + b"\x01"
        return hmac.digest(prk, block, "sha256")[:length]

    agreed = ours.exchange(ec.ECDH(), theirs)
    extracted = extract(b"", kem, b"eae_prk", agreed)
    shared = expand(extracted, kem, b"shared_secret", encapsulated + public, 32)
    context = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    secret = extract(shared, suite, b"secret", b"")
    return {
        "agreed": agreed,
        "eae_prk": extracted,
        "shared_secret": shared,
        "secret": secret,
        "key": expand(secret, suite, b"key", context, 32),
        "nonce": expand(secret, suite, b"base_nonce", context, 12),
    }


def test_nothing_readable_is_in_files_system_calls_and_logs(
    wine: Wine,
    start_harness: Callable[..., Harness],
    recipient: tuple[KeyDocument, Opener],
    spool: Path,
    opener: Opener,
    tmp_path: Path,
) -> None:
    try:
        run_tool(["strace", "--version"])
    except MissingServerError:
        pytest.skip("strace is not installed: `./run test --only windows` installs it, as root")
    began = time.time() - 1
    calls = tmp_path / "calls"
    harness = start_harness(("strace", "-f", "-y", "-xx", "-s", "65536", "-o", str(calls), "-e", "trace=!futex"))
    harness.configure(recipient[0], spool)
    assert harness.initialize()
    harness.ask("many", 2, 5, 2000)
    harness.ask("hostile", "password", "buffer_torn", 2001)
    harness.wait_for_event("2001")
    harness.close()
    assert len(open_all(spool, opener)) == 10

    seen = calls.read_bytes()
    assert _traced(b"passrelay.hook/1") in seen  # records' headers: so the writes were looked at
    assert seen.count(b"fsync(") == 10 + 1  # each record and the probe of the start went to the disk itself
    for path in records(spool):
        assert _flushed_before_renamed(seen, path)
    assert _traced(CANARY.encode()) not in seen
    assert _traced(CANARY.encode("utf-16-le")) not in seen
    written = [path for path in wine.prefix.rglob("*") if path.is_file() and path.stat().st_mtime >= began]
    _, _, hits = find_canary([spool, harness.process.log, calls, *written])
    assert hits == []


def _flushed_before_renamed(seen: bytes, path: Path) -> bool:
    """The thread that asked for the record's final name had flushed the file before, under its first name."""
    new, final = _traced(str(path.with_suffix(".new")).encode()), _traced(str(path).encode())
    calls = seen.splitlines()
    renamed = next(at for at, call in enumerate(calls) if final in call)
    thread = calls[renamed].split()[0]
    return any(call.startswith(thread + b" ") and b" fsync(" in call and new in call for call in calls[:renamed])


def _traced(content: bytes) -> bytes:
    """As `strace -xx` prints it."""
    return "".join(f"\\x{byte:02x}" for byte in content).encode()
