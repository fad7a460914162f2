"""Files with a secret: taken from their owner alone, named with the repair otherwise, never quoted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret_file import mode_fault, read_secret_file
from tests.lab.folder import CANARY, canary_password


def _file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_secret_is_the_text_without_the_final_newline(tmp_path: Path, ending: str) -> None:
    password = canary_password(" with blanks  ")
    assert read_secret_file(_file(tmp_path, (password + ending).encode()), what="x").reveal() == password


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660])
def test_one_that_others_can_read_is_refused_with_the_repair(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, canary_password().encode(), mode)
    with pytest.raises(ConfigurationError, match=r"chmod 600") as caught:
        read_secret_file(path, what="[idm] password_file")
    assert str(path) in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"Kanarie7-" + b"x" * 5000, b"Kanarie7-\xff\xfe"])
def test_what_is_no_secret_is_refused_without_being_quoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_secret_file(_file(tmp_path, content), what="x")
    assert CANARY not in str(caught.value)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_secret_file(tmp_path / "none", what="x")


@pytest.mark.parametrize(("mode", "taken"), [(0o400, True), (0o440, True), (0o460, False), (0o444, False)])
def test_a_credential_of_systemd_may_show_its_acl_as_the_groups_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: bool
) -> None:
    path = _file(tmp_path, canary_password().encode(), mode)
    link = tmp_path / "link"
    link.symlink_to(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert (mode_fault(path) is None) is taken
    assert (mode_fault(link) is None) is taken
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "other"))
    assert (mode_fault(path) is None) is (mode == 0o400)


@pytest.mark.parametrize(("mode", "taken"), [(0o400, True), (0o444, True), (0o644, True), (0o664, False)])
def test_a_containers_secret_may_be_readable_by_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: bool
) -> None:
    monkeypatch.setattr("passrelay_schemas.secret_file._CONTAINER_SECRETS", tmp_path)
    assert (mode_fault(_file(tmp_path, canary_password().encode(), mode)) is None) is taken


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_wide_credential_of_a_third_account_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path = _file(tmp_path, canary_password().encode(), 0o440)
    os.chown(path, 12345, 0)
    assert mode_fault(path) is not None
