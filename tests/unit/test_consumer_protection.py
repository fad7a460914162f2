"""Entries that are never written: members of protected groups, and what only looks like a user."""

from __future__ import annotations

import pytest

from passrelay_consumer.decide import Entry
from passrelay_consumer.protection import out_of_use, protection


def why(*groups: str, protected: tuple[str, ...] = ("admins", "Payroll Clerks")) -> str | None:
    return protection(Entry("uid=alice", groups=frozenset(groups)), protected)


@pytest.mark.parametrize("name", ["admins", "payroll clerks"])
def test_a_member_of_a_protected_group_is_refused_with_its_name(name: str) -> None:
    found = why("cn=ipausers,cn=groups,cn=accounts,dc=test", f"cn={name},cn=groups,cn=accounts,dc=test")
    assert found is not None
    assert f"member of {name}" in found.replace("Payroll Clerks", "payroll clerks")


@pytest.mark.parametrize(
    "dn",
    [
        "cn=ipausers,cn=groups,cn=accounts,dc=test",
        "cn=admins2,cn=groups,cn=accounts,dc=test",
        "cn=noadmins,cn=groups,cn=accounts,dc=test",
        "cn=admins,cn=roles,cn=accounts,dc=test",
    ],
)
def test_other_groups_and_roles_protect_nobody(dn: str) -> None:
    assert why(dn) is None
    assert why() is None


@pytest.mark.parametrize(
    ("dn", "gone"),
    [
        ("uid=alice,cn=users,cn=accounts,dc=idm,dc=test", False),
        ("uid=alice,cn=staged users,cn=accounts,cn=provisioning,dc=idm,dc=test", True),
        ("uid=alice,cn=deleted users, cn=accounts, cn=provisioning, dc=idm,dc=test", True),
        ("UID=alice,CN=users,CN=compat,dc=idm,dc=test", True),
        ("uid=alice,ou=compat,dc=idm,dc=test", False),
        ("uid=alice,ou=people,dc=compat,dc=test", False),
    ],
)
def test_staged_preserved_and_compat_entries_are_nobody(dn: str, *, gone: bool) -> None:
    assert out_of_use(dn) is gone
