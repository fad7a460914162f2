"""Administrators by their groups, on a real domain controller that sets no adminCount: none of them is captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import ldap3
import pytest

from passrelay_ops.ad import view
from passrelay_ops.audit.controllers import Controllers
from passrelay_producer.filters import Rule
from passrelay_producer.sources import PendingReason, samba_account
from passrelay_producer.sources.hook_directory import HookDirectory
from passrelay_producer.sources.samba_account import GroupsError
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_schemas.deny import denied
from passrelay_schemas.domain_settings import AdSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.source_settings import HookSourceSettings
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.notebook import Capture, password_of
from tests.lab.organisation import Organisation
from tests.lab.samba import DomainController

pytestmark = pytest.mark.integration

LOOKUP = "lookup"
READERS = "Pre-Windows 2000 Compatible Access"


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "administrators", reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


@pytest.fixture(scope="module")
def organisation(controller: DomainController) -> Organisation:
    """Administrators > operators > night-operators."""
    made = Organisation(controller)
    made.group("night-operators")
    made.group("operators", "night-operators")
    made.join("Administrators", "operators")
    return made


@dataclass(frozen=True)
class Way:
    """A way to become an administrator, and the way back."""

    name: str
    join: Callable[[Organisation, str], None]
    leave: Callable[[Organisation, str], None]


def _make_primary(organisation: Organisation, sam: str) -> None:
    organisation.join("Domain Admins", sam)
    organisation.primary(sam, "Domain Admins")


def _undo_primary(organisation: Organisation, sam: str) -> None:
    organisation.primary(sam, "Domain Users")
    organisation.leave("Domain Admins", sam)


WAYS = [
    Way("member", lambda org, sam: org.join("Domain Admins", sam), lambda org, sam: org.leave("Domain Admins", sam)),
    Way("nested", lambda org, sam: org.join("night-operators", sam), lambda o, sam: o.leave("night-operators", sam)),
    Way("primary", _make_primary, _undo_primary),
]


def _change(controller: DomainController, sam: str) -> str:
    password = canary_password()
    controller.ldaps_reset(sam, password)
    return password


def _guid(controller: DomainController, sam: str) -> UUID:
    return UUID(controller.account(sam)["guid"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_an_administrator_is_left_out_and_is_captured_from_his_next_change_after_he_left(
    controller: DomainController, organisation: Organisation, way: Way
) -> None:
    admin, ordinary = f"admin-{way.name}", f"plain-{way.name}"
    for name in (admin, ordinary):
        controller.add_user(name, canary_password())
    guid = _guid(controller, admin)
    capture = Capture(controller).initialise().stay_connected()
    way.join(organisation, admin)
    with SambaDirectory(controller.ldapi_path) as directory:
        reading = directory.read(guid)
        assert reading is not None
        assert reading.admin_count == 0  # or nothing is tested here
    _change(controller, admin)
    password = _change(controller, ordinary)
    (event,) = capture.until(ordinary)
    assert password_of(event) == password
    assert capture.of(admin) == []
    assert capture.notebook.left_out[guid] is Rule.DENIED
    with pytest.raises(
        ConfigurationError, match=r"denied: member of (Domain Admins|Administrators), itself or through"
    ):
        capture.recapture(admin)
    capture.restart()  # what was left out is looked at again at each start
    _change(controller, ordinary)
    capture.until(ordinary)
    assert capture.of(admin) == []
    way.leave(organisation, admin)
    password = _change(controller, admin)
    capture.drive(lambda: password in map(password_of, capture.of(admin)), what="captured after he left")
    assert guid not in capture.notebook.left_out
    capture.close()


def test_an_initial_load_has_no_administrator(controller: DomainController, organisation: Organisation) -> None:
    for name in ("load-admin", "load-plain"):
        controller.add_user(name, canary_password())
    organisation.join("night-operators", "load-admin")
    capture = Capture(controller).initialise(everything=True)
    capture.until("load-plain")
    assert capture.of("load-admin") == []


def test_while_the_controller_does_not_tell_the_groups_a_change_waits(
    controller: DomainController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_user("untold", canary_password())
    capture = Capture(controller).initialise()
    password = _change(controller, "untold")

    def hidden(_: SambaDirectory, __: UUID) -> frozenset[str]:
        raise GroupsError("it shows none")

    with monkeypatch.context() as patch:
        patch.setattr(SambaDirectory, "token_groups", hidden)
        patch.setattr(samba_account, "_groups_or_none", lambda _: frozenset())  # of the account's own search
        capture.drive(lambda: bool(capture.notebook.waiting), what="it waits")
    assert [item.reason for item in capture.notebook.pending()] == [PendingReason.NO_GROUPS]
    assert capture.of("untold") == []
    (event,) = capture.until("untold")
    assert password_of(event) == password
    assert capture.notebook.pending() == []


class Reader:
    """An ordinary account that reads over LDAPS, as the hook source and the operator's tools do."""

    def __init__(self, controller: DomainController, folder: Path) -> None:
        password = canary_password()
        controller.add_user(LOOKUP, password)
        file = folder / "password"
        file.touch(mode=0o600)
        file.write_text(password)
        self._common = {
            "ca_file": controller.ca_file,
            "bind_user": f"{LOOKUP}@{controller.dns_domain}",
            "password_file": file,
        }
        self._url = f"ldaps://{controller.address}"
        self._folder = folder

    def groups(self, guid: UUID) -> frozenset[str] | None:
        """As the hook source sees them; None where it must wait."""
        settings = HookSourceSettings.model_validate({**self._common, "controller": self._url, "folder": self._folder})
        with HookDirectory(settings) as directory:
            try:
                return directory.token_groups(guid)
            except GroupsError:
                return None

    def audited(self, guid: UUID) -> frozenset[str] | None:
        """As `audit` sees them."""
        with Controllers(self._ad) as controllers:
            return controllers.groups(guid)

    def checked(self) -> bool | None:
        """As `ad check` sees whether they are shown."""
        shown = view.look(self._url, self._ad).shown
        assert shown is not None
        return shown.groups

    @property
    def _ad(self) -> AdSettings:
        return AdSettings.model_validate({**self._common, "servers": [self._url]})


