"""LDIF change records: read from our templates, printed for ldapmodify, and the same again when read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_ops.idm.ldif import Change, FromFile, LdifError, Record, parse, render

TEXT = """\
# What it is for.
#
# And more.
dn: cn=users,dc=test
changetype: modify
add: aci
# a comment inside
aci: (targetattr = "a ||
  b")
aci:: w6Q=
-
delete: description

dn: uid=x,dc=test
changetype: add
objectClass: top
objectClass: account
userPassword:< file:///etc/pass%20relay/x
"""


def test_records_are_read_with_folded_encoded_and_file_values() -> None:
    users, account = parse(TEXT)
    assert users.comment == "What it is for.\n\nAnd more.\na comment inside"
    assert users.changes == (
        Change("add", "aci", ('(targetattr = "a || b")', "\N{LATIN SMALL LETTER A WITH DIAERESIS}")),
        Change("delete", "description"),
    )
    assert account.changes == (
        Change("add", "objectClass", ("top", "account")),
        Change("add", "userPassword", (FromFile(Path("/etc/pass relay/x")),)),
    )
    assert parse(render([users, account])) == [users, account]


VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
CHANGES = st.builds(
    Change,
    st.sampled_from(["add", "delete", "replace"]),
    st.sampled_from(["aci", "cACertificate;binary", "uid"]),
    st.lists(VALUES, min_size=1, max_size=3).map(tuple),
)


@given(st.builds(Record, VALUES, st.just("modify"), st.lists(CHANGES, min_size=1, max_size=3).map(tuple)))
def test_whatever_is_printed_is_read_again_as_it_was(record: Record) -> None:
    text = render([record])
    assert parse(text) == [record]
    assert all(len(line) <= 78 for line in text.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "changetype: add\n",
        "dn: dc=x\n",
        "dn: dc=x\nchangetype: modrdn\n",
        "dn: dc=x\nchangetype: modify\nadd: aci\nuid: x\n",
        "dn: dc=x\nchangetype: modify\nput: aci\n",
        "dn: dc=x\nchangetype: add\nno attribute\n",
    ],
)
def test_what_is_no_change_record_is_refused(text: str) -> None:
    with pytest.raises(LdifError, match="LDIF"):
        parse(text)
