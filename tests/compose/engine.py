"""A Docker engine of the test's own, from Debian's packages, in namespaces of its own.

All processes of the engine, its mounts, bridges, packet filter rules and published ports are inside these namespaces:
two engines on one machine cannot meet, and when the engine's first process ends the kernel leaves nothing of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.process import LabError, MissingServerError, Process, run_tool, wait_for

DOCKER = Path("/usr/bin/docker")
"""Debian's client; another one may come first in PATH."""
_COMPOSE_1 = Path("/usr/bin/docker-compose")
_COMPOSE_2 = [Path(folder) / "docker/cli-plugins/docker-compose" for folder in ("/usr/libexec", "/usr/lib")]
_TOOLS = (DOCKER, Path("/usr/sbin/dockerd"), Path("/usr/sbin/debootstrap"), Path("/usr/bin/unshare"))
_PACKAGES = "docker.io docker-cli docker-compose iptables iproute2 debootstrap"
# The mounts of the control groups would be hidden below a new /sys.
_ENTER = """
set -e
if [ "$1" = own ]; then
    ip link set lo up
    mount --rbind /sys/fs/cgroup "$2"
    mount -t sysfs sysfs /sys
    mount --rbind "$2" /sys/fs/cgroup
fi
shift 2
exec docker-init -- dockerd "$@"
"""


def compose_command() -> list[str]:
    """`docker-compose` (version 1, Debian 12) or `docker compose` (2, Debian 13); MissingServerError without both."""
    if any(plugin.exists() for plugin in _COMPOSE_2):
        return [str(DOCKER), "compose"]
    if _COMPOSE_1.exists():
        return [str(_COMPOSE_1)]
    raise MissingServerError(f"docker-compose is not installed: apt-get install {_PACKAGES}")


def demand_tools() -> None:
    """MissingServerError names what is missing here; otherwise an engine can be started."""
    if os.geteuid() != 0:
        raise MissingServerError("only root can start a Docker engine")
    for tool in _TOOLS:
        if not tool.exists():
            raise MissingServerError(f"{tool} is missing: apt-get install {_PACKAGES}")
    compose_command()


class Engine:
    """One engine with its data in a folder; it builds on the machine's network and runs on a network of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.data = folder / "data"
        self.home = folder / "home"
        self._socket = folder / "docker.sock"
        self._log = folder / "dockerd.log"
        self._cgroup = f"passrelay-{folder.parent.name}-{os.getpid()}"
        self._process: Process | None = None
        for path in (self.data, self.home, folder / "cgroup"):
            path.mkdir()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client needs: nothing of the machine's own Docker configuration reaches it."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
        return {
            **kept,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home),
            "DOCKER_HOST": f"unix://{self._socket}",
            "COMPOSE_INTERACTIVE_NO_CLI": "1",
        }

    # -- life

    def start(self, *, own_network: bool) -> None:
        """Start it and wait until it answers."""
        # The process ids in these files are from other namespaces.
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        (self.folder / "docker.pid").unlink(missing_ok=True)
        kind, network = ("own", ["--net"]) if own_network else ("host", [])
        unshare = ["unshare", "--mount", "--pid", *network, "--fork", "--mount-proc", "--kill-child=SIGKILL"]
        options = {
            "--data-root": self.data,
            "--exec-root": self.folder / "exec",
            "--host": f"unix://{self._socket}",
            "--pidfile": self.folder / "docker.pid",
            "--cgroup-parent": f"/{self._cgroup}",
            # Compose makes its own bridge. On the machine's network nothing at all is touched.
            "--bridge": "none",
            "--iptables": "false",
            "--ip6tables": "false",
        }
        arguments = [f"{name}={value}" for name, value in options.items()]
        self._process = Process(
            "dockerd",
            # unshare blocks SIGTERM, with which the lab's processes end when the test itself is killed.
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                *unshare,
                "sh",
                "-c",
                _ENTER,
                "sh",
                kind,
                self.folder / "cgroup",
                *arguments,
            ],
            log=self._log,
            env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self._process.start()
        self._process.wait_until(self._answers, what="it answers")

    def stop(self) -> None:
        """End the engine and every container; nothing of them is left but the data."""
        process, self._process = self._process, None
        if process is None or process.child is None:
            return
        if process.running:
            with contextlib.suppress(LabError, ProcessLookupError):
                os.kill(self._first_process(process), signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.child.wait(60)
        process.kill()
        groups = [path for path in Path("/sys/fs/cgroup").glob(f"**/{self._cgroup}") if path.is_dir()]
        wait_for(lambda: all(_removed(group) for group in groups), what="the engine's control groups are empty")

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process by the id that the engine knows it by."""
        self._inside("--pid", "--mount", "sh", "-c", f"kill -{number} {pid}")

    def fetch(self, url: str) -> str:
        """The body of a page at a published port, which is on the engine's own loopback."""
        script = "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=10).read().decode())"
        return self._inside("--net", "/usr/bin/python3", "-c", script, url)

    # -- clients

    def docker(
        self, *arguments: str | Path, stdin: bytes | None = None, check: bool = True, timeout_seconds: float = 120
    ) -> str:
        """Run Debian's `docker`."""
        command = [DOCKER, *arguments]
        return run_tool(command, env=self.environment, stdin=stdin, check=check, timeout_seconds=timeout_seconds)

    def inspect(self, *names: str, kind: str = "container") -> list[dict[str, Any]]:
        """What the engine knows of containers, images or volumes."""
        if not names:
            return []
        found: list[dict[str, Any]] = json.loads(self.docker(kind, "inspect", *names))
        return found

    def compose(self, folder: Path, arguments: Sequence[str], *, timeout_seconds: float = 600) -> str:
        """Run compose in a folder."""
        command = [*compose_command(), *arguments]
        return run_tool(command, env=self.environment, cwd=folder, timeout_seconds=timeout_seconds)

    def _answers(self) -> bool:
        done = subprocess.run([DOCKER, "version"], env=dict(self.environment), capture_output=True, check=False)
        return done.returncode == 0

    def _inside(self, *arguments: str) -> str:
        if self._process is None:
            raise LabError("the engine does not run")
        return run_tool(["nsenter", "--target", str(self._first_process(self._process)), *arguments])

    def _first_process(self, unshare: Process) -> int:
        """The process that is number 1 of the engine's own ids: it ends, and all end."""
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        if len(children) != 1:
            raise LabError(f"{unshare.name}: the engine has ended; log {unshare.log}:\n{unshare.tail()}")
        return int(children[0])


def _removed(group: Path) -> bool:
    """Remove an empty tree of control groups; False while a process is in it."""
    for path in sorted((path for path in (group, *group.rglob("*")) if path.is_dir()), reverse=True):
        try:
            path.rmdir()
        except OSError:
            return False
    return True


def main() -> int:
    """For `./run test --only compose`: exit code 3 and the reason where no engine can be started."""
    try:
        demand_tools()
    except MissingServerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