def test_an_ordinary_account_sees_the_groups_as_long_as_it_may_read_them(
    controller: DomainController, organisation: Organisation, tmp_path: Path
) -> None:
    reader = Reader(controller, tmp_path)
    for name in ("seen-admin", "seen-plain"):
        controller.add_user(name, canary_password())
    organisation.join("night-operators", "seen-admin")
    admin, plain = (_guid(controller, name) for name in ("seen-admin", "seen-plain"))

    def why(groups: frozenset[str] | None) -> str | None:
        assert groups is not None
        return denied(sam_account_name="x", sid=None, groups=groups)

    for look in (reader.groups, reader.audited):
        assert why(look(admin)) == "member of Administrators, itself or through another group"
        assert why(look(plain)) is None
    assert reader.checked() is True

    group = organisation.dn(READERS)
    with controller.local_connection() as connection:  # a hardened domain: this group has nobody in it
        connection.search(group, "(objectClass=*)", ldap3.BASE, attributes=["member"])
        members = [value.decode() for value in (connection.response or [])[0]["raw_attributes"]["member"]]
        connection.modify(group, {"member": [(ldap3.MODIFY_REPLACE, [])]})
    try:
        assert (reader.groups(plain), reader.audited(plain), reader.checked()) == (None, None, False)
        organisation.join("Windows Authorization Access Group", LOOKUP)
        assert reader.groups(plain) is None  # the group that is often named for it is not enough
        organisation.join(READERS, LOOKUP)
        assert why(reader.groups(plain)) is None
        assert why(reader.audited(admin)) is not None
        assert reader.checked() is True
    finally:
        with controller.local_connection() as connection:
            connection.modify(group, {"member": [(ldap3.MODIFY_REPLACE, members)]})
