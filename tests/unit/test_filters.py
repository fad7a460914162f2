"""Whose passwords are captured: the built-in denial, then each exclude list, then the include lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_producer.filters import Filter, Rule, Subject, within

BASE = "DC=lab,DC=example"
STAFF, NIGHT, GUESTS = "S-1-5-21-1-2-3-1200", "S-1-5-21-1-2-3-1201", "S-1-5-21-1-2-3-1300"
ALICE = Subject(
    sam_account_name="alice",
    sid="S-1-5-21-1-2-3-1105",
    dn=f"CN=alice,OU=Night,OU=People,{BASE}",
    groups=frozenset({NIGHT, "S-1-5-21-1-2-3-513"}),
)


def rule(filters: Filter, **changes: Any) -> Rule | None:
    exclusion = filters.exclusion(Subject(**{**vars(ALICE), **changes}))
    return exclusion.rule if exclusion else None


def test_without_a_rule_everybody_is_captured() -> None:
    assert rule(Filter()) is None


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filter(include_groups={STAFF: "staff", NIGHT: "staff"}), None),
        (Filter(include_groups={GUESTS: "guests"}), Rule.NOT_INCLUDED),
        (Filter(include_ous=[f"OU=People,{BASE}"]), None),
        (Filter(include_ous=[f"OU=Leaving,{BASE}"]), Rule.NOT_INCLUDED),
        (Filter(include_groups={GUESTS: "guests"}, include_ous=[f"OU=People,{BASE}"]), None),
        (Filter(include_groups={NIGHT: "night"}, include_ous=[f"OU=Leaving,{BASE}"]), None),
        (Filter(exclude_groups={NIGHT: "night"}), Rule.EXCLUDE_GROUP),
        (Filter(exclude_groups={GUESTS: "guests"}), None),
        (Filter(exclude_ous=[f"OU=Night,OU=People,{BASE}"]), Rule.EXCLUDE_OU),
        (Filter(exclude_ous=[f"OU=Leaving,{BASE}"]), None),
        (Filter(exclude_patterns=["ALI*"]), Rule.EXCLUDE_PATTERN),
        (Filter(exclude_patterns=["lice", "ali", "a?e"]), None),
        (Filter(include_groups={NIGHT: "night"}, exclude_ous=[f"OU=People,{BASE}"]), Rule.EXCLUDE_OU),
        (Filter(include_ous=[f"OU=People,{BASE}"], exclude_groups={NIGHT: "night"}), Rule.EXCLUDE_GROUP),
        (Filter(include_groups={NIGHT: "night"}, exclude_patterns=["[a-c]l?ce"]), Rule.EXCLUDE_PATTERN),
    ],
)
def test_exclude_wins_and_one_include_list_is_enough(filters: Filter, found: Rule | None) -> None:
    assert rule(filters) is found


@pytest.mark.parametrize(
    "changes",
    [
        {"sam_account_name": "alice$"},
        {"sam_account_name": "krbtgt"},
        {"sid": "S-1-5-21-1-2-3-500"},
        {"admin_count": 1},
        {"groups": frozenset({NIGHT, "S-1-5-32-544"})},
        {"token_groups": frozenset({NIGHT, "S-1-5-21-1-2-3-512"})},
        {"user_account_control": 0x1000},
    ],
)
def test_no_include_list_lets_in_what_is_denied(changes: dict[str, Any]) -> None:
    everything = Filter(include_groups={NIGHT: "night"}, include_ous=[BASE], exclude_patterns=["*"])
    assert rule(everything, **changes) is Rule.DENIED


def test_the_words_name_the_setting_as_it_was_written() -> None:
    for filters, words in [
        (Filter(exclude_groups={NIGHT: "Night Shift"}), "[filter] exclude_groups 'Night Shift'"),
        (Filter(exclude_ous=[f"OU=People,{BASE}"]), f"[filter] exclude_ous 'OU=People,{BASE}'"),
        (Filter(exclude_patterns=["svc-*", "Al*"]), "[filter] exclude_patterns 'Al*'"),
        (Filter(include_groups={GUESTS: "guests"}), "[filter] include_groups and include_ous"),
    ]:
        exclusion = filters.exclusion(ALICE)
        assert exclusion is not None
        assert words in exclusion.words


@pytest.mark.parametrize(
    ("dn", "inside"),
    [
        ("CN=a,OU=People,DC=lab", True),
        ("cn=a,ou=people,dc=lab", True),
        ("CN=a,OU=Deep,OU=Inner,OU=People,DC=lab", True),
        ("OU=People,DC=lab", False),
        ("CN=a,OU=MyPeople,DC=lab", False),
        ("CN=aOU=People,DC=lab", False),
        ("CN=a,OU=People,DC=lab,DC=other", False),
        ("CN=a\\,OU=People,DC=lab", False),
        ("CN=a\\\\,OU=People,DC=lab", True),
        ("CN=a\\\\\\,OU=People,DC=lab", False),
    ],
)
def test_an_ou_holds_what_is_below_it_and_no_name_that_looks_so(dn: str, *, inside: bool) -> None:
    assert within(dn, "OU=People,DC=lab") is inside


# -- for all filters and accounts --------------------------------------------------------------------------------------

_SIDS = [f"S-1-5-21-1-2-3-{rid}" for rid in range(1200, 1206)]
_OUS = [f"OU=B,OU=A,{BASE}", f"OU=A,{BASE}", f"OU=C,{BASE}"]
groups = st.sets(st.sampled_from(_SIDS), max_size=3)
ous = st.lists(st.sampled_from(_OUS), max_size=2)
filters_ = st.builds(
    Filter,
    include_groups=groups.map(dict.fromkeys),
    exclude_groups=groups.map(dict.fromkeys),
    include_ous=ous,
    exclude_ous=ous,
    exclude_patterns=st.lists(st.sampled_from(["svc-*", "A*", "?b*", "[xyz]*"]), max_size=2),
)
subjects = st.builds(
    Subject,
    sam_account_name=st.sampled_from(["alice", "Bob", "SVC-backup", "x1", "HOST$", "krbtgt"]),
    sid=st.sampled_from(["S-1-5-21-1-2-3-1105", "S-1-5-21-1-2-3-500", None]),
    admin_count=st.sampled_from([0, 1]),
    dn=st.sampled_from([f"CN=x,{place}" for place in (*_OUS, f"CN=Users,{BASE}")]),
    groups=groups.map(frozenset),
    token_groups=st.sets(st.sampled_from([*_SIDS, "S-1-5-32-545", "S-1-5-32-544"]), max_size=2).map(frozenset),
)


@given(filters_, subjects)
def test_more_exclusions_never_let_anybody_in(filters: Filter, subject: Subject) -> None:
    plain = Filter(include_groups=filters.include_groups, include_ous=filters.include_ous)
    if plain.exclusion(subject) is not None:
        assert filters.exclusion(subject) is not None


@given(filters_, subjects)
def test_every_captured_account_is_allowed_by_each_list_on_its_own(filters: Filter, subject: Subject) -> None:
    alone = [
        Filter(exclude_groups=filters.exclude_groups),
        Filter(exclude_ous=filters.exclude_ous),
        Filter(exclude_patterns=filters.exclude_patterns),
        Filter(include_groups=filters.include_groups, include_ous=filters.include_ous),
    ]
    assert (filters.exclusion(subject) is None) == all(part.exclusion(subject) is None for part in alone)


@given(filters_, subjects)
def test_the_case_of_names_and_dns_does_not_matter(filters: Filter, subject: Subject) -> None:
    other = Subject(
        **{**vars(subject), "sam_account_name": subject.sam_account_name.swapcase(), "dn": subject.dn.swapcase()}
    )
    found, again = filters.exclusion(subject), filters.exclusion(other)
    assert (found and found.rule) == (again and again.rule)


@given(filters_, subjects)
def test_what_is_denied_is_denied_under_every_filter(filters: Filter, subject: Subject) -> None:
    without, found = Filter().exclusion(subject), filters.exclusion(subject)
    assert (without is not None) == (found is not None and found.rule is Rule.DENIED)
