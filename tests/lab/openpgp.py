"""The OpenPGP key to which a Samba controller encrypts clear text, made with a GNUPGHOME of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.lab.process import run_tool

# Made long ago: GnuPG uses no key from the future, and a controller may run with a clock that is a year back.
_PARAMETERS = b"""%no-protection
Key-Type: eddsa
Key-Curve: ed25519
Key-Usage: sign
Subkey-Type: ecdh
Subkey-Curve: cv25519
Subkey-Usage: encrypt
Name-Real: passrelay lab
Name-Email: capture@lab.example
Creation-Date: 20200101T000000
Expire-Date: 0
%commit
"""


@dataclass(frozen=True)
class OpenPgpKey:
    """A key without passphrase: GnuPG's folder for Samba, the armoured secret key (0600) for the producer."""

    home: Path
    file: Path
    fingerprint: str


def make_key(folder: Path) -> OpenPgpKey:
    """Generate and export a key; the gpg-agent that GnuPG starts is stopped again. Errors: LabError."""
    home, file = folder / "gpg", folder / "capture-key.asc"
    home.mkdir(mode=0o700, parents=True)
    env = {**os.environ, "GNUPGHOME": str(home)}
    try:
        run_tool(["gpg", "--batch", "--quiet", "--gen-key"], env=env, stdin=_PARAMETERS)
        listing = run_tool(["gpg", "--batch", "--with-colons", "--list-secret-keys"], env=env)
        fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        file.touch(mode=0o600)
        file.write_text(run_tool(["gpg", "--batch", "--armor", "--export-secret-keys", fingerprint], env=env))
    finally:
        run_tool(["gpgconf", "--kill", "gpg-agent"], env=env, check=False)
    return OpenPgpKey(home, file, fingerprint)
