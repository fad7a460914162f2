"""docker-compose.yml as somebody runs it on a fresh clone: a copy of the checkout, built and started on an engine."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.compose.engine import Engine
from tests.lab.process import LabError, run_tool, wait_for

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "Dockerfile", ".dockerignore")
_FOLDERS = ("schemas", "producer", "consumer", "ops")
_BUILT = ("files", "consumer", "watch", "producer", "operator", "demo-files", "demo-setup", "demo-producer")
_BUILT_FROM_DEBIAN = ("directory", "samba")
_PYTHON = "3.13"
_PATIENCE_SECONDS = 600
# As it is typed by a user, but with the password from standard input and not from a terminal.
_WHO_AM_I = """
umask 077
file=$(mktemp)
cat >"$file"
ldapwhoami -x -H ldaps://directory -D "uid=$1,cn=users,cn=accounts,dc=idm,dc=example" -y "$file"
status=$?
rm "$file"
exit $status
"""


class Project:
    """The services of one checkout. `build` needs an engine on the machine's network, everything else its own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.files = folder / "files"
        folder.mkdir()
        for name in (*_PARTS, "docker-compose.yml"):
            shutil.copy(ROOT / name, folder)
        for name in _FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        (folder / "test.yml").write_text(json.dumps(_OVERRIDE))

    # -- life

    def build(self) -> None:
        """Build the images: pip fetches wheels here, as this environment is set up; apt works in the build."""
        _fetch_wheels(self.folder / "wheelhouse")
        # One after the other: each service would build the one image anew.
        self.compose("build", "files")
        self.compose("build", "--parallel", *_BUILT_FROM_DEBIAN)

    def up(self, *arguments: str) -> None:
        """`up -d` with the demo."""
        self.compose("up", "-d", "--no-build", *arguments)

    def compose(self, *arguments: str) -> str:
        """Any other command."""
        # JSON is YAML. Grafana's image cannot be had here, so that the service has a profile that nobody asks for.
        known = ["-p", "passrelay", "-f", "docker-compose.yml", "-f", "test.yml", "--profile", "demo"]
        return self.engine.compose(self.folder, [*known, *arguments])

    # -- containers

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """All containers, or those of one service, as `docker inspect` shows them."""
        of_service = [] if service is None else ["--filter", f"label=com.docker.compose.service={service}"]
        names = self.engine.docker("ps", "--all", "--quiet", "--no-trunc", *of_service).split()
        return self.engine.inspect(*names)

    def wait_until_healthy(self, services: Sequence[str]) -> None:
        """Until every container of these services says so."""
        for service in services:
            self._wait_until_all(service, lambda found: health(found) == "healthy", "is healthy")

    def wait_until_done(self, service: str) -> None:
        """Until a service that does its work once has ended with success."""
        self._wait_until_all(service, lambda found: state(found) == ("exited", 0), "ends with success")

    def _wait_until_all(self, service: str, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        try:
            wait_for(
                lambda: all(holds(found) for found in self.containers(service)),
                what=f"{service} {what}",
                timeout_seconds=_PATIENCE_SECONDS,
                interval_seconds=0.5,
            )
        except LabError as error:
            told = self.compose("logs", "--tail", "20")
            raise LabError(f"{error}\n{self.engine.docker('ps', '--all')}\n{told}") from None

    def execute(self, service: str, *command: str, stdin: bytes = b"", check: bool = True) -> str:
        """Run a command in the first container of a service."""
        name = self.containers(service)[0]["Id"]
        return self.engine.docker("exec", "--interactive", name, *command, stdin=stdin, check=check)

    # -- the relay

    def change_password(self, user: str, password: str) -> None:
        """As an administrator of the domain does it on the controller."""
        self.execute("samba", "samba-tool", "user", "setpassword", user, stdin=f"{password}\n{password}\n".encode())

    def binds(self, user: str, password: str) -> bool:
        """Whether the user can log in at the directory; False also while it does not answer."""
        answer = self.execute("directory", "sh", "-c", _WHO_AM_I, "sh", user, stdin=password.encode(), check=False)
        return f"uid={user}," in answer

    def wait_until_binds(self, user: str, password: str) -> None:
        """Until the password has arrived."""
        wait_for(
            lambda: self.binds(user, password),
            what=f"{user} logs in at the directory with the new password",
            timeout_seconds=_PATIENCE_SECONDS,
            interval_seconds=0.3,
        )


def health(container: dict[str, Any]) -> str:
    """`starting`, `healthy`, `unhealthy`."""
    return str(container["State"].get("Health", {}).get("Status", "none"))


def state(container: dict[str, Any]) -> tuple[str, int]:
    """`running`, `exited` and so on, and the exit code."""
    return str(container["State"]["Status"]), int(container["State"]["ExitCode"])


_OVERRIDE = {
    "services": {
        **{name: {"build": {"network": "host", "args": {"PIP_NO_INDEX": "1"}}} for name in _BUILT},
        **{name: {"build": {"network": "host"}} for name in _BUILT_FROM_DEBIAN},
        "grafana": {"profiles": ["not-here"]},
    }
}


def _fetch_wheels(folder: Path) -> None:
    """The wheels that the image needs, fetched by this environment's pip, however that is set up."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["samba"],
        *project["build-system"]["requires"],
    ]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    target = ["--dest", str(folder), "--constraint", str(ROOT / "constraints.txt"), "--python-version", _PYTHON]
    run_tool([*pip, *target, "--only-binary=:all:", *needed], timeout_seconds=600)
