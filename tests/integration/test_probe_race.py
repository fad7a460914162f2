"""Two consumers probe two IdM servers at the same time, of which one expires passwords: it must not pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from passrelay_consumer.directory import Directory as ConsumerDirectory
from passrelay_consumer.directory import ProbeResult
from passrelay_consumer.ldap_messages import Changes
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret import Secret
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.ipa_plugin import Plugin
from tests.lab.ipa_suppliers import IpaSuppliers
from tests.lab.network import Reservations

pytestmark = [pytest.mark.integration, pytest.mark.ipa]


@pytest.fixture(scope="module")
def suppliers(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, ipa_plugin: Plugin
) -> Iterator[IpaSuppliers]:
    pair = IpaSuppliers(lab_folder.path / "probe-race", reservations, ca, ipa_plugin)
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


class Overtaken(ConsumerDirectory):
    """A probe's connection on which something happens between its write and its look."""

    def __init__(self, url: str, settings: IdmSettings, happens: Callable[[], object]) -> None:
        super().__init__(url, settings)
        self._happens = happens

    def modify(self, dn: str, changes: Changes) -> None:
        super().modify(dn, changes)
        self._happens()


def _probe(directory: ConsumerDirectory) -> ProbeResult:
    try:
        return directory.probe(Secret(canary_password()))
    finally:
        directory.close()


@pytest.mark.parametrize(("each_its_own", "found"), [(True, "expiry"), (False, None)])
def test_a_good_servers_probe_arrives_before_the_bad_ones_is_read(
    suppliers: IpaSuppliers, each_its_own: bool, found: str | None
) -> None:
    """With one entry for both servers the bad one passes: that is why each has its own."""
    good, bad = suppliers.a, suppliers.b
    bad.set_managers()

    def settings(server: IpaDirectory) -> IdmSettings:
        return IdmSettings.model_validate(
            {
                "servers": [good.ldaps_url, bad.ldaps_url] if each_its_own else [server.ldaps_url],
                "ca_file": server.ca_file,
                "bind_dn": server.service_dn,
                "password_file": good.password_file,
            }
        )

    def the_other_consumer() -> None:
        suppliers.overtake(good)
        assert _probe(ConsumerDirectory(good.ldaps_url, settings(good))).ok
        suppliers.wait_in_sync()

    assert _probe(Overtaken(bad.ldaps_url, settings(bad), the_other_consumer)).check == found
