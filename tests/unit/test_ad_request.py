"""`passrelay ad csr`: what stands in a request, which names are refused, and that no file is ever overwritten."""

from __future__ import annotations

import configparser
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from typer.testing import CliRunner

from passrelay_ops.ad import request
from passrelay_ops.cli import app
from passrelay_schemas.errors import ConfigurationError

NAMES = ["--controller", "DC1.ad.example.", "--name", "ldap.ad.example", "--name", "dc1.ad.example"]


def run(directory: Path, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["ad", "csr", *arguments, "--directory", str(directory), "--json"])
    assert result.exit_code == exit_code, result.output
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


def inf(text: str) -> configparser.ConfigParser:
    """The INF as Windows reads it: sections of settings; `_continue_` may stand several times, so the last is kept."""
    parser = configparser.ConfigParser(strict=False, comment_prefixes=(";",), interpolation=None)
    parser.read_string(text)
    return parser


def test_the_request_inf_asks_for_what_ldaps_on_windows_needs(tmp_path: Path) -> None:
    document = run(tmp_path, *NAMES, "--yes")
    [file] = map(Path, document["files"])
    assert (file, document["written"], document["schema"]) == (tmp_path / "request.inf", True, "passrelay.ad/1")
    raw = file.read_bytes().decode("ascii")
    assert raw.count("\n") == raw.count("\r\n")
    parsed = inf(raw)
    assert parsed["Version"]["Signature"] == '"$Windows NT$"'
    wanted = {
        "Subject": '"CN=dc1.ad.example"',
        "KeySpec": "1",
        "MachineKeySet": "TRUE",
        "Exportable": "FALSE",
        "RequestType": "PKCS10",
        "KeyUsage": "0xa0",
        "ProviderName": '"Microsoft RSA SChannel Cryptographic Provider"',
        "ProviderType": "12",
    }
    assert {name: parsed["NewRequest"][name] for name in wanted} == wanted
    assert int(parsed["NewRequest"]["KeyLength"]) >= 2048
    assert parsed["EnhancedKeyUsageExtension"]["OID"] == "1.3.6.1.5.5.7.3.1"
    assert parsed["Extensions"]["2.5.29.17"] == '"{text}"'
    continued = [line for line in raw.splitlines() if line.startswith("_continue_")]
    assert continued == ['_continue_ = "dns=dc1.ad.example&"', '_continue_ = "dns=ldap.ad.example&"']
    assert any("certreq -new request.inf request.csr" in step for step in document["next"])


def test_a_pkcs10_has_names_and_use_and_its_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    document = run(tmp_path, *NAMES, "--pkcs10", "--yes")
    key_file, csr_file = map(Path, document["files"])
    csr = x509.load_pem_x509_csr(csr_file.read_bytes())
    assert csr.is_signature_valid
    [common] = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == "dc1.ad.example"
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["dc1.ad.example", "ldap.ad.example"]
    use = csr.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(use) == [ExtendedKeyUsageOID.SERVER_AUTH]
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.public_key() == csr.public_key()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert any(key_file.name in step and "tls keyfile" in step for step in document["next"])


@pytest.mark.parametrize("more", [[], ["--pkcs10"]])
def test_without_yes_nothing_is_written(tmp_path: Path, more: list[str]) -> None:
    assert run(tmp_path, *NAMES, *more)["written"] is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["dc1.ad.example.key", "dc1.ad.example.csr"])
def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("in use")
    failures = run(tmp_path, *NAMES, "--pkcs10", "--yes", exit_code=4)["failures"]
    assert there in failures[0]["detail"]
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "in use"


def test_a_key_without_its_request_is_not_left_behind(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ConfigurationError, match="missing"):
        request.write({tmp_path / "a.key": b"key", missing / "a.csr": b"csr"}, private=tmp_path / "a.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "repair"),
    [
        ("dc1", "full DNS name"),
        ("", "full DNS name"),
        ("*.ad.example", "no wildcard"),
        ("dc1_a.ad.example", "letters, digits and hyphens"),
        ("-dc1.ad.example", "letters, digits and hyphens"),
        ('dc1.ad.example"', "letters, digits and hyphens"),
        ("dc1.ad.example\n[Version]", "letters, digits and hyphens"),
        ("dc1.ad.ex\u00e4mple", "xn--"),
        (f"{'a' * 64}.example", "full DNS name"),
        (".".join(["a" * 60] * 5), "full DNS name"),
        ("10.1.2.3", "DNS name"),
        ("fd00::1", "DNS name"),
    ],
)
def test_wrong_names_are_named_with_the_option(tmp_path: Path, name: str, repair: str) -> None:
    [failure] = run(tmp_path, "--controller", name, "--yes", exit_code=2)["failures"]
    assert "--controller" in failure["detail"]
    assert repair in failure["detail"]
    [failure] = run(tmp_path, "--controller", "dc1.ad.example", "--name", name, "--yes", exit_code=2)["failures"]
    assert "--name" in failure["detail"]
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_for_a_subject_stands_in_the_alternative_names(tmp_path: Path) -> None:
    name = f"dc1.{'a' * 30}.{'b' * 30}.example"
    _, csr_file = map(Path, run(tmp_path, "--controller", name, "--pkcs10", "--yes")["files"])
    csr = x509.load_pem_x509_csr(csr_file.read_bytes())
    assert csr.subject.rfc4514_string() == "CN=dc1"
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
