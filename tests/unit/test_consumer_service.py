"""What a consumer refuses to start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from passrelay_consumer.service import _check_private
from passrelay_schemas.errors import ConfigurationError
from tests.lab.folder import CANARY, canary_password


def test_a_password_file_for_its_owner_alone_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(canary_password())
    path.chmod(0o600)
    _check_private(path)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660])
def test_one_that_others_can_read_is_refused_with_the_repair(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "password"
    path.write_text(canary_password())
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"chmod 600") as caught:
        _check_private(path)
    assert str(path) in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _check_private(tmp_path / "none")
