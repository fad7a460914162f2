"""The NT hash (MD4 of UTF-16LE): not for security, only to see whether a clear text belongs to unicodePwd.

OpenSSL 3 keeps MD4 in its legacy provider, so hashlib has it on few hosts; RFC 1320 is 40 lines.
"""

from __future__ import annotations

import hmac
import struct

_MASK = 0xFFFFFFFF
_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
    (0x5A827999, (3, 5, 9, 13), (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
    (0x6ED9EBA1, (3, 9, 11, 15), (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)),
)


def md4(message: bytes) -> bytes:
    """MD4 (RFC 1320)."""
    padded = message + b"\x80" + bytes((55 - len(message)) % 64) + struct.pack("<Q", len(message) * 8)
    state = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
    for block in struct.iter_unpack("<16I", padded):
        a, b, c, d = state
        for number, (constant, shifts, order) in enumerate(_ROUNDS):
            for step, index in enumerate(order):
                total = (a + _mix(number, b, c, d) + block[index] + constant) & _MASK
                shift = shifts[step % 4]
                a, b, c, d = d, ((total << shift) | (total >> (32 - shift))) & _MASK, b, c
        state = tuple((old + new) & _MASK for old, new in zip(state, (a, b, c, d), strict=True))  # type: ignore[assignment]
    return struct.pack("<4I", *state)


def _mix(number: int, x: int, y: int, z: int) -> int:
    if number == 0:
        return (x & y) | (~x & z)
    if number == 1:
        return (x & y) | (x & z) | (y & z)
    return x ^ y ^ z


def matches(utf16: bytes, nt_hash: bytes) -> bool:
    """True when the UTF-16LE password has this NT hash ([MS-SAMR] 2.2.3.3)."""
    return hmac.compare_digest(md4(utf16), nt_hash)
