"""`passrelay keys`: made where they are used, enrolled only after somebody looked."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from passrelay_ops.cli import app
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, generate, read_public, write_public
from passrelay_schemas.suites import P256


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["keys", *(str(argument) for argument in arguments)])


def document_of(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert document["ok"] is (result.exit_code == 0)
    return document


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def foreign(folder: Path, **changes: Any) -> tuple[Path, KeyDocument]:
    document, _ = generate(KeyUse.SIGNING, producer="dc1")
    document = document.model_copy(update=changes)
    folder.mkdir(exist_ok=True)
    return write_public(folder, document), document


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "keys"


def test_init_consumer_makes_a_recipient_and_an_ops_key_for_its_owner_alone(directory: Path) -> None:
    result = keys("init", "consumer", "--directory", directory)
    assert result.exit_code == 0, result.stderr
    assert mode(directory) == 0o700
    assert {mode(path) for path in directory.glob("*.key")} == {0o600}
    assert {document.use for document in Keyring(directory).documents()} == {KeyUse.RECIPIENT, KeyUse.OPS}


def test_init_says_what_to_carry_where_and_the_fingerprint(directory: Path) -> None:
    result = keys("init", "producer", "dc1", "--directory", directory)
    [document] = Keyring(directory).documents()
    assert document.producer == "dc1"
    for text in (document.key_id, document.fingerprint, f"{document.key_id}.pub.json", "passrelay keys enroll"):
        assert text in result.stdout
    private = json.loads((directory / f"{document.key_id}.key").read_text())["private"]
    assert private not in result.output


def test_recipient_only_and_algorithm(directory: Path) -> None:
    assert keys("init", "consumer", "--recipient-only", "--algorithm", P256, "--directory", directory).exit_code == 0
    assert [(key.use, key.algorithm) for key in Keyring(directory).documents()] == [(KeyUse.RECIPIENT, P256)]


def test_an_unknown_algorithm_names_the_known_ones(directory: Path) -> None:
    result = keys("init", "consumer", "--algorithm", "rot13", "--directory", directory)
    assert result.exit_code == 2
    assert P256 in result.stderr
    assert list(directory.glob("*.key")) == []


def test_a_second_active_key_is_refused_and_nothing_is_made(directory: Path) -> None:
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    result = keys("init", "consumer", "--directory", directory, "--json")
    assert result.exit_code == 4
    assert "--yes" in document_of(result)["failures"][0]["detail"]
    assert len(list(Keyring(directory).documents())) == 1


def test_a_second_active_key_is_made_with_yes_and_is_the_one_in_use(directory: Path) -> None:
    keys("init", "producer", "dc1", "--directory", directory)
    result = keys("init", "producer", "dc1", "--directory", directory, "--yes", "--json")
    [made] = document_of(result)["keys"]
    assert len(list(Keyring(directory).documents())) == 2
    assert made["private_here"] is True


def test_two_producers_may_share_a_directory(directory: Path) -> None:
    assert keys("init", "producer", "dc1", "--directory", directory).exit_code == 0
    assert keys("init", "producer", "dc2", "--directory", directory).exit_code == 0


@pytest.mark.parametrize("arguments", [("producer",), ("consumer", "dc1"), ("producer", "dc 1"), ("admiral",)])
def test_a_wrong_role_or_name_is_a_usage_error(arguments: tuple[str, ...], directory: Path) -> None:
    result = keys("init", *arguments, "--directory", directory)
    assert result.exit_code == 2
    assert not directory.exists()


def test_enroll_shows_the_plan_and_writes_nothing_without_yes(directory: Path, tmp_path: Path) -> None:
    path, document = foreign(tmp_path / "usb")
    result = keys("enroll", path, "--directory", directory)
    assert result.exit_code == 0
    for text in (document.fingerprint, "signing", "dc1", "new", "--yes"):
        assert text in result.stdout
    assert not directory.exists()


def test_enroll_with_yes_makes_the_key_known(directory: Path, tmp_path: Path) -> None:
    path, document = foreign(tmp_path / "usb")
    result = keys("enroll", path, "--directory", directory, "--yes", "--json")
    assert result.exit_code == 0
    assert document_of(result)["keys"][0]["change"] == "new"
    assert Keyring(directory).signing_key(document.key_id) == document


def test_enrolling_twice_changes_nothing(directory: Path, tmp_path: Path) -> None:
    path, _ = foreign(tmp_path / "usb")
    keys("enroll", path, "--directory", directory, "--yes")
    assert document_of(keys("enroll", path, "--directory", directory, "--json"))["keys"][0]["change"] == "unchanged"


def test_a_changed_status_is_shown_and_asked_for(directory: Path, tmp_path: Path) -> None:
    path, document = foreign(tmp_path / "usb")
    keys("enroll", path, "--directory", directory, "--yes")
    write_public(path.parent, document.model_copy(update={"status": KeyStatus.REVOKED}))
    plan = keys("enroll", path, "--directory", directory)
    assert "status: active -> revoked" in plan.stdout
    target = directory / path.name
    assert read_public(target).status is KeyStatus.ACTIVE
    assert keys("enroll", path, "--directory", directory, "--yes").exit_code == 0
    assert read_public(target).status is KeyStatus.REVOKED


def test_a_revoked_key_never_comes_back(directory: Path, tmp_path: Path) -> None:
    path, document = foreign(tmp_path / "usb")
    directory.mkdir(parents=True)
    write_public(directory, document.model_copy(update={"status": KeyStatus.REVOKED}))
    assert keys("enroll", path, "--directory", directory, "--yes").exit_code == 4
    assert read_public(directory / path.name).status is KeyStatus.REVOKED


def test_a_stale_document_puts_no_key_back(directory: Path, tmp_path: Path) -> None:
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    made = document_of(keys("rotate", "recipient", "--directory", directory, "--json"))["keys"][0]
    document = directory / f"{made['key_id']}.pub.json"
    stale = tmp_path / "stale.pub.json"
    stale.write_bytes(document.read_bytes())
    keys("rotate", "recipient", "--activate", "--yes", "--directory", directory)
    result = keys("enroll", stale, "--directory", directory, "--yes")
    assert result.exit_code == 4
    assert "it is active here" in result.stderr
    assert read_public(document).status is KeyStatus.ACTIVE


def test_a_key_that_two_people_revoked_is_no_quarrel(directory: Path, tmp_path: Path) -> None:
    path, document = foreign(tmp_path / "usb")
    directory.mkdir(parents=True)
    write_public(directory, document.with_status(KeyStatus.REVOKED))
    write_public(path.parent, document.model_copy(update={"status": KeyStatus.REVOKED}))
    assert document_of(keys("enroll", path, "--directory", directory, "--json"))["keys"][0]["change"] == "unchanged"


def test_enroll_says_when_no_key_in_use_is_left(directory: Path, tmp_path: Path) -> None:
    """The other consumers of a rotation: OLD's end is brought to them, but not that NEW is in use."""
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    (old,) = Keyring(directory).documents()
    keys("rotate", "recipient", "--directory", directory)
    usb = tmp_path / "usb"
    usb.mkdir()
    retired = write_public(usb, old.with_status(KeyStatus.RETIRED))
    plan = keys("enroll", retired, "--directory", directory)
    assert "no active recipient key is left" in " ".join(plan.stdout.split())
    result = document_of(keys("enroll", retired, "--directory", directory, "--yes", "--json"))
    assert len(result["warnings"]) == 1
    assert "enroll the one that is in use now" in result["warnings"][0]
    path, _ = foreign(tmp_path / "usb2")
    assert document_of(keys("enroll", path, "--directory", directory, "--json"))["warnings"] == []


