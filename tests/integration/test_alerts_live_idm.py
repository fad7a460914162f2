"""Alerts on IdM's servers, each really caused and repaired: replication that is cut, and a list without passrelay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_watch import NAME
from tests.integration.watched import Watched, prepared
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.prometheus import FACTOR
from tests.lab.replication import Suppliers
from tests.lab.tiers import short_tiers

pytestmark = pytest.mark.integration


@pytest.fixture
def suppliers(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Suppliers]:
    pair = Suppliers(lab_folder.path / "alerts", reservations, ca)
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


def test_a_write_that_another_server_does_not_show(
    tmp_path: Path, shared_broker: Broker, reservations: Reservations, suppliers: Suppliers
) -> None:
    with prepared(tmp_path / "site", shared_broker, suppliers.a, reservations) as site:
        watched = Watched(site, idm={"servers": [suppliers.urls[suppliers.a], suppliers.urls[suppliers.b]]})
        with short_tiers(site.broker, factor=FACTOR), watched.run(), watched.prometheus.quiet():
            suppliers.wait_in_sync()
            suppliers.cut()
            password = watched.change()
            watched.prometheus.wait_until_firing("PassrelaySettleWaits")
            assert not suppliers.b.binds(NAME, password)
            suppliers.heal()
            wait_for(lambda: suppliers.b.binds(NAME, password), what="replicated")


@pytest.mark.ipa
def test_a_server_that_would_expire_what_is_written(
    tmp_path: Path, shared_broker: Broker, reservations: Reservations, shared_ipa_directory: IpaDirectory
) -> None:
    with prepared(tmp_path / "site", shared_broker, shared_ipa_directory, reservations) as site:
        watched = Watched(site)
        with watched.run(), watched.prometheus.quiet():
            shared_ipa_directory.set_managers("uid=passsync,cn=sysaccounts,cn=etc,dc=idm,dc=test")
            watched.prometheus.wait_until_firing("PassrelayDirectoryExpiresPasswords")
            password = watched.change()
            watched.prometheus.wait_until_firing("PassrelayDirectoryExpiresPasswords", "PassrelayConsumerPaused")
            known = ("--bind-password-file", shared_ipa_directory.manager_file, "--config", site.ops_config())
            site.passrelay("idm", "managers", "add", "--yes", *known)
            watched.prometheus.wait_until_firing()
            wait_for(lambda: shared_ipa_directory.binds(NAME, password), what="it arrives")
