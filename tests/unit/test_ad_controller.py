"""Reading AD page by page, on ldap3's own server in memory."""

from __future__ import annotations

import ldap3
import pytest

from passrelay_ops.ad.controller import PAGE, Controller
from passrelay_schemas.domain_settings import AdSettings


@pytest.fixture
def controller() -> Controller:
    connection = ldap3.Connection(
        ldap3.Server("mock", get_info=ldap3.NONE), "cn=reader", "p", client_strategy=ldap3.MOCK_SYNC, check_names=False
    )
    for number in range(2 * PAGE + 10):
        name = f"u{number:05}"
        connection.strategy.add_entry(f"cn={name},dc=x", {"objectClass": ["user"], "cn": name})
    connection.strategy.add_entry("cn=reader", {"objectClass": ["service"], "userPassword": "p"})
    connection.bind()
    made = Controller("ldaps://dc1.ad.example", AdSettings.model_construct())
    made._connection = connection
    return made


def test_whoever_asks_for_more_between_two_entries_loses_no_page(controller: Controller) -> None:
    # As the audit does for the groups of somebody who is behind.
    seen = []
    for dn, _ in controller.search("dc=x", "(objectClass=user)", ["cn"]):
        seen.append(dn)
        if len(seen) == 7:
            assert controller.entry("cn=u00003,dc=x", "cn") is not None
    assert len(seen) == len(set(seen)) == 2 * PAGE + 10
