"""Access lists and DPAPI: who else may, decided from a list; and the forms of a private key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from passrelay_producer import windows
from passrelay_schemas import dpapi, windows_acl
from passrelay_schemas.errors import KeyFileError
from passrelay_schemas.keys import KeyUse, generate, read_private, write_private
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import b64url, from_b64url
from passrelay_schemas.windows_acl import ADMINISTRATORS, CREATE, READ, SYSTEM, WRITE, AccessList, Grant, strangers

FULL, READ_EXECUTE, READ_DELETE = 0x1F01FF, 0x1200A9, 0x130089
USERS = Grant("S-1-5-32-545", "BUILTIN\\Users", READ_EXECUTE)
OWN = windows_acl.virtual_account_sid()
TRUSTED = {SYSTEM, ADMINISTRATORS, OWN}


def _list(*grants: Grant, owner: Grant | None = None) -> AccessList:
    system, admins = Grant(SYSTEM, "SYSTEM", FULL), Grant(ADMINISTRATORS, "Administrators", FULL)
    return AccessList(owner or admins, (system, admins, *grants))


def test_the_sid_of_a_virtual_account_is_windows_own() -> None:
    # Documented by Microsoft, and on every Windows.
    assert windows_acl.virtual_account_sid("TrustedInstaller") == windows_acl.TRUSTED_INSTALLER
    assert windows_acl.virtual_account_sid("trustedinstaller") == windows_acl.TRUSTED_INSTALLER


def test_the_service_is_trusted_and_users_are_strangers() -> None:
    assert strangers(_list(Grant(OWN, "service", READ_EXECUTE)), READ, TRUSTED) == []
    assert strangers(_list(USERS), READ, TRUSTED) == ["BUILTIN\\Users"]
    assert strangers(_list(USERS), WRITE, TRUSTED) == []


def test_a_right_that_leads_to_reading_counts_as_reading() -> None:
    take_over = Grant("S-1-5-21-1-2-3-1000", "anna", 0x80000)
    assert strangers(_list(take_over), READ, TRUSTED) == ["anna"]
    assert strangers(_list(Grant("S-1-1-0", "Everyone", 0x10000000)), CREATE, TRUSTED) == ["Everyone"]


def test_an_owner_may_always_give_himself_rights() -> None:
    assert strangers(_list(owner=Grant("S-1-5-21-1-2-3-1000", "anna", 0)), READ, TRUSTED) == ["anna"]


def test_no_list_at_all_is_everybody() -> None:
    assert strangers(AccessList(Grant(SYSTEM, "SYSTEM", 0), None), READ, TRUSTED)


def test_the_service_can_take_records_and_make_none() -> None:
    # The masks of the SDDL of the hook's folder.
    sddl = windows.only_taken_from(OWN)
    assert f"(A;;0x1200a9;;;{OWN})" in sddl
    assert f"(A;OICIIO;0x130089;;;{OWN})" in sddl
    for mask in (READ_EXECUTE, READ_DELETE):
        assert not mask & 0x2, "FILE_ADD_FILE"
    assert strangers(_list(Grant(OWN, "service", READ_EXECUTE)), CREATE, {SYSTEM, ADMINISTRATORS}) == []


@pytest.mark.parametrize("sddl", [windows.only_readable(OWN), windows.own(OWN), windows.only_taken_from(OWN)])
def test_every_folder_is_cut_off_from_what_it_would_inherit(sddl: str) -> None:
    assert sddl.startswith("O:BAD:P(")
    assert "WD" not in sddl, "Everyone"
    assert "BU" not in sddl, "Users"


def _as_dpapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """In DPAPI's place, something that is bound to the name as it is."""
    monkeypatch.setattr(dpapi, "available", lambda: True)

    def protect(private: bytes, *, bound_to: bytes) -> dpapi.ProtectedKey:
        return dpapi.ProtectedKey(sealed=b64url(bound_to + private[::-1]))

    def unprotect(protected: dpapi.ProtectedKey, *, bound_to: bytes) -> bytes | None:
        raw = from_b64url(protected.sealed, what="sealed")
        return raw.removeprefix(bound_to)[::-1] if raw.startswith(bound_to) else None

    monkeypatch.setattr(dpapi, "protect", protect)
    monkeypatch.setattr(dpapi, "unprotect", unprotect)


def test_on_windows_a_signing_key_is_protected_and_the_same_loader_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_dpapi(monkeypatch)
    document, private = generate(KeyUse.SIGNING, producer="dc1")
    path = write_private(tmp_path, document, private)
    content = json.loads(path.read_bytes())
    assert content["protected"]["cipher"] == "dpapi-machine"
    assert "private" not in content
    assert read_private(path, document) == private


def test_keys_that_have_copies_elsewhere_are_not_bound_to_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_dpapi(monkeypatch)
    for use in (KeyUse.RECIPIENT, KeyUse.HOOK, KeyUse.OPS):
        document, private = generate(use)
        assert "private" in json.loads(write_private(tmp_path, document, private).read_bytes())
    document, private = generate(KeyUse.SIGNING, producer="dc1")
    path = write_private(tmp_path, document, private, passphrase=Secret("correct horse battery"))
    assert "encrypted" in json.loads(path.read_bytes())


def test_a_protected_key_under_another_name_or_on_another_system_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_dpapi(monkeypatch)
    document, private = generate(KeyUse.SIGNING, producer="dc1")
    other, other_private = generate(KeyUse.SIGNING, producer="dc2")
    stolen = json.loads(write_private(tmp_path, other, other_private).read_bytes())["protected"]
    path = write_private(tmp_path, document, private)
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "protected": stolen}))
    with pytest.raises(KeyFileError, match="only the Windows machine where it was made"):
        read_private(path, document)
    path.write_text(json.dumps(content))
    monkeypatch.undo()
    with pytest.raises(KeyFileError, match="only the Windows machine where it was made"):
        read_private(path, document)


def test_two_forms_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_dpapi(monkeypatch)
    document, private = generate(KeyUse.SIGNING, producer="dc1")
    path = write_private(tmp_path, document, private)
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "private": b64url(private)}))
    with pytest.raises(KeyFileError, match="exactly one of private, encrypted and protected"):
        read_private(path, document)
