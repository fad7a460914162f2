"""The look-ups of the Windows hook go to the machine that the hook runs on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ldap3
import pytest
import trustme
from ldap3.core.exceptions import LDAPInvalidCredentialsResult
from ldap3.strategy.sync import SyncStrategy

from passrelay_ops.check import Result, Row
from passrelay_ops.doctor import windows
from passrelay_ops.doctor.catalogue import CHECKS
from passrelay_producer.sources import hook_directory
from passrelay_producer.sources.hook_directory import HookDirectory
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_producer.windows import registry
from passrelay_producer.windows.facts import Facts, Role
from passrelay_producer.windows.registry import Values
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.source_settings import HookSourceSettings

_SID = bytes.fromhex("010400000000000515000000010000000200000003000000")
_THIS, _OTHER = "DC1.lab.example", "dc2"
# Windows' NetBIOS names, which end after 15 characters, are the same for these two.
_LONG, _LONGER = "controller-of-berlin", "controller-of-bern"


@pytest.fixture
def settings(tmp_path: Path) -> HookSourceSettings:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("lookup")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca"))
    return HookSourceSettings(
        folder=tmp_path,
        controller="ldaps://ad.lab.example",
        ca_file=tmp_path / "ca",
        bind_user="lookup",
        password_file=password,
    )


class Site:
    """Which controller answers, and which machine this is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: str | None = _THIS
        self.own: str | None = "dc1"

        def enter(directory: Any) -> Any:
            directory.base_dn, directory.controller = "DC=lab,DC=example", self.answers
            return directory

        monkeypatch.setattr(SambaDirectory, "__enter__", enter)
        monkeypatch.setattr(HookDirectory, "_base", lambda *_: {"objectSid": [_SID]})
        monkeypatch.setattr(hook_directory, "own_host", lambda: self.own)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


@pytest.fixture
def closed(settings: HookSourceSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[HookSourceSettings]:
    """Nobody listens at the port, and nobody else gets it."""
    monkeypatch.setattr(hook_directory, "own_host", lambda: "dc1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield settings.model_copy(update={"controller": f"ldaps://127.0.0.1:{taken.getsockname()[1]}"})


def _row(settings: HookSourceSettings, role: Role = Role.WRITABLE) -> Row:
    row = windows.controller("producer.toml", Facts(role), settings)
    assert row.id == "windows.controller"
    assert row.id in windows.ids()
    assert row.id in CHECKS
    return row


@pytest.mark.parametrize("named", ["ldaps://ad.lab.example", "ldaps://127.0.0.10:1636", "ldap://DC1"])
@pytest.mark.parametrize(
    ("answers", "own"),
    [(_THIS, "dc1"), (_THIS, "DC1"), (_THIS, "dc1.other.example"), (f"{_LONG}.lab.example", _LONG), (_THIS, None)],
)
def test_this_controller_is_taken_by_whatever_name(
    settings: HookSourceSettings, site: Site, named: str, answers: str, own: str | None
) -> None:
    settings = settings.model_copy(update={"controller": named})
    site.answers, site.own = answers, own
    with HookDirectory(settings) as directory:
        assert directory.domain_sid == "S-1-5-21-1-2-3"
    assert _row(settings).result is Result.OK


@pytest.mark.parametrize(("answers", "own"), [(_THIS, _OTHER), (f"{_LONG}.lab.example", _LONGER)])
def test_another_controller_is_refused_and_doctor_says_so(
    settings: HookSourceSettings, site: Site, answers: str, own: str
) -> None:
    site.answers, site.own = answers, own
    with pytest.raises(ConfigurationError, match=f"is {answers}, this machine is {own}"), HookDirectory(settings):
        pass
    row = _row(settings)
    assert row.result is Result.FAIL
    assert row.repair == "name this domain controller itself"


def test_a_controller_of_that_name_in_another_domain_is_refused_before_any_record_is_foreign(
    settings: HookSourceSettings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | Exception] = ["S-1-5-21-1-2-3"]

    def values(_path: str) -> Values:
        if isinstance(told[-1], Exception):
            raise told[-1]
        return {"DomainSid": (told[-1], 1)}

    monkeypatch.setattr(registry, "values", values)
    for good in ("S-1-5-21-1-2-3", "", UnavailableError("denied")):
        told.append(good)
        with HookDirectory(settings) as directory:
            assert directory.domain_sid == "S-1-5-21-1-2-3"
    # Damaged ones too: the service waits, and goes on by itself when it is repaired.
    for bad in ("S-1-5-21-7-7-7", "S-1-5-21-1-2-3 ", "s-1-5-21-1-2-3", "S-1-5-21-1"):
        told.append(bad)
        refused = f"is of the domain S-1-5-21-1-2-3, the hook here of {bad} "
        with pytest.raises(UnavailableError, match=refused), HookDirectory(settings):
            pass
        row = _row(settings)
        assert row.result is Result.FAIL
        assert row.repair.startswith("name this domain controller itself")
    told.append("S-1-5-21-1-2-3")
    with HookDirectory(settings) as directory:
        assert directory.domain_sid == "S-1-5-21-1-2-3"


def test_one_that_does_not_say_its_name_is_waited_for(settings: HookSourceSettings, site: Site) -> None:
    site.answers = None
    with pytest.raises(UnavailableError), HookDirectory(settings):
        pass


def test_one_that_does_not_answer_is_waited_for_and_unknown_to_doctor(closed: HookSourceSettings) -> None:
    with pytest.raises(UnavailableError), HookDirectory(closed):
        pass
    row = _row(closed)
    assert row.result is Result.UNKNOWN
    assert closed.controller in row.detail


def test_one_that_refuses_the_account_is_waited_for_and_a_fault_to_doctor(
    settings: HookSourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise LDAPInvalidCredentialsResult

    monkeypatch.setattr(SyncStrategy, "open", lambda *_, **__: None)
    monkeypatch.setattr(ldap3.Connection, "bind", refuse)
    with pytest.raises(UnavailableError), HookDirectory(settings):
        pass
    row = _row(settings)
    assert (row.result, row.repair) == (Result.FAIL, "correct bind_user or its password")


@pytest.mark.parametrize("missing", ["ca", "password"])
def test_a_file_that_is_missing_is_named(settings: HookSourceSettings, tmp_path: Path, missing: str) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing), HookDirectory(settings):
        pass
    assert _row(settings).result is Result.FAIL


def test_where_no_password_is_changed_nobody_asks(settings: HookSourceSettings) -> None:
    row = _row(settings, Role.READ_ONLY)
    assert (row.result, row.detail) == (Result.UNKNOWN, "windows.role failed")
