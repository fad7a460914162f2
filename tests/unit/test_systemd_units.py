"""The shipped units: systemd understands them, they are hardened, and their commands and settings exist."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from passrelay_ops.cli import app
from passrelay_schemas.settings import ROLES
from passrelay_schemas.settings_file import load

OPS = Path(__file__).resolve().parents[2] / "ops"
SERVICES = [OPS / "systemd" / f"passrelay-{name}.service" for name in ("consumer", "producer", "watch")]
KEEPER = OPS / "systemd" / "passrelay-containers.service"
UNITS = [*SERVICES, KEEPER]
INSTALLED = "/opt/passrelay/bin/passrelay"
MOST_EXPOSURE = 20
"""Tenths of systemd's points, of 100. docs/install.md has what each unit got; versions of systemd differ a little."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="Debian's package systemd is missing"
)
each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
each_service = pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)


def values(unit: Path, key: str) -> list[str]:
    lines = unit.read_text().splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


def role(unit: Path) -> str:
    name = unit.stem.removeprefix("passrelay-")
    return "ops" if name == "watch" else name


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_there_is_a_unit_for_each_service() -> None:
    assert sorted(UNITS) == sorted((OPS / "systemd").glob("*.service"))


@needs_systemd
def test_a_timer_looks_after_the_containers() -> None:
    timer = KEEPER.with_suffix(".timer")
    done = run("systemd-analyze", "--no-pager", "verify", timer)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert values(timer, "OnUnitInactiveSec") == ["30"]


@needs_systemd
@each_unit
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    # It looks whether the program is there.
    copy.write_text(unit.read_text().replace(INSTALLED, str(Path(sys.executable).with_name("passrelay"))))
    done = run("systemd-analyze", "--no-pager", "verify", copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@each_unit
def test_it_is_hardened(unit: Path) -> None:
    done = run("systemd-analyze", "--no-pager", "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout + done.stderr


@each_service
def test_it_starts_a_command_that_exists_and_never_gives_up(unit: Path) -> None:
    (start,) = values(unit, "ExecStart")
    program, *arguments = start.split()
    assert program == INSTALLED
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    assert values(unit, "Restart") == ["on-failure"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]


@each_service
def test_each_credential_is_the_file_of_the_example_and_reaches_its_setting(
    unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = OPS / "examples" / f"{role(unit)}.toml"
    for line in values(unit, "LoadCredential"):
        name, _, source = line.partition(":")
        (setting,) = [text for text in values(unit, "Environment") if text.endswith(f"=%d/{name}")]
        # `watch` has a certificate of its own, which its unit names.
        named = [f'"{source}"' in example.read_text(), source.replace(".key", ".pem") in unit.read_text()]
        assert any(named), source
        monkeypatch.setenv(setting.partition("=")[0], f"/credentials/{name}")
    text = load(ROLES[role(unit)], example).model_dump_json()
    for line in values(unit, "LoadCredential"):
        name, _, source = line.partition(":")
        assert f'"/credentials/{name}"' in text
        assert f'"{source}"' not in text


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another account")
def test_the_consumers_account_and_its_key_directory_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users = run("systemd-sysusers", f"--root={tmp_path}", OPS / "systemd" / "passrelay.sysusers.conf")
    assert users.returncode == 0, users.stderr
    files = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", OPS / "systemd" / "passrelay.tmpfiles.conf")
    assert files.returncode == 0, files.stderr
    account = next(
        line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("passrelay:")
    )
    assert account[-1].endswith("nologin")
    keys = (tmp_path / "etc/passrelay/keys").stat()
    assert (keys.st_uid, stat.S_IMODE(keys.st_mode)) == (int(account[2]), 0o700)
