"""What `pip` and `pipx` install: a wheel that is whole, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from passrelay_schemas import __version__

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # pip fetches the build's own tool (hatchling), as it did for this environment.
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def passrelay(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment: passrelay from the wheel, what it depends on from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Only the first directory's .pth files are read, so that this environment's editable passrelay stays out of it.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import passrelay_schemas; print(passrelay_schemas.__file__)")
    assert where.startswith(str(packages))
    return folder / "bin" / "passrelay"


def test_it_holds_every_module_and_template_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    rooms = ("schemas", "producer", "consumer", "ops")
    modules = {
        str(path.relative_to(ROOT / room)) for room in rooms for path in (ROOT / room).glob("passrelay_*/**/*.py")
    }
    assert modules <= names
    templates = {f"passrelay_ops/idm/templates/{path.name}" for path in (ROOT / "ops/idm").glob("*.ldif")}
    assert templates
    assert templates <= names
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".key")]


def test_the_installed_command_tells_its_version(passrelay: Path) -> None:
    assert run(passrelay, "--version").strip() == f"passrelay {__version__}"


def test_the_installed_command_checks_a_configuration(passrelay: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    config = tmp_path / "ops.toml"
    config.write_text(f'[broker]\nurl = "amqp://127.0.0.1/passrelay"\n[keys]\ndirectory = "{tmp_path}/keys"\n')
    assert "good" in run(passrelay, "config", "check", "--config", config)
    config.write_text('[broker]\nurl = "amqp://broker.example/passrelay"\n')
    assert "clear-text amqp:// to broker.example is refused" in run(
        passrelay, "config", "check", "--config", config, code=2
    )
