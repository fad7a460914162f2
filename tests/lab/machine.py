"""Empty Debian machines that really boot, with systemd as their first process, on a network of their own.

Each is a systemd-nspawn container over a shared base folder, to which it writes nothing. They and the test meet on the
loopback of one network namespace, so that every well-known port is free and no packet leaves it.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab.machine_base import Base
from tests.lab.process import LabError, Process, run_tool, wait_for

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_REBOOTS = 133
"""systemd-nspawn's exit code with --keep-unit when the machine wants to be booted again."""
_BOOT_SECONDS = 300
_STOP_SECONDS = 120
_ANSWER_SECONDS = 30
_CONTROL_GROUPS = tuple(Path("/sys/fs/cgroup", part) for part in ("", "unified", "systemd"))
"""Where the kernel's trees may be mounted: one, or beside the older ones those that systemd itself uses."""
# A control group for each machine: in a common one they would wait for, and end, each other's services.
# The mounts are in a namespace of their own, so that the kernel undoes them however the machine ends. Nothing that is
# written must survive the host's own crash: `volatile` spares the waiting for disks, and wants its mark removed.
_START = """
for tree in $1; do mkdir -p "$tree"; echo $$ >"$tree/cgroup.procs"; done
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
rm -rf "$4"/*/incompat
mount -t overlay overlay -o "volatile,lowerdir=$2,upperdir=$3,workdir=$4" "$5"
shift 5
exec "$@"
"""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class Wire:
    """A network namespace with nothing but its loopback; it ends with its process."""

    def __init__(self, folder: Path) -> None:
        command = ["unshare", "--net", "--", "sh", "-ec", "ip link set lo up; echo up; exec sleep infinity"]
        self._process = Process("wire", command, log=folder / "wire.log")

    def start(self) -> None:
        """Make it."""
        self._process.start()
        self._process.wait_until(lambda: "up" in self._process.tail(), what="loopback is up")

    @property
    def file(self) -> Path:
        """The namespace as the kernel names it."""
        return Path(f"/proc/{self._process.pid}/ns/net")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets and children that this thread makes meanwhile belong to the wire, for ever (setns(2))."""
        with Path("/proc/thread-self/ns/net").open() as home, self.file.open() as wire:
            _set_network(wire.fileno())
            try:
                yield
            finally:
                _set_network(home.fileno())

    def stop(self) -> None:
        """Give it back; it is gone when the last process in it has ended."""
        self._process.stop()


def _set_network(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


class Machine:
    """One machine: `boot`, then `run` commands in it as root; `close` switches it off.

    `mounts` are folders of the host that it sees, which it cannot change; `shared` is one that it can, as /shared.
    """

    def __init__(
        self, name: str, base: Base, wire: Wire, folder: Path, *, mounts: Mapping[Path, str], shared: Path
    ) -> None:
        self.name = name
        self.root = folder / "root"
        self._upper, self._work = folder / "upper", folder / "work"
        for path in (self.root, self._upper, self._work):
            path.mkdir(parents=True)
        binds = [f"--bind-ro={source}:{target}" for source, target in mounts.items()]
        nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"]
        binds.append(f"--bind={shared}:/shared")
        # The name is the machine's among all of the host, so it is made from the folder's, which is nobody else's.
        known = f"{folder.parent.name}-{name}".replace("_", "-").lower()
        where = [f"--directory={self.root}", f"--machine={known}", f"--network-namespace-path={wire.file}"]
        own = [f"--hostname={name}", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        self._groups = [tree / f"passrelay-{known}" for tree in _CONTROL_GROUPS if (tree / "cgroup.procs").exists()]
        layers = [str(base.system), str(self._upper), str(self._work), str(self.root)]
        mount = ["unshare", "--mount", "--propagation=private", "--", "sh", "-ec", _START, "sh"]
        mount += [" ".join(str(group) for group in self._groups), *layers]
        self._process = Process(
            name,
            [*mount, *nspawn, *where, *own, *binds],
            log=folder / "console.log",
            # Also where the host itself still has the older control groups, which newer systemd refuses.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )

    def boot(self) -> None:
        """Switch it on and return when systemd has started everything."""
        self._process.start()
        try:
            self._process.wait_until(self._is_up, what="booted", timeout_seconds=_BOOT_SECONDS)
        except LabError as error:
            if not self._process.running:
                raise
            jobs = self.run("systemctl list-jobs", check=False, timeout_seconds=_ANSWER_SECONDS)
            raise LabError(f"{error}\n{jobs}") from error

    def reboot(self) -> None:
        """`systemctl reboot`, as an administrator does it."""
        self.run("systemctl reboot", check=False)
        wait_for(lambda: not self._process.running, what=f"{self.name}: goes down", timeout_seconds=_STOP_SECONDS)
        code = self._process.child.returncode if self._process.child else None
        if code != _REBOOTS:
            raise LabError(f"{self.name}: went down with {code} and not for a reboot:\n{self._process.tail()}")
        self.boot()

    def close(self) -> None:
        """Switch it off hard. systemd-nspawn's own end would leave the machine running."""
        for group in self._groups:
            if (kill := group / "cgroup.kill").exists():
                kill.write_text("1")
        self._process.kill()
        wait_for(self._forgotten, what=f"{self.name}: its control groups are empty")

    def _forgotten(self) -> bool:
        for group in self._groups:
            for path in sorted(group.rglob("*/"), reverse=True):
                with suppress(OSError):
                    path.rmdir()
            with suppress(OSError):
                group.rmdir()
        return not any(group.exists() for group in self._groups)

    def run(self, script: str, *, stdin: str = "", check: bool = True, timeout_seconds: float = 600) -> str:
        """Bash commands in it, as root at its console; the first that fails ends them. Returns stdout."""
        enter = ["nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        return run_tool(
            [*enter, "--", "bash", "-ec", script],
            env=_ENVIRONMENT,
            stdin=stdin.encode(),
            check=check,
            timeout_seconds=timeout_seconds,
        )

    def prepare(self, path: str, content: str) -> None:
        """A file of it, written while it is switched off, with the modes of a public one."""
        file = self._upper / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def read(self, path: str) -> str:
        """A file of it."""
        return self.run(f"cat '{path}'")

    def write(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Write a file of root's; an old one is replaced."""
        self.run(f"umask 077; cat >'{path}.new'; chmod {mode:o} '{path}.new'; mv '{path}.new' '{path}'", stdin=content)

    @property
    def data_paths(self) -> list[Path]:
        """Everything that was written in it."""
        return [self._upper]

    @property
    def _init(self) -> int:
        """Its first process, as the host counts."""
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in listed:
            # The number in each of its namespaces, the innermost last (proc_pid_status(5)).
            numbers = re.search(r"^NSpid:.*\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            if numbers and numbers[1] == "1":
                return int(pid)
        raise LabError(f"{self.name} does not run:\n{self._process.tail()}")

    def _is_up(self) -> bool:
        try:
            state = self.run("systemctl is-system-running", check=False, timeout_seconds=_ANSWER_SECONDS).strip()
        except (LabError, OSError):
            return False
        return state in {"running", "degraded"}
