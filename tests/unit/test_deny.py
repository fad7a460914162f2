"""Accounts that are never carried, whatever the configuration says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from passrelay_schemas.deny import denied

ORDINARY = [
    "S-1-5-21-1-2-3-513",
    "S-1-5-21-1-2-3-520",
    "S-1-5-21-1-2-3-1512",
    "S-1-5-21-1-2-512-1105",
    "S-1-5-21-1-2-3-544",
    "S-1-5-32-545",
    "S-1-5-32-512",
    "S-1-5-32-555",
    "S-1-5-11",
    "S-1-18-1",
]


def why(name: str = "alice", rid: str = "1105", admin_count: int = 0, groups: Sequence[str] = ()) -> str | None:
    return denied(sam_account_name=name, sid=f"S-1-5-21-1-2-3-{rid}", admin_count=admin_count, groups=groups)


@pytest.mark.parametrize(
    "name",
    [
        "DC1$",
        "$",
        "trust$",
        "krbtgt",
        "KRBTGT",
        "Krbtgt_20412",
        "krbtgt$",
        "DC1$\u200b",
        " krbtgt",
        "krb\u00adtgt",
        "DC1\uff04",
    ],
)
def test_machines_trusts_and_ticket_accounts_are_denied_by_name(name: str) -> None:
    assert why(name) is not None


@pytest.mark.parametrize("rid", ["500", "501", "502", "0500"])
def test_built_in_accounts_are_denied_under_any_name(rid: str) -> None:
    assert why("renamed", rid) == "built-in account"


def test_protected_administrators_are_denied() -> None:
    assert "AdminSDHolder" in (why(admin_count=1) or "")


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("S-1-5-21-1-2-3-512", "Domain Admins"),
        ("S-1-5-21-1-2-3-516", "Domain Controllers"),
        ("S-1-5-21-1-2-3-521", "Read-only Domain Controllers"),
        ("S-1-5-21-7-8-9-518", "Schema Admins"),  # of the forest's root domain
        ("S-1-5-21-7-8-9-519", "Enterprise Admins"),
        ("S-1-5-32-544", "Administrators"),
        ("S-1-5-32-548", "Account Operators"),
        ("S-1-5-32-549", "Server Operators"),
        ("S-1-5-32-550", "Print Operators"),
        ("S-1-5-32-551", "Backup Operators"),
        ("S-1-5-32-552", "Replicator"),
    ],
)
def test_who_is_in_an_administrative_group_is_denied_without_admin_count(group: str, name: str) -> None:
    assert why(groups=[*ORDINARY, group]) == f"member of {name}, itself or through another group"


def test_no_other_group_denies_anybody() -> None:
    assert why(groups=ORDINARY) is None


@pytest.mark.parametrize(
    ("name", "rid"),
    [("alice", "1105"), ("a$b", "1105"), ("$alice", "1105"), ("my-krbtgt", "5000"), ("x", "1500"), ("x", "50")],
)
def test_people_are_carried(name: str, rid: str) -> None:
    assert why(name, rid) is None


def test_an_account_without_a_sid_is_judged_by_its_name() -> None:
    assert denied(sam_account_name="alice", sid=None) is None
    assert denied(sam_account_name="dc1$", sid=None) is not None


def test_a_domain_that_ends_like_a_built_in_account_is_not_one() -> None:
    assert denied(sam_account_name="alice", sid="S-1-5-21-1-2-500-1105") is None
