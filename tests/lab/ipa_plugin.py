"""IPA's own password plugin (ipa_pwd_extop), compiled from Debian's source package for the directory server found here.

Debian 12 and 13 have no FreeIPA server, but the client's source package holds all of it. A few of its folders compile
with one call of gcc. The result is kept outside the project, for each version of 389-ds, and none of it is ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.debian_source import fetch
from tests.lab.directory_template import server_version
from tests.lab.process import LabError, MissingServerError, run_tool

_PACKAGE, _SUITE = "freeipa", "trixie"
_SLAPI = "daemons/ipa-slapi-plugins"
_SOURCES = (
    f"{_SLAPI}/ipa-pwd-extop/*.c",
    f"{_SLAPI}/libotp/hotp.c",
    f"{_SLAPI}/libotp/otp_*.c",
    "util/ipa_krb5.c",
    "util/ipa_ldap.c",
    "util/ipa_pwd.c",
    "util/ipa_pwd_ntlm.c",
    "util/ipa_hostname.c",
    "asn1/ipa_asn1.c",
    "asn1/asn1c/*.c",
)
_INCLUDED = (f"{_SLAPI}/common", f"{_SLAPI}/libotp", "util", "asn1", "asn1/asn1c")
_HEADERS = ("dirsrv", "nspr", "nss")
_LIBRARIES = ("krb5", "k5crypto", "com_err", "crypto", "ldap", "lber", "pwquality")
_NEEDED = ("dirsrv/slapi-plugin.h", "nspr/nspr.h", "nss/nss.h", "krb5.h", "ldap.h", "openssl/evp.h", "pwquality.h")
# What ipaserver/install/dsinstance.py copies; 05rfc2247.ldif is 389-ds's own, in another version.
_SCHEMA = "install/share/[1-9]*.ldif"
_LIBRARY, _ENTRY = "libipa_pwd_extop.so", "pwd-extop-conf.ldif"


class PluginUnavailableError(MissingServerError):
    """The plugin cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Plugin:
    """A compiled plugin and what IPA's installer would put beside it."""

    folder: Path

    @property
    def shared_object(self) -> Path:
        """The shared object."""
        return self.folder / _LIBRARY

    @property
    def entry(self) -> str:
        """The plugin's entry in cn=plugins,cn=config as LDIF, with the placeholder $SUFFIX."""
        return (self.folder / _ENTRY).read_text()

    @property
    def schema(self) -> list[Path]:
        """IPA's schema files."""
        return sorted((self.folder / "schema").glob("*.ldif"))


def obtain(cache: Path | None = None) -> Plugin:
    """The plugin for the installed server, from the cache or fetched and compiled; else PluginUnavailableError."""
    cache = cache or default_cache()
    try:
        recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        ready = cache / f"389-ds-{server_version()}-{recipe}"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(cache / "lock"):
            if not ready.exists():
                _make(ready, cache)
    except (LabError, OSError) as error:
        raise PluginUnavailableError(f"IPA's password plugin cannot be had here: {error}") from error
    return Plugin(ready)


def default_cache() -> Path:
    """Root's is shared by all checkouts of the machine; anybody else has his own (XDG base directories)."""
    if os.getuid() == 0:
        return Path("/var/cache/passrelay-lab")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "passrelay-lab"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(ready: Path, cache: Path) -> None:
    missing = [name for name in _NEEDED if not Path("/usr/include", name).exists()]
    if missing or shutil.which("gcc") is None:
        lacking = ", ".join([*missing, *([] if shutil.which("gcc") else ["gcc"])])
        raise LabError(f"it takes {lacking} to compile it: `./run test --only ipa` installs the packages, as root")
    archive = next(iter(sorted(cache.glob(f"{_PACKAGE}_*.orig.tar.*"))), None) or fetch(_PACKAGE, _SUITE, cache)
    with TemporaryDirectory(prefix="build-", dir=cache) as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "made")
        source.mkdir()
        (made / "schema").mkdir(parents=True)
        run_tool(["tar", "-xf", archive, "-C", source, "--strip-components=1", "--no-same-owner"])
        _compile(source, made / _LIBRARY)
        shutil.copy(source / _SLAPI / "ipa-pwd-extop" / _ENTRY, made)
        for path in _matching(source, _SCHEMA):
            shutil.copy(path, made / "schema")
        made.rename(ready)


def _compile(source: Path, library: Path) -> None:
    (source / "config.h").touch()  # configure would write it; the two settings that matter are given here
    run_tool(
        [
            *("gcc", "-shared", "-fPIC", "-O1", "-w", "-o", library),
            *("-DHAVE_CONFIG_H", "-DUSE_PWQUALITY=1", "-DUSE_OPENLDAP", f"-I{source}"),
            *(f"-I{source / name}" for name in _INCLUDED),
            *(f"-I/usr/include/{name}" for name in _HEADERS),
            *(path for pattern in _SOURCES for path in _matching(source, pattern)),
            *(f"-l{name}" for name in _LIBRARIES),
        ],
        timeout_seconds=300,
    )


def _matching(source: Path, pattern: str) -> list[Path]:
    found = sorted(source.glob(pattern))
    if not found:
        raise LabError(f"{_PACKAGE}'s source has no {pattern}: is this another version than 4.12?")
    return found


def main() -> int:
    """Build it, say where it is or why not (exit code 3)."""
    try:
        print(obtain().folder)
    except PluginUnavailableError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
