"""HPKE suites (RFC 9180, single-shot base mode) and the serialisation of their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

MLKEM768_X25519 = "HPKE-MLKEM768X25519-HKDFSHA256-AES256GCM"
"""Default: a recorded broker disk stays useless to a quantum computer."""
P256 = "HPKE-P256-HKDFSHA256-AES256GCM"
"""DHKEM(P-256): what the Windows hook can do with CNG alone."""

_MLKEM_SEED = 64
_MLKEM_PUBLIC = 1184
_X25519 = 32


@dataclass(frozen=True)
class HpkeSuite:
    """One suite: its algorithms and how its keys become bytes.

    The hybrid key has no standard serialisation in `cryptography`; ours is: private = ML-KEM-768 seed (64 bytes,
    FIPS 203 d || z) followed by the X25519 scalar (32); public = encapsulation key (1,184), then the X25519 point (32).
    """

    name: str
    hpke: Suite
    generate: Callable[[], tuple[bytes, bytes]]
    private_key: Callable[[bytes], Any]
    public_key: Callable[[bytes], Any]
    public_of: Callable[[bytes], bytes]


def _raw_x25519(key: x25519.X25519PrivateKey) -> bytes:
    return key.private_bytes_raw()


def _hybrid_private(raw: bytes) -> MLKEM768X25519PrivateKey:
    if len(raw) != _MLKEM_SEED + _X25519:
        raise ValueError("a hybrid private key has 96 bytes")
    return MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED]),
        x25519.X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:]),
    )


def _hybrid_public(raw: bytes) -> MLKEM768X25519PublicKey:
    if len(raw) != _MLKEM_PUBLIC + _X25519:
        raise ValueError("a hybrid public key has 1216 bytes")
    return MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC]),
        x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:]),
    )


def _hybrid_public_of(raw: bytes) -> bytes:
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED])
    curve = x25519.X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:])
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def _hybrid_generate() -> tuple[bytes, bytes]:
    private = mlkem.MLKEM768PrivateKey.generate().private_bytes_raw() + _raw_x25519(x25519.X25519PrivateKey.generate())
    return private, _hybrid_public_of(private)


def _p256_private(raw: bytes) -> ec.EllipticCurvePrivateKey:
    if len(raw) != 32:
        raise ValueError("a P-256 private key has 32 bytes")
    return ec.derive_private_key(int.from_bytes(raw, "big"), ec.SECP256R1())


def _p256_public(raw: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)


def _p256_public_of(raw: bytes) -> bytes:
    return (
        _p256_private(raw)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )


def _p256_generate() -> tuple[bytes, bytes]:
    private = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
    return private, _p256_public_of(private)


SUITES: dict[str, HpkeSuite] = {
    suite.name: suite
    for suite in (
        HpkeSuite(
            MLKEM768_X25519,
            Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
            _hybrid_generate,
            _hybrid_private,
            _hybrid_public,
            _hybrid_public_of,
        ),
        HpkeSuite(
            P256,
            Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
            _p256_generate,
            _p256_private,
            _p256_public,
            _p256_public_of,
        ),
    )
}
"""Every suite a recipient or ops key may name as its algorithm."""