def test_a_key_of_another_producer_under_a_known_id_is_refused(directory: Path, tmp_path: Path) -> None:
    path, document = foreign(tmp_path / "usb")
    directory.mkdir(parents=True)
    write_public(directory, document.model_copy(update={"producer": "dc9"}))
    result = keys("enroll", path, "--directory", directory, "--yes")
    assert result.exit_code == 4
    assert "dc9" in result.stderr


def test_one_bad_document_stops_all(directory: Path, tmp_path: Path) -> None:
    good, _ = foreign(tmp_path / "usb")
    bad = tmp_path / "bad.pub.json"
    bad.write_text(good.read_text().replace('"dc1"', '"dc1", "extra": 1'))
    result = keys("enroll", good, bad, "--directory", directory, "--yes")
    assert result.exit_code == 2
    assert "bad.pub.json" in result.stderr
    assert "Extra inputs" in result.stderr
    assert not directory.exists()


def test_a_private_key_file_is_not_enrolled(directory: Path, tmp_path: Path) -> None:
    keys("init", "producer", "dc1", "--directory", directory)
    [private] = directory.glob("*.key")
    result = keys("enroll", private, "--directory", tmp_path / "other", "--yes")
    assert result.exit_code == 2
    assert ".pub.json" in result.stderr


def test_a_missing_file_is_named(directory: Path, tmp_path: Path) -> None:
    result = keys("enroll", tmp_path / "nowhere.pub.json", "--directory", directory)
    assert result.exit_code == 2
    assert "nowhere.pub.json" in result.stderr


