"""A host's configuration files as checks, and the list of all checks in the runbook."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from passrelay_ops.check import Result
from passrelay_ops.cli import app
from passrelay_ops.doctor import broker, directory, host, samba, spool
from passrelay_ops.doctor.catalogue import CHECKS, table

OPS = '[broker]\nurl = "amqp://127.0.0.1:9/passrelay"\n[keys]\ndirectory = "{folder}"\n'


def write(folder: Path, name: str, text: str) -> Path:
    folder.chmod(0o700)
    path = folder / name
    path.write_text(text.replace("{folder}", str(folder)))
    return path


def test_the_runbook_has_every_check() -> None:
    assert table() in Path("docs/runbooks/doctor.md").read_text()
    known = {*broker.ids("ops"), *directory.IDS, *samba.ids(), *spool.IDS, host.FILE}
    assert known | {f"config.{name}" for name in host.TABLES} <= CHECKS.keys()


def test_a_file_that_cannot_be_read_ends_with_two_and_the_others_are_examined(tmp_path: Path) -> None:
    good, bad = write(tmp_path, "ops.toml", OPS), write(tmp_path, "consumer.toml", "[brokr]\n")
    result = CliRunner().invoke(app, ["doctor", "--config", str(bad), "--config", str(good)])
    assert result.exit_code == 2
    assert "did you mean broker" in result.output
    assert "broker.connect" in result.output
    assert CliRunner().invoke(app, ["doctor", "--config", str(good)]).exit_code == 1, "the broker is out of reach"


def test_a_fault_of_a_table_is_that_tables_and_hints_are_none(tmp_path: Path) -> None:
    path = write(tmp_path, "ops.toml", OPS.replace("amqp://127.0.0.1:9", "amqps://broker.example"))
    [file] = host.examine(path).rows
    assert (file.id, file.result) == ("config.file", Result.FAIL)
    path = write(
        tmp_path,
        "ops.toml",
        OPS + '[idm]\nservers = ["ldaps://i.example"]\nca_file = "/no/ca.pem"\n'
        'bind_dn = "uid=p,dc=x"\npassword_file = "/no/password"\n',
    )
    examined = host.examine(path)
    found = {row.id: row for row in examined.rows}
    assert {check for check, row in found.items() if row.result is Result.FAIL} == {"config.idm"}
    assert "/no/ca.pem" in found["config.idm"].detail
    assert "keys init ops" in found["config.keys"].detail, "only a hint: no ops key here"
    assert (examined.good("idm"), examined.good("broker")) == (False, True)


def test_the_role_is_told_by_the_name_else_by_the_tables(tmp_path: Path) -> None:
    for name, text, role in (
        ("ops.toml", "[source.stdin]\n", "ops"),
        ("dc2.toml", "[spool]\n", "producer"),
        ("dc1.toml", "[source.stdin]\n", "producer"),
        ("idm1.toml", "[consumer]\nworkers = 1\n", "consumer"),
        ("desk.toml", OPS + '[[domain]]\nname = "a.example"\n[domain.ad]\n', "ops"),
    ):
        assert host.examine(write(tmp_path, name, text)).role == role


@pytest.mark.parametrize("more", ["", "[idm]\n[[domain]]\nname = 'a.example'\n", '[metrics]\nlisten = "127.0.0.1:0"\n'])
def test_a_file_that_could_be_anybodys_is_a_fault_and_never_guessed(tmp_path: Path, more: str) -> None:
    examined = host.examine(write(tmp_path, "idm1.toml", OPS + more))
    [row] = examined.rows
    assert (row.id, row.result, examined.settings) == ("config.file", Result.FAIL, None)
    assert "consumer.toml" in row.repair
    result = CliRunner().invoke(app, ["doctor", "--config", str(examined.path)])
    assert result.exit_code == 2
    assert "set_permissions" not in result.output


def test_what_an_operators_file_leaves_out_is_unknown_with_its_repair(tmp_path: Path) -> None:
    def unknown(more: str) -> dict[str, str]:
        rows = host.examine(write(tmp_path, "ops.toml", OPS + more)).rows
        assert all(row.repair for row in rows if row.result is Result.UNKNOWN)
        return {row.id: row.subject for row in rows if row.result is Result.UNKNOWN}

    path = str(tmp_path / "ops.toml")
    assert unknown("") == {"idm.connect": path, "ad.connect": path}
    domain = '[[domain]]\nname = "a.example"\n'
    assert unknown(domain + 'sid = "S-1-5-21-1-2-3"\n') == {"idm.connect": path, "ad.connect": "a.example"}
    assert unknown(domain + 'order = "time"\n') == {"idm.connect": path}
    result = CliRunner().invoke(app, ["doctor", "--config", path])
    assert "write [idm]" in " ".join(result.output.split())
