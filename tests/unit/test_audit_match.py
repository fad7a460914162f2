"""Many users in one search: whose entry is it, and when must each be searched alone."""

from __future__ import annotations

from uuid import UUID

import pytest

from passrelay_ops.audit.match import Matcher
from passrelay_schemas.domain_settings import DEFAULT_MATCH
from passrelay_schemas.event import Account


def account(name: str, upn: str | None = None, number: int = 1) -> Account:
    return Account(guid=UUID(int=number), sam_account_name=name, user_principal_name=upn)


def owners(template: str, accounts: list[Account], **values: str) -> set[int]:
    matcher = Matcher.of(template)
    assert matcher is not None
    return set(matcher.owner(matcher.owners(accounts), {name: [value.encode()] for name, value in values.items()}))


def test_the_usual_filter_is_put_together_with_its_common_part_once() -> None:
    matcher = Matcher.of(DEFAULT_MATCH)
    assert matcher is not None
    assert matcher.attributes == ["uid", "ntuserdomainid"]
    assert matcher.search_filter([account("alice"), account("b*b")]) == (
        "(&(objectClass=person)(|(uid=alice)(ntUserDomainId=alice)(uid=b\\2ab)(ntUserDomainId=b\\2ab)))"
    )


@pytest.mark.parametrize(
    "template",
    [
        "(uid={sam})",
        "(|(uid={sam})(mail={upn}))",
        "(&(objectClass=person)(&(uid={sam})(mail={upn})))",
        "(&(objectClass=person)(!(nsAccountLock=TRUE))(uid={sam}))",
        " ( & (objectClass=person) ( uid = {sam} ) ) ",
        "(&(objectClass=person)(cn=*{sam}*)(uid={sam}))",
    ],
)
def test_filters_whose_hits_must_have_a_name(template: str) -> None:
    assert owners(template, [account("alice", "alice@x.example"), account("bob", number=2)], uid="ALICE") == {0}


@pytest.mark.parametrize(
    "template",
    [
        "(cn=*{sam}*)",
        "(|(objectClass=person)(uid={sam}))",
        "(&(objectClass=person)(!(uid={sam})))",
        "(krbPrincipalName={sam}@IDM.TEST)",
        "(uid:caseExactMatch:={sam})",
        "(&(objectClass=person)(uid={sam})",
        "(uid={sam}))",
        "(|)",
    ],
)
def test_filters_that_are_searched_for_each_user_alone(template: str) -> None:
    assert Matcher.of(template) is None


def test_an_entry_with_the_names_of_two_belongs_to_neither_for_sure() -> None:
    people = [account("alice"), account("bob", number=2)]
    assert owners("(|(uid={sam})(ntUserDomainId={sam}))", people, uid="alice", ntuserdomainid="bob") == {0, 1}
    assert owners("(|(uid={sam})(ntUserDomainId={sam}))", people, uid="carol") == set()


def test_an_empty_name_owns_nothing() -> None:
    assert owners("(|(uid={sam})(mail={upn}))", [account("alice")], mail="") == set()