def test_list_says_which_private_files_are_here(directory: Path, tmp_path: Path) -> None:
    keys("init", "consumer", "--directory", directory)
    path, signing = foreign(tmp_path / "usb")
    keys("enroll", path, "--directory", directory, "--yes")
    listed = {key["key_id"]: key for key in document_of(keys("list", "--directory", directory, "--json"))["keys"]}
    assert len(listed) == 3
    assert listed[signing.key_id]["private_here"] is False
    assert sum(key["private_here"] for key in listed.values()) == 2
    assert signing.fingerprint in keys("list", "--directory", directory).stdout


def test_a_private_file_that_this_account_cannot_use_is_shown_and_stops_no_revocation(directory: Path) -> None:
    """As in root's shell, where private files are credentials of the service alone."""
    keys("init", "consumer", "--directory", directory)
    recipient, ops = (next(iter(Keyring(directory).documents(use))) for use in (KeyUse.RECIPIENT, KeyUse.OPS))
    (directory / f"{recipient.key_id}.key").chmod(0o440)
    result = document_of(keys("list", "--directory", directory, "--json"))
    faults = {key["key_id"]: key["private_fault"] for key in result["keys"]}
    assert "mode 0440" in faults[recipient.key_id]
    assert faults[ops.key_id] is None
    assert "mode 0440" in keys("list", "--directory", directory).stdout
    assert keys("rotate", "recipient", "--directory", directory).exit_code == 0
    assert keys("rotate", "recipient", "--activate", "--yes", "--directory", directory).exit_code == 0
    assert keys("revoke", recipient.key_id, "--yes", "--directory", directory).exit_code == 0
    assert read_public(directory / f"{recipient.key_id}.pub.json").status is KeyStatus.REVOKED


def test_the_directory_comes_from_a_configuration(directory: Path, tmp_path: Path) -> None:
    config = tmp_path / "ops.toml"
    config.write_text(f'[broker]\nurl = "amqp://localhost/"\n[keys]\ndirectory = "{directory}"\n')
    assert keys("init", "ops", "--config", config).exit_code == 0
    assert [key.use for key in Keyring(directory).documents()] == [KeyUse.OPS]


def test_a_missing_directory_is_explained(directory: Path) -> None:
    result = keys("list", "--directory", directory)
    assert result.exit_code == 2
    assert "passrelay keys init" in result.stderr
