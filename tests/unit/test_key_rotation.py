"""`keys rotate`, `keys revoke`: a successor is used only when it is activated; a revoked key never comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from passrelay_ops.cli import app
from passrelay_ops.key_retirement import successor
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, public_path, read_public, write_public
from passrelay_schemas.suites import P256
from tests.lab.folder import CANARY, canary_password


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["keys", *(str(argument) for argument in arguments)])


def document_of(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_recipient_keys_successor_is_sealed_to_only_when_it_is_active(directory: Path) -> None:
    keys("init", "consumer", "--algorithm", P256, "--directory", directory)
    old = Keyring(directory).recipient()
    made = document_of(keys("rotate", "recipient", "--directory", directory, "--json"))["keys"][0]
    assert (made["status"], made["algorithm"], made["private_here"]) == ("next", P256, True)
    again = document_of(keys("rotate", "recipient", "--directory", directory, "--json"))["keys"][0]
    assert again["key_id"] == made["key_id"]  # the one that waits, not a third
    keyring = Keyring(directory)
    assert keyring.recipient() == old
    assert keyring.opener(made["key_id"])  # a consumer that has it can open already
    plan = keys("rotate", "recipient", "--activate", "--directory", directory)
    assert plan.exit_code == 0
    assert "--yes" in plan.stdout
    assert Keyring(directory).recipient() == old
    result = keys("rotate", "recipient", "--activate", "--yes", "--directory", directory)
    assert f"passrelay keys retire {old.key_id}" in result.stdout
    keyring = Keyring(directory)
    assert keyring.recipient().key_id == made["key_id"]
    assert {key.key_id: key.status for key in keyring.documents(KeyUse.RECIPIENT)}[old.key_id] is KeyStatus.ACTIVE


def test_the_next_document_of_a_recipient_changes_nothing_at_a_producer(directory: Path, tmp_path: Path) -> None:
    producer = tmp_path / "producer"
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    old = Keyring(directory).recipient()
    keys("enroll", public_path(directory, old.key_id), "--yes", "--directory", producer)
    made = document_of(keys("rotate", "recipient", "--directory", directory, "--json"))["keys"][0]
    document = public_path(directory, made["key_id"])
    keys("enroll", document, "--yes", "--directory", producer)
    assert Keyring(producer).recipient() == old
    keys("rotate", "recipient", "--activate", "--yes", "--directory", directory)
    plan = keys("enroll", document, "--yes", "--directory", producer)
    assert "status: next -> active" in plan.stdout
    assert Keyring(producer).recipient().key_id == made["key_id"]


def test_a_signing_keys_successor_is_believed_before_it_is_used(directory: Path, tmp_path: Path) -> None:
    consumer = tmp_path / "consumer"
    keys("init", "producer", "dc1", "--directory", directory)
    old = Keyring(directory).signer().document
    made = document_of(keys("rotate", "signing", "--directory", directory, "--json"))["keys"][0]
    assert Keyring(directory).signer().document == old
    keys("enroll", public_path(directory, made["key_id"]), "--yes", "--directory", consumer)
    assert Keyring(consumer).signing_key(made["key_id"]).status is KeyStatus.ACTIVE
    changed = document_of(keys("rotate", "signing", "--activate", "--yes", "--directory", directory, "--json"))["keys"]
    assert {key["key_id"]: key["status"] for key in changed} == {made["key_id"]: "active", old.key_id: "retired"}
    assert Keyring(directory).signer().document.key_id == made["key_id"]


def test_several_producers_in_one_directory_are_named(directory: Path) -> None:
    keys("init", "producer", "dc1", "--directory", directory)
    keys("init", "producer", "dc2", "--directory", directory)
    result = keys("rotate", "signing", "--directory", directory)
    assert (result.exit_code, "dc1, dc2" in result.stderr) == (2, True)
    made = document_of(keys("rotate", "signing", "dc2", "--directory", directory, "--json"))["keys"][0]
    assert made["producer"] == "dc2"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(("rotate", "ops"), "keys init"), (("rotate", "signing"), "keys init"), (("rotate", "tls"), "recipient"),
     (("rotate", "recipient", "--activate", "--yes"), "no recipient key waits"), (("revoke", "unknown"), "keys list")],
)  # fmt: skip
def test_what_cannot_be_done_says_what_can(directory: Path, arguments: tuple[str, ...], why: str) -> None:
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    before = sorted(directory.iterdir())
    result = keys(*arguments, "--directory", directory)
    assert result.exit_code == 2
    assert why in result.stderr
    assert sorted(directory.iterdir()) == before


def test_revoking_shows_what_it_means_first_and_has_no_way_back(directory: Path, tmp_path: Path) -> None:
    keys("init", "producer", "dc1", "--directory", directory)
    (key,) = Keyring(directory).documents()
    old = tmp_path / "old.pub.json"
    old.write_bytes(public_path(directory, key.key_id).read_bytes())
    plan = keys("revoke", key.key_id, "--directory", directory)
    assert (plan.exit_code, "dead letter" in plan.stdout) == (0, True)
    assert read_public(public_path(directory, key.key_id)).status is KeyStatus.ACTIVE
    assert keys("revoke", key.key_id, "--yes", "--directory", directory).exit_code == 0
    revoked = read_public(public_path(directory, key.key_id))
    assert revoked.status is KeyStatus.REVOKED
    assert revoked.status_since is not None
    assert keys("enroll", old, "--yes", "--directory", directory).exit_code == 4
    assert "already" in keys("revoke", key.key_id, "--yes", "--directory", directory).stdout
    assert read_public(public_path(directory, key.key_id)) == revoked


def test_keys_are_made_under_the_passphrase_that_is_named(directory: Path, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(canary_password("-long-enough"))
    named = ("--passphrase-file", passphrase, "--directory", directory)
    assert keys("init", "consumer", "--recipient-only", *named).exit_code == 0
    assert keys("rotate", "recipient", *named).exit_code == 0
    private = [json.loads(path.read_text()) for path in directory.glob("*.key")]
    assert [set(document) & {"private", "encrypted"} for document in private] == [{"encrypted"}] * 2
    assert keys("list", *named).exit_code == 0
    result = keys("list", "--directory", directory)
    assert (result.exit_code, "passphrase_file" in result.stdout) == (0, True)
    assert CANARY not in result.output
    # Without the passphrase a waiting key is put to use, but none is made: it would lie in clear.
    assert keys("rotate", "recipient", "--activate", "--yes", "--directory", directory).exit_code == 0
    before = sorted(directory.iterdir())
    result = keys("rotate", "recipient", "--directory", directory)
    assert (result.exit_code, "passphrase_file" in result.stderr) == (2, True)
    assert sorted(directory.iterdir()) == before


def test_the_other_consumers_follow_a_rotation(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    old = Keyring(directory).recipient()
    new = document_of(keys("rotate", "recipient", "--directory", directory, "--json"))["keys"][0]["key_id"]
    shutil.copytree(directory, other)
    result = keys("rotate", "recipient", "--activate", "--yes", "--directory", directory)
    assert "other consumer" in result.stdout
    assert keys("enroll", public_path(directory, new), "--yes", "--directory", other).exit_code == 0
    assert Keyring(other).recipient().key_id == new

    # Whoever forgot that and brought only the old one's end can still go on, with the key that all have.
    write_public(other, read_public(public_path(other, new)).model_copy(update={"status": KeyStatus.NEXT}))
    write_public(other, old.with_status(KeyStatus.RETIRED))
    waits = document_of(keys("rotate", "recipient", "--directory", other, "--json"))["keys"][0]
    assert waits["key_id"] == new
    assert keys("rotate", "recipient", "--activate", "--yes", "--directory", other).exit_code == 0
    assert Keyring(other).recipient().key_id == new
    assert read_public(public_path(other, old.key_id)).status is KeyStatus.RETIRED


def test_a_host_without_a_key_in_use_is_not_told_to_make_a_second_one(directory: Path) -> None:
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    write_public(directory, Keyring(directory).recipient().with_status(KeyStatus.RETIRED))
    result = keys("rotate", "recipient", "--directory", directory)
    assert (result.exit_code, "in use now here, from a host that has it" in result.stderr) == (2, True)


def test_a_revoked_signing_key_has_a_successor_that_waits(directory: Path) -> None:
    keys("init", "producer", "dc1", "--directory", directory)
    keys("init", "producer", "dc2", "--directory", directory)
    old = Keyring(directory).signer("dc1").document
    keys("revoke", old.key_id, "--yes", "--directory", directory)
    made = document_of(keys("rotate", "signing", "dc1", "--directory", directory, "--json"))["keys"][0]
    assert (made["status"], made["producer"]) == ("next", "dc1")
    result = keys("rotate", "signing", "dc1", "--activate", "--yes", "--directory", directory)
    assert "republish --since 72h" in result.stdout
    keyring = Keyring(directory)
    assert keyring.signer("dc1").document.key_id == made["key_id"]
    assert keyring.signing_key(old.key_id).status is KeyStatus.REVOKED


def test_keys_made_within_one_second_keep_their_order(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = utc_now()
    monkeypatch.setattr("passrelay_schemas.keys.utc_now", lambda: now)
    keys("init", "consumer", "--recipient-only", "--directory", directory)
    for _ in range(6):  # by chance alone the order of their ids would be right once in 5,040 times
        made = document_of(keys("rotate", "recipient", "--directory", directory, "--json"))["keys"][0]
        keys("rotate", "recipient", "--activate", "--yes", "--directory", directory)
        assert Keyring(directory).recipient().key_id == made["key_id"]
    again = ("init", "consumer", "--recipient-only", "--yes")
    made = document_of(keys(*again, "--directory", directory, "--json"))["keys"][0]
    assert Keyring(directory).recipient().key_id == made["key_id"]


def test_a_hook_key_lives_beside_the_recipient_key_and_its_steps_name_the_registry(directory: Path) -> None:
    keys("init", "consumer", "--directory", directory)
    recipient = Keyring(directory).recipient()
    made = document_of(keys("init", "hook", "--directory", directory, "--json"))["keys"][0]
    assert (made["use"], made["algorithm"], made["private_here"]) == ("hook", P256, True)
    public = Keyring(directory).get(made["key_id"])
    assert public is not None
    assert f"RecipientKey to {public.public_bytes.hex()} and RecipientKeyId to {public.key_id}" in made["next"]
    assert keys("init", "hook", "--directory", directory).exit_code == 4
    following = document_of(keys("rotate", "hook", "--directory", directory, "--json"))["keys"][0]
    assert following["algorithm"] == P256
    done = document_of(keys("rotate", "hook", "--activate", "--yes", "--directory", directory, "--json"))["keys"][0]
    assert f"RecipientKeyId to {following['key_id']}" in done["next"]
    keyring = Keyring(directory)
    assert keyring.recipient() == recipient  # though the hook's keys are younger
    for key_id in (made["key_id"], following["key_id"]):
        assert keyring.opener(key_id, KeyUse.HOOK)


def test_an_operators_host_that_did_a_hook_keys_steps_can_retire_the_old_one(directory: Path, tmp_path: Path) -> None:
    operator = tmp_path / "operator"

    def told(*step: str) -> str:
        made = document_of(keys(*step, "--directory", directory, "--json"))["keys"][0]
        document = public_path(directory, made["key_id"])
        assert f"keys enroll {document.name}" in made["next"]
        assert keys("enroll", document, "--yes", "--directory", operator).exit_code == 0
        return str(made["key_id"])

    old = told("init", "hook")
    keys("rotate", "hook", "--directory", directory)
    new = told("rotate", "hook", "--activate", "--yes")
    keyring = Keyring(operator)
    assert [key.key_id for key in keyring.documents(KeyUse.HOOK)] == [old, new]
    assert list(successor(keyring.documents(KeyUse.HOOK)[0], keyring)) == []
