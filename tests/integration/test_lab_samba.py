"""The lab's domain controller is a real one: four ways to change, a kill, a replicating second one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.certificates import CertificateAuthority
from tests.lab.changes import ChangeRefusedError
from tests.lab.folder import LabFolder, canary_password, find_canary
from tests.lab.network import Reservations
from tests.lab.process import LabError
from tests.lab.samba import DomainController

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    lab = LabFolder()
    yield lab.path
    lab.remove()


@pytest.fixture(scope="module")
def reservations() -> Iterator[Reservations]:
    held = Reservations()
    yield held
    held.release()


@pytest.fixture(scope="module")
def ca(folder: Path) -> CertificateAuthority:
    return CertificateAuthority(folder / "ca")


@pytest.fixture(scope="module")
def controller(folder: Path, reservations: Reservations, ca: CertificateAuthority) -> Iterator[DomainController]:
    dc = DomainController(folder, reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()
    assert dc.processes() == []


def test_kvno_rises_by_one_whichever_way_the_password_is_changed(controller: DomainController) -> None:
    first, second, third, fourth, fifth = (canary_password(ending) for ending in ("", "é", "\u5bc6", "\U0001f511", ""))
    created = controller.add_user("anna", first)
    assert created["kvno"] == 1
    assert created["sid"].startswith(f"{controller.sid}-")

    controller.samba_tool_set("anna", second)
    assert controller.account("anna")["kvno"] == 2
    controller.ldaps_reset("anna", third)
    assert controller.account("anna")["kvno"] == 3
    controller.ldaps_change("anna", third, fourth)
    assert controller.account("anna")["kvno"] == 4
    controller.kpasswd("anna", fourth, fifth)
    last = controller.account("anna")
    assert last["kvno"] == 5
    assert last["guid"] == created["guid"]
    assert last["pwdLastSet"] > created["pwdLastSet"]
    assert controller.binds("anna", fifth)
    assert not controller.binds("anna", fourth)


def test_must_change_sets_pwd_last_set_to_zero(controller: DomainController) -> None:
    controller.add_user("bert", canary_password())
    controller.ldaps_reset("bert", canary_password(), must_change=True)
    state = controller.account("bert")
    assert (state["kvno"], state["pwdLastSet"]) == (2, 0)
    controller.samba_tool_set("bert", canary_password(), must_change=True)
    state = controller.account("bert")
    assert (state["kvno"], state["pwdLastSet"]) == (3, 0)


def test_a_refused_change_is_an_error_without_the_password(controller: DomainController) -> None:
    current = canary_password()
    controller.add_user("carl", current)
    with pytest.raises(ChangeRefusedError) as refused:
        controller.ldaps_reset("carl", "short")
    assert refused.value.result == 19
    with pytest.raises(LabError) as wrong:
        controller.kpasswd("carl", canary_password(), canary_password())
    assert current not in str(wrong.value)
    assert controller.account("carl")["kvno"] == 1
    controller.delete_user("carl")
    with pytest.raises(LabError, match="0 accounts"):
        controller.account("carl")


def test_secret_key_file_is_private_and_nothing_on_disk_is_readable(controller: DomainController) -> None:
    assert controller.gpg_key_file.stat().st_mode & 0o777 == 0o600
    files, _size, hits = find_canary(controller.data_paths)
    assert files > 50
    assert hits == []


def test_data_survive_a_kill(controller: DomainController) -> None:
    password = canary_password()
    controller.add_user("dora", password)
    controller.kill()
    assert controller.processes() == []
    controller.start()
    assert controller.binds("dora", password)
    controller.ldaps_reset("dora", canary_password())
    assert controller.account("dora")["kvno"] == 2


def test_second_controller_joins_and_replicates(
    controller: DomainController, folder: Path, reservations: Reservations, ca: CertificateAuthority
) -> None:
    password = canary_password()
    controller.add_user("emil", canary_password())
    second = DomainController.join(controller, folder, reservations, ca)
    try:
        second.start()
        assert second.sid == controller.sid
        controller.ldaps_reset("emil", password)
        assert second.account("emil")["kvno"] == 1
        second.replicate()
        assert second.account("emil") == controller.account("emil")
        assert second.binds("emil", password)
        second.ldaps_change("emil", password, canary_password())
        controller.replicate(second)
        assert controller.account("emil")["kvno"] == 3
    finally:
        second.stop()
    assert second.processes() == []


def test_two_labs_run_side_by_side_and_stop_leaves_no_process(controller: DomainController) -> None:
    lab, held = LabFolder(), Reservations()
    other = DomainController(
        lab.path, held, CertificateAuthority(lab.path / "ca"), realm="OTHER.EXAMPLE", domain="OTHER"
    )
    try:
        other.start()
        assert len(other.processes()) > 5
        assert other.address != controller.address
        other.add_user("anna", canary_password())
        assert other.account("anna")["sid"].startswith(f"{other.sid}-")
        assert other.sid != controller.sid
    finally:
        other.stop()
        held.release()
        lab.remove()
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=60)
    assert str(lab.path) not in listing.stdout
