"""One spelling of a DN: what IPA's password plugin compares, and what a configuration may name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from passrelay_schemas.distinguished_name import canonical, common_suffix, components, folded, parent
from passrelay_schemas.idm_settings import IdmSettings

SERVICE = "uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test"


@pytest.mark.parametrize(
    "spelled",
    [
        SERVICE,
        SERVICE.replace(",", ", "),
        " uid = passrelay , cn=sysaccounts,cn =etc,dc=idm, dc=test ",
    ],
)
def test_blanks_around_separators_go(spelled: str) -> None:
    assert canonical(spelled) == SERVICE


def test_what_is_escaped_or_inside_a_value_stays() -> None:
    assert components(r"cn=Smith\, John + uid=x, dc=test") == [r"cn=Smith\, John+uid=x", "dc=test"]
    assert canonical("CN=Two Words,dc=Test") == "CN=Two Words,dc=Test"


@pytest.mark.parametrize("text", ["", "passrelay", "uid=", "uid=a,,dc=b", ",dc=b", "uid=a;dc=b", 'cn="a,b",dc=c'])
def test_what_is_no_dn_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="not a DN"):
        canonical(text)


def test_names_are_compared_without_case_and_blanks() -> None:
    assert folded(SERVICE) == folded(SERVICE.replace(",", ", ").upper())
    assert folded(SERVICE) != folded(parent(SERVICE))
    assert folded("No DN") == "no dn"


def test_the_suffix_is_what_all_share() -> None:
    assert common_suffix([SERVICE, "cn=users, cn=accounts, DC=IDM, dc=test"]) == "dc=idm,dc=test"
    assert common_suffix([SERVICE, "ou=people,dc=example"]) == ""
    assert parent("dc=test") == ""


def settings(**fields: str) -> IdmSettings:
    given = {"servers": ["ldaps://a"], "ca_file": Path("/ca"), "bind_dn": SERVICE, "password_file": Path("/p")}
    return IdmSettings.model_validate(given | fields)


def test_settings_take_blanks_out_and_refuse_what_is_no_dn() -> None:
    copied = settings(bind_dn=SERVICE.replace(",", ", "))
    assert copied.bind_dn == SERVICE
    assert copied.probe_entries == (f"uid=passrelay-probe,{parent(SERVICE)}",)
    for field in ("bind_dn", "probe_dn"):
        with pytest.raises(ValidationError, match="not a DN"):
            settings(**{field: "passrelay"})
