"""`passrelay config check`: each fault by its key, with the repair; exit code 2 on any."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner, Result

from passrelay_ops import config_check
from passrelay_ops.cli import app
from passrelay_ops.commands import config as config_command
from passrelay_ops.config_files import Fault
from passrelay_schemas.keys import KeyStatus, KeyUse, generate, write_private, write_public
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import toml
from tests.lab.folder import CANARY, canary_password

Document = dict[str, Any]


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


@pytest.fixture
def documents(tmp_path: Path, ca: CertificateAuthority) -> dict[str, Document]:
    """A good configuration for each role, with every file it names."""
    certificate = ca.issue("host", common_name="host")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for use, producer in ((KeyUse.RECIPIENT, None), (KeyUse.OPS, None), (KeyUse.SIGNING, "dc1")):
        document, private = generate(use, producer=producer)
        write_public(keys, document)
        write_private(keys, document, private)
    password = tmp_path / "idm.password"
    password.touch(mode=0o600)
    password.write_text(canary_password() + "\n")
    gpg, ldapi = tmp_path / "gpg.key", tmp_path / "ldapi"
    gpg.touch(mode=0o600)
    ldapi.touch()
    common = {
        "broker": {
            "url": "amqps://broker.example:5671/passrelay",
            "ca_file": ca.ca_file,
            "certificate_file": certificate.certificate,
            "key_file": certificate.key,
        },
        "keys": {"directory": keys},
    }
    domain = {"name": "lab.example", "sid": "S-1-5-21-1-2-3", "producers": ["dc1"], "search_base": "dc=test"}
    idm = {
        "servers": ["ldaps://idm.example"],
        "ca_file": ca.ca_file,
        "bind_dn": "uid=passrelay,cn=sysaccounts",
        "password_file": password,
    }
    return {
        "producer": {
            **common,
            "source": {"samba": {"ldapi_path": ldapi, "gpg_key_file": gpg}},
            "spool": {"path": tmp_path / "spool.sqlite"},
        },
        "consumer": {**common, "idm": idm, "domain": [domain]},
        "ops": {**common, "idm": idm, "domain": [domain]},
    }


@pytest.fixture
def check(tmp_path: Path, documents: dict[str, Document]) -> Callable[..., Result]:
    """Run the command on a role's good configuration after `change` was applied to it."""

    def run(role: str, change: Callable[[Document], object] = lambda _: None, *more: str) -> Result:
        change(documents[role])
        path = tmp_path / f"{role}.toml"
        path.write_text(toml(documents[role]))
        return CliRunner().invoke(app, ["config", "check", "--config", str(path), *more])

    return run


@pytest.mark.parametrize("role", ["producer", "consumer", "ops"])
def test_a_good_configuration_passes(role: str, check: Callable[..., Result]) -> None:
    result = check(role)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "good" in result.stdout


FAULTS: list[tuple[str, Callable[[Document], object], tuple[str, ...]]] = [
    ("producer", lambda file: file["broker"].update(ca_fil="x"), ("broker.ca_fil", "did you mean ca_file?")),
    ("producer", lambda file: file.update(brokr={"url": "x"}), ("brokr", "did you mean broker?")),
    ("producer", lambda file: file.update(zzz={"url": "x"}), ("zzz", "known here:", "spool")),
    ("producer", lambda file: file["spool"].update(retention_hours="long"), ("spool.retention_hours", "number")),
    ("producer", lambda file: file["source"].update(stdin={}), ("source", "exactly one")),
    ("producer", lambda file: file.pop("source"), ("source", "is needed and missing")),
    ("producer", lambda file: file["source"]["samba"].update(gpg_key_file="/nowhere"), ("gpg_key_file", "/nowhere")),
    ("producer", lambda file: file["source"]["samba"].update(ldapi_path="/nowhere"), ("ldapi_path", "samba running")),
    ("producer", lambda file: file["spool"].update(path="/nowhere/spool"), ("spool.path", "/nowhere", "make it")),
    (
        "producer",
        lambda file: file.update(filter={"exclude_patterns": ["*"]}),
        ("filter.exclude_patterns", "everybody"),
    ),
    (
        "producer",
        lambda file: file.update(filter={"include_ous": ["Berlin"]}),
        ("filter.include_ous", "'Berlin'", "DN"),
    ),
    (
        "producer",
        lambda file: file.update(filter={"include_groups": ["a"], "exclude_groups": ["A"]}),
        ("filter", "include_groups and in exclude_groups", "remove one"),
    ),
    (
        "producer",
        lambda file: file.update(
            source={"stdin": {}}, filter={"exclude_groups": ["a"]}, domain=[{"name": "hr.example", "order": "time"}]
        ),
        ("[filter]", "exclude_patterns only", "remove"),
    ),
    (
        "consumer",
        lambda file: file["idm"].update(protected_groups=["hr"]),
        ("idm.protected_groups", "admins", "must stay"),
    ),
    ("ops", lambda file: file["broker"].update(url="amqp://10.1.2.3/x"), ("broker", "10.1.2.3", "use amqps://")),
    ("ops", lambda file: file["broker"].pop("ca_file"), ("ca_file is needed",)),
    ("ops", lambda file: file["broker"].pop("key_file"), ("belong together",)),
    ("ops", lambda file: file["broker"].update(ca_file="/nowhere"), ("broker.ca_file", "/nowhere", "No such file")),
    ("ops", lambda file: file["keys"].update(directory="/nowhere"), ("keys.directory", "passrelay keys init")),
    ("consumer", lambda file: file["idm"].update(password_file="/nowhere"), ("idm.password_file", "/nowhere")),
    ("consumer", lambda file: file["idm"].update(servers=["http://x"]), ("idm.servers", "ldaps://")),
    ("consumer", lambda file: file["domain"][0].update(match="(uid=x)"), ("domain.0.match", "{sam}")),
    ("consumer", lambda file: file["domain"][0].pop("sid"), ("domain.0", "sid is needed")),
    ("consumer", lambda file: file["domain"][0].pop("producers"), ("producers is empty",)),
]


