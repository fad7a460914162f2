"""`passrelay config check` also looks at the files of [domain.ad]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from passrelay_ops import config_check
from passrelay_schemas.keys import KeyUse, generate, write_private, write_public
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import toml
from tests.lab.folder import CANARY, canary_password


@pytest.fixture
def ops_file(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    document, private = generate(KeyUse.OPS)
    write_public(keys, document)
    write_private(keys, document, private)
    password = tmp_path / "ad.password"
    password.touch(mode=0o600)
    password.write_text(canary_password())
    ad = {
        "servers": ["ldaps://dc1.lab.example"],
        "ca_file": CertificateAuthority(tmp_path / "ca").ca_file,
        "bind_user": "reader@lab.example",
        "password_file": password,
    }
    path = tmp_path / "ops.toml"
    broker = {"url": "amqp://127.0.0.1/"}
    domain = {"name": "lab.example", "sid": "S-1-5-21-1-2-3", "ad": ad}
    path.write_text(toml({"broker": broker, "keys": {"directory": keys}, "domain": [domain]}))
    return path


def test_good_files_pass(ops_file: Path) -> None:
    assert config_check.check(ops_file) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "ad.password").unlink(), ("password_file", "ad.password", "cannot be read")),
        (lambda folder: (folder / "ad.password").chmod(0o644), ("password_file", "chmod 600")),
        (lambda folder: (folder / "ca" / "ca.pem").unlink(), ("ca_file", "ca.pem", "cannot be read")),
        (lambda folder: (folder / "ca" / "ca.pem").write_text("x"), ("ca_file", "no PEM certificate")),
    ],
)
def test_each_file_that_cannot_be_used_is_named_with_its_domain(
    ops_file: Path, spoil: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    spoil(ops_file.parent)
    [fault] = config_check.check(ops_file)
    text = f"{fault.subject}: {fault.detail}"
    assert fault.hint is False
    assert "lab.example" in fault.subject
    assert CANARY not in text
    for word in words:
        assert word in text
