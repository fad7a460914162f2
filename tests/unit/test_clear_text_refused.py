"""By the command: nothing secret goes in clear text to another host, neither to the broker nor to a directory."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from passrelay_ops.cli import app
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import toml
from tests.lab.folder import canary_password

START_TLS = b"1.3.6.1.4.1.1466.20037"
REFUSAL = bytes.fromhex("300c02010178070a010204000400")
"""LDAPMessage 1, extendedResp (RFC 4511, 4.14): protocolError, as a server without StartTLS answers."""


@pytest.mark.parametrize("command", [("config", "check"), ("topology", "apply"), ("dead", "list")])
def test_amqp_in_clear_text_to_another_host_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    config = tmp_path / "ops.toml"
    config.write_text('[broker]\nurl = "amqp://broker.example/passrelay"\n')
    done = CliRunner().invoke(app, [*command, "--config", str(config)])
    text = done.output + str(done.exception)
    assert done.exit_code != 0
    assert "clear-text amqp:// to broker.example is refused" in text


def test_a_directory_without_starttls_hears_no_password(tmp_path: Path) -> None:
    heard = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            nonlocal heard
            accepted, _ = listener.accept()
            with accepted:
                heard += accepted.recv(4096)
                accepted.sendall(REFUSAL)
                while more := accepted.recv(4096):
                    heard += more

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        password = canary_password()
        (tmp_path / "password").touch(mode=0o600)
        (tmp_path / "password").write_text(password)
        config = tmp_path / "ops.toml"
        idm = {
            "servers": [f"ldap://127.0.0.1:{listener.getsockname()[1]}"],
            "ca_file": CertificateAuthority(tmp_path / "ca").ca_file,
            "bind_dn": "uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
            "password_file": tmp_path / "password",
        }
        domain = {"name": "ad.example", "sid": "S-1-5-21-1-2-3", "search_base": "cn=users,cn=accounts,dc=idm,dc=test"}
        config.write_text(toml({"broker": {"url": "amqp://127.0.0.1/x"}, "idm": idm, "domain": [domain]}))
        done = CliRunner().invoke(
            app, ["idm", "check", "--config", str(config), "--bind-password-file", str(tmp_path / "password")]
        )
        thread.join(30)
    assert done.exit_code != 0
    assert START_TLS in heard
    assert password.encode() not in heard
    assert b"cn=Directory Manager" not in heard