@pytest.mark.parametrize(("role", "change", "words"), FAULTS, ids=[fault[2][0] + fault[2][-1] for fault in FAULTS])
def test_a_fault_is_named_with_its_repair(
    role: str, change: Callable[[Document], object], words: tuple[str, ...], check: Callable[..., Result]
) -> None:
    result = check(role, change)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_every_fault_of_a_file_is_told_at_once(check: Callable[..., Result]) -> None:
    def change(file: Document) -> None:
        file["broker"]["ca_fil"] = "x"
        file["spool"]["max_bytes"] = 1

    document = json.loads(check("producer", change, "--json").stdout)
    assert (document["schema"], document["ok"], len(document["failures"])) == ("passrelay.config/1", False, 2)


def test_a_file_that_holds_no_certificate(check: Callable[..., Result], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    result = check("ops", lambda file: file["broker"].update(ca_file=wrong))
    assert result.exit_code == 2
    assert f"{wrong}: holds no PEM certificate" in result.stderr


def test_an_expired_certificate(check: Callable[..., Result], tmp_path: Path) -> None:
    expired = tmp_path / "expired.pem"
    leaf = trustme.CA().issue_cert("old.example", not_after=datetime.now(UTC) - timedelta(days=1))
    expired.write_bytes(leaf.cert_chain_pems[0].bytes())
    result = check("ops", lambda file: file["idm"].update(ca_file=expired))
    assert result.exit_code == 2
    assert "idm.ca_file" in result.stderr
    assert "expired on" in result.stderr


def test_a_key_of_another_certificate(check: Callable[..., Result], ca: CertificateAuthority) -> None:
    other = ca.issue("other")
    result = check("ops", lambda file: file["broker"].update(key_file=other.key))
    assert result.exit_code == 2
    assert "does not belong to" in result.stderr


@pytest.mark.parametrize(
    ("role", "file"),
    [("ops", "ca/host.key"), ("consumer", "idm.password"), ("producer", "gpg.key"), ("consumer", "keys/*.key")],
)
def test_a_secret_file_that_others_can_read(role: str, file: str, check: Callable[..., Result], tmp_path: Path) -> None:
    for path in tmp_path.glob(file):
        path.chmod(0o644)
    result = check(role)
    assert result.exit_code == 2
    assert "mode 0644" in result.stderr
    assert "chmod 600" in result.stderr
    assert CANARY not in result.output


def test_a_key_directory_where_others_may_write(check: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "keys").chmod(0o777)
    result = check("ops")
    assert result.exit_code == 2
    assert "enroll keys of their own" in result.stderr


def test_an_empty_password_file(check: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "idm.password").write_text("")
    assert check("consumer").exit_code == 2


@pytest.mark.parametrize(
    ("role", "use"), [("producer", "signing"), ("producer", "recipient"), ("consumer", "recipient")]
)
def test_a_key_that_the_service_cannot_do_without(
    role: str, use: str, check: Callable[..., Result], tmp_path: Path
) -> None:
    for path in (tmp_path / "keys").glob("*.json"):
        if json.loads(path.read_text())["use"] == use:
            path.unlink()
    result = check(role)
    assert result.exit_code == 2
    assert use in result.stderr


def test_a_producer_whose_key_is_not_enrolled_yet_is_only_a_hint(check: Callable[..., Result]) -> None:
    result = check("consumer", lambda file: file["domain"][0].update(producers=["dc1", "dc2"]), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert "dc2" in document["hints"][0]["detail"]


def test_a_producer_whose_key_is_enrolled_and_whom_no_domain_lists_is_a_hint(
    check: Callable[..., Result], tmp_path: Path
) -> None:
    document, _ = generate(KeyUse.SIGNING, producer="dc2")
    write_public(tmp_path / "keys", document)
    result = check("consumer", lambda _: None, "--json")
    assert result.exit_code == 0
    (hint,) = json.loads(result.stdout)["hints"]
    assert "no [[domain]] lists dc2" in hint["detail"]
    listed = check("consumer", lambda file: file["domain"][0].update(producers=["dc1", "dc2"]), "--json")
    assert json.loads(listed.stdout)["hints"] == []
    write_public(tmp_path / "keys", document.model_copy(update={"status": KeyStatus.REVOKED}))
    gone = check("consumer", lambda file: file["domain"][0].update(producers=["dc1"]), "--json")
    assert json.loads(gone.stdout)["hints"] == []


def test_a_hook_key_without_its_private_file_is_a_hint_on_a_consumer(
    check: Callable[..., Result], tmp_path: Path
) -> None:
    document, private = generate(KeyUse.HOOK)
    write_public(tmp_path / "keys", document)
    result = check("consumer", lambda _: None, "--json")
    assert result.exit_code == 0
    (hint,) = json.loads(result.stdout)["hints"]
    assert f"hook key {document.key_id} is enrolled without its private file" in hint["detail"]
    write_private(tmp_path / "keys", document, private)
    assert json.loads(check("consumer", lambda _: None, "--json").stdout)["hints"] == []


def test_an_epoch_without_its_beginning_is_a_hint(check: Callable[..., Result]) -> None:
    raised: Document = {"epoch": 1}
    result = check("consumer", lambda file: file["domain"][0].update(raised), "--json")
    assert result.exit_code == 0
    assert "epoch_began_at" in json.loads(result.stdout)["hints"][0]["detail"]
    raised["epoch_began_at"] = datetime(2026, 11, 24, 22, tzinfo=UTC)
    result = check("consumer", lambda file: file["domain"][0].update(raised), "--json")
    assert json.loads(result.stdout)["hints"] == []


def test_a_url_with_a_password_wants_a_private_file(check: Callable[..., Result], tmp_path: Path) -> None:
    def change(file: Document) -> None:
        file["broker"]["url"] = f"amqps://user:{CANARY}@broker.example/x"
        (tmp_path / "ops.toml").touch(mode=0o644)

    result = check("ops", change)
    assert result.exit_code == 2
    assert "chmod 600" in result.stderr
    assert CANARY not in result.output


def test_the_environment_wins(check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRELAY_BROKER__URL", "amqp://10.9.8.7/x")
    result = check("ops")
    assert result.exit_code == 2
    assert "10.9.8.7" in result.stderr


def test_an_unknown_section_in_the_environment(check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRELAY_BROKR__URL", "amqp://localhost/")
    result = check("ops")
    assert result.exit_code == 2
    assert "PASSRELAY_BROKR__URL" in result.stderr


def test_an_unknown_key_in_the_environment(check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRELAY_BROKER__ULR", "amqp://localhost/")
    result = check("ops")
    assert result.exit_code == 2
    assert "did you mean url?" in result.stderr


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "ops.toml"
    path.write_text("[broker\n")
    result = CliRunner().invoke(app, ["config", "check", "--config", str(path)])
    assert result.exit_code == 2
    assert "not TOML" in result.stderr


def test_the_role_is_told_by_the_name_or_by_an_option(check: Callable[..., Result], tmp_path: Path) -> None:
    check("ops")
    other = (tmp_path / "ops.toml").rename(tmp_path / "mine.toml")
    arguments = ["config", "check", "--config", str(other)]
    unknown = CliRunner().invoke(app, arguments)
    assert unknown.exit_code == 2
    assert "--role" in unknown.stderr
    assert CliRunner().invoke(app, [*arguments, "--role", "ops"]).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--role", "admiral"]).exit_code == 2


def test_every_file_of_the_host_is_checked(
    check: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_command, "DEFAULT_DIRECTORY", tmp_path)
    nothing = CliRunner().invoke(app, ["config", "check"])
    assert nothing.exit_code == 2
    assert "no *.toml there" in nothing.stderr
    check("ops")
    check("consumer")
    result = CliRunner().invoke(app, ["config", "check", "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["files"] == [str(tmp_path / "consumer.toml"), str(tmp_path / "ops.toml")]
    (tmp_path / "costumer.toml").write_text("")
    assert CliRunner().invoke(app, ["config", "check"]).exit_code == 2


def test_check_is_a_function_of_the_file(tmp_path: Path) -> None:
    assert config_check.check(tmp_path / "ops.toml") == [
        Fault(str(tmp_path / "ops.toml"), "missing: write it, or name another with --config")
    ]


def test_the_hooks_folder_and_the_account_that_looks_up_are_checked(
    check: Callable[..., Result], ca: CertificateAuthority, tmp_path: Path
) -> None:
    folder, password = tmp_path / "records", tmp_path / "lookup-password"
    table = {
        "folder": folder,
        "controller": "ldaps://dc1.lab.example",
        "ca_file": ca.ca_file,
        "bind_user": "lookup@lab.example",
        "password_file": password,
    }
    wrong = check("producer", lambda file: file.update(source={"hook": table}))
    assert wrong.exit_code == 2
    for word in ("source.hook.folder", "source.hook.password_file"):
        assert word in wrong.output
    folder.mkdir()
    password.touch(mode=0o600)
    password.write_text(canary_password())
    good = check("producer", lambda file: file.update(source={"hook": table}))
    assert good.exit_code == 0, good.output
    ordered = [{"name": "lab.example", "order": "time"}]
    assert "[source.hook] has versions" in check("producer", lambda file: file.update(domain=ordered)).output
