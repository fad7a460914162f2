"""The DLL's portable files, compiled for this machine, with Python's `cryptography` in the place of Windows' CNG."""

from __future__ import annotations

import ctypes
import shutil
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_int,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.lab.process import MissingServerError, run_tool
from tests.windows.hook_build import SOURCE

_PORTABLE = ("bytes", "recipient", "hpke", "record", "filter")
POINT, SCALAR = 65, 32
HEADER, PLAIN, PART, RECORD, NAME = 160, 528, 769, 801, 34


class _Piece(Structure):
    _fields_ = (("bytes", c_void_p), ("length", c_size_t))


class KeyPair(Structure):
    _fields_ = (("point", c_uint8 * POINT), ("scalar", c_uint8 * SCALAR))


class HpkeWork(Structure):
    """struct hpke: what sealing leaves behind for its caller to wipe."""

    _fields_ = (
        ("agreed", c_uint8 * 32),
        ("extracted", c_uint8 * 32),
        ("shared_secret", c_uint8 * 32),
        ("block", c_uint8 * 32),
        ("context", c_uint8 * 65),
        ("key", c_uint8 * 32),
        ("nonce", c_uint8 * 12),
    )


class Identity(Structure):
    _fields_ = (("domain_sid", c_char * 48), ("producer", c_char * 64), ("key_id", c_char * 32))


def _joined(pieces: Any, count: int) -> bytes:
    return b"".join(ctypes.string_at(pieces[i].bytes, pieces[i].length) for i in range(count) if pieces[i].length)


def _sha256(pieces: Any, count: int, out: int) -> int:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_joined(pieces, count))
    ctypes.memmove(out, digest.finalize(), 32)
    return 0


def _hmac(key: int, pieces: Any, count: int, out: int) -> int:
    mac = hmac.HMAC(ctypes.string_at(key, 32), hashes.SHA256())
    mac.update(_joined(pieces, count))
    ctypes.memmove(out, mac.finalize(), 32)
    return 0


def _agree(other: int, given: Any, own: int, shared: int) -> int:
    if given:
        pair = ec.derive_private_key(int.from_bytes(bytes(given[0].scalar), "big"), ec.SECP256R1())
    else:
        pair = ec.generate_private_key(ec.SECP256R1())
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ctypes.string_at(other, POINT))
    point = pair.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    ctypes.memmove(own, point, POINT)
    ctypes.memmove(shared, pair.exchange(ec.ECDH(), theirs), SCALAR)
    return 0


def _seal(key: int, nonce: int, associated: Any, plain: int, length: int, out: int) -> int:
    sealed = AESGCM(ctypes.string_at(key, 32)).encrypt(
        ctypes.string_at(nonce, 12), ctypes.string_at(plain, length), _joined(associated, 1)
    )
    ctypes.memmove(out, sealed, len(sealed))
    return 0


_PRIMITIVES = {
    "test_sha256": CFUNCTYPE(c_int, POINTER(_Piece), c_size_t, c_void_p)(_sha256),
    "test_hmac_sha256": CFUNCTYPE(c_int, c_void_p, POINTER(_Piece), c_size_t, c_void_p)(_hmac),
    "test_p256_agree": CFUNCTYPE(c_int, c_void_p, POINTER(KeyPair), c_void_p, c_void_p)(_agree),
    "test_aes256_gcm_seal": CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(_Piece), c_void_p, c_size_t, c_void_p)(_seal),
}


def _piece(content: bytes) -> _Piece:
    return _Piece(ctypes.cast(ctypes.c_char_p(content), c_void_p), len(content))


class NativeHook:
    """The portable functions as Python calls."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            raise MissingServerError("gcc is not installed: `./run test --only windows` installs it, as root")
        library = folder / "hook.so"
        run_tool(
            [
                *("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
                *(
                    "-fsanitize=undefined",
                    "-fno-sanitize-recover=all",
                    "-static-libubsan",
                    "-o",
                    library,
                    f"-I{SOURCE}",
                ),
                *(SOURCE / f"{name}.c" for name in _PORTABLE),
                Path(__file__).parent / "native" / "primitives.c",
            ]
        )
        self._library = ctypes.CDLL(str(library))
        for name, call in _PRIMITIVES.items():
            c_void_p.in_dll(self._library, name).value = ctypes.cast(call, c_void_p).value
        self._library.hpke_seal.argtypes = (
            POINTER(HpkeWork), c_void_p, POINTER(KeyPair), _Piece, _Piece, c_void_p, c_size_t, c_void_p
        )  # fmt: skip
        self._library.record_name.argtypes = (c_void_p, c_uint64, c_uint32, c_uint32)
        self._library.record_plain.argtypes = (c_void_p, c_uint32, c_uint32, c_uint64)
        self._library.record_seal.argtypes = (POINTER(HpkeWork), c_void_p, POINTER(Identity), c_void_p, c_void_p)
        self._library.filter.argtypes = (c_void_p, c_size_t, c_uint32, c_size_t)

    def seal(
        self, recipient: bytes, given: KeyPair, info: bytes, associated: bytes, plain: bytes
    ) -> tuple[bytes, HpkeWork]:
        """hpke_seal: what it sealed, and all that it computed."""
        work = HpkeWork()
        sealed = ctypes.create_string_buffer(len(plain) + POINT + 16)
        failed = self._library.hpke_seal(
            work, recipient, given, _piece(info), _piece(associated), plain, len(plain), sealed
        )
        assert failed == 0
        return sealed.raw, work

    def on_curve(self, point: bytes) -> bool:
        """recipient_on_curve."""
        return bool(self._library.recipient_on_curve(point))

    def key_id(self, point: bytes) -> str:
        """recipient_key_id."""
        out = ctypes.create_string_buffer(24)
        assert self._library.recipient_key_id(point, out) == 0
        return out.raw.decode()

    def domain_sid_good(self, text: str) -> bool:
        """record_domain_sid_good of a text in its field."""
        return bool(self._library.record_domain_sid_good(text.encode("ascii").ljust(48, b"\0")))

    def producer_good(self, text: str) -> bool:
        """record_producer_good of a text in its field."""
        return bool(self._library.record_producer_good(text.encode("ascii").ljust(64, b"\0")))

    def record(self, recipient: bytes, identity: Identity, *, rid: int, filetime: int, password: str) -> bytes:
        """A whole record, made as the DLL makes it."""
        raw = password.encode("utf-16-le")
        plain = ctypes.create_string_buffer(PLAIN)
        ctypes.memmove(ctypes.addressof(plain) + 16, raw, len(raw))
        self._library.record_plain(plain, rid, len(raw), filetime)
        record = ctypes.create_string_buffer(RECORD)
        assert self._library.record_seal(HpkeWork(), recipient, identity, plain, record) == 0
        return record.raw

    def name(self, filetime: int, rid: int, sequence: int) -> str:
        """record_name."""
        units = (c_uint16 * NAME)()
        self._library.record_name(units, filetime, rid, sequence)
        return "".join(map(chr, units))

    def captures(self, name: str | None, rid: int, password_bytes: int = 8) -> bool:
        """True when `filter` says CAPTURE."""
        raw = name.encode("utf-16-le") if name is not None else None
        return int(self._library.filter(raw, len(raw) // 2 if raw else 0, rid, password_bytes)) == 0
