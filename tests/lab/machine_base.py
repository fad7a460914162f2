"""A folder with a small Debian, as its installer would leave it, and everything to install more without a network.

Made once for each release and kept outside the project, under a lock. Beside the system it holds the archives of
Debian's packages in apt's own cache, and the Python packages that passrelay depends on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.debian_source import machine_mirror
from tests.lab.ipa_plugin import default_cache
from tests.lab.process import LabError, MissingServerError, run_tool

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""Debian 12 and 13, and their Python."""
# What an installation of Debian has and debootstrap's smallest variant lacks.
_SYSTEM = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "openssl", "iproute2", "procps", "less")
# What docs/install.md installs, and what makes a host a domain controller.
_ARCHIVES = ("python3-venv", "pipx", "rabbitmq-server", "gpg", "gpg-agent", "samba-ad-dc", "krb5-user")
_SECONDS = 1800


class MachineUnavailableError(MissingServerError):
    """An empty machine cannot be had here; the message says why."""


@dataclass(frozen=True)
class Base:
    """The folders of one release."""

    suite: str
    system: Path
    wheels: Path


def machine_release() -> str:
    """The release of Debian that this machine itself has, or the older one that is known here."""
    named = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return named if named in PYTHONS else next(iter(PYTHONS))


def obtain(suite: str, cache: Path | None = None) -> Base:
    """The folders, from the cache or made now (one to four minutes); else MachineUnavailableError."""
    cache = cache or default_cache()
    recipe = hashlib.sha256(repr((_SYSTEM, _ARCHIVES)).encode()).hexdigest()[:12]
    versions = (ROOT / "constraints.txt").read_text()
    wanted = hashlib.sha256("\n".join([*_requirements(), versions]).encode()).hexdigest()[:12]
    base = Base(suite, cache / f"{suite}-{recipe}", cache / f"wheels-{PYTHONS[suite]}-{wanted}")
    try:
        _demand_tools()
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (cache / f"{suite}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not base.system.exists():
                _make_system(base, cache)
            if not base.wheels.exists():
                _fetch_wheels(base, cache)
    except (LabError, OSError) as error:
        raise MachineUnavailableError(f"an empty Debian machine cannot be had here: {error}") from error
    return base


def _demand_tools() -> None:
    if os.geteuid() != 0:
        raise LabError("only root can make one")
    missing = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter", "unshare") if shutil.which(tool) is None]
    if missing:
        raise LabError(f"{', '.join(missing)} is not installed (Debian: debootstrap, systemd-container, util-linux)")


def _make_system(base: Base, cache: Path) -> None:
    mirror = machine_mirror()
    if mirror is None:
        raise LabError("apt's sources name no Debian mirror")
    with TemporaryDirectory(prefix="system-", dir=cache) as scratch:
        system = Path(scratch, "system")
        command: list[str | Path] = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(_SYSTEM)}",
            base.suite,
            system,
            mirror,
        ]
        run_tool(command, timeout_seconds=_SECONDS)
        shutil.copy("/etc/resolv.conf", system / "etc" / "resolv.conf")
        apt: list[str | Path] = ["chroot", system, "apt-get", "-q", "-y"]
        run_tool([*apt, "update"], timeout_seconds=_SECONDS)
        # Recommended packages too: so does the page's `apt-get install`.
        run_tool([*apt, "install", "--download-only", *_ARCHIVES], timeout_seconds=_SECONDS)
        (system / "etc" / "resolv.conf").unlink()
        (system / "etc" / "machine-id").write_text("")  # each machine gets its own at its first boot
        system.rename(base.system)


def _fetch_wheels(base: Base, cache: Path) -> None:
    """With this environment's pip and its settings, for the other release's Python too."""
    with TemporaryDirectory(prefix="wheels-", dir=cache) as scratch:
        folder = Path(scratch, "wheels")
        pip: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
        pip += ["--dest", folder, f"--python-version={PYTHONS[base.suite]}", "-c", ROOT / "constraints.txt"]
        run_tool([*pip, *_requirements()], timeout_seconds=_SECONDS)
        folder.rename(base.wheels)


def _requirements() -> list[str]:
    """What a wheel of passrelay with its extra `samba` needs, and what builds it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    return sorted(
        {
            *project["dependencies"],
            *project["optional-dependencies"]["samba"],
            *document["build-system"]["requires"],
        }
    )
