"""A private key's bytes under Windows' data protection (DPAPI), for the machine: they open on this Windows only.

It keeps a copied key file (a backup, a share) from being of use elsewhere. On the machine itself any account that may
read the file can open it, so the file's access list counts all the same. docs/keys.md shows the file.
"""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import sys
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.strict_json import b64url, from_b64url

CIPHER: Final = "dpapi-machine"
_UI_FORBIDDEN, _LOCAL_MACHINE = 0x1, 0x4
"""CRYPTPROTECT_UI_FORBIDDEN, CRYPTPROTECT_LOCAL_MACHINE (dpapi.h)."""


class ProtectedKey(BaseModel):
    """The protected private bytes, base64url without padding."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    cipher: Literal["dpapi-machine"] = CIPHER
    sealed: str = Field(max_length=8192)


def available() -> bool:
    """This host is Windows."""
    return sys.platform == "win32"


def protect(private: bytes, *, bound_to: bytes) -> ProtectedKey:
    """`private` for this machine; `bound_to` says whose it is and is needed again. KeyFileError where DPAPI fails."""
    if sys.platform != "win32":
        raise KeyFileError("DPAPI is Windows' own: on other systems name a passphrase file")
    import pywintypes
    import win32crypt

    try:
        sealed = win32crypt.CryptProtectData(private, None, bound_to, None, None, _UI_FORBIDDEN | _LOCAL_MACHINE)
    except pywintypes.error as error:
        raise KeyFileError(
            f"Windows cannot protect the key ({error.strerror}): is the service CryptSvc running?"
        ) from None
    return ProtectedKey(sealed=b64url(sealed))


def unprotect(protected: ProtectedKey, *, bound_to: bytes) -> bytes | None:
    """The private bytes; None when another machine protected them or anything was changed. MalformedError."""
    sealed = from_b64url(protected.sealed, what="sealed")
    if sys.platform != "win32":
        return None
    import pywintypes
    import win32crypt

    try:
        return bytes(win32crypt.CryptUnprotectData(sealed, bound_to, None, None, _UI_FORBIDDEN)[1])
    except pywintypes.error:
        return None
