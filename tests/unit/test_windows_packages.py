"""LSA's list of notification packages: nobody else's entry is ever touched (389-ds ticket 48778)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_producer.windows import HOOK, packages
from passrelay_schemas.errors import SafetyError

OTHERS = ["rassfm", "scecli", "passhook"]
_names = st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12), max_size=6)


def test_it_is_appended_once() -> None:
    once = packages.appended(OTHERS, HOOK)
    assert once == [*OTHERS, "passrelay-hook"]
    assert packages.appended(once, HOOK) == once


@pytest.mark.parametrize("written", ["passrelay-hook", "PassRelay-Hook", "passrelay-hook.dll", " passrelay-hook "])
def test_it_is_found_however_it_was_written(written: str) -> None:
    listed = ["rassfm", written, "scecli"]
    assert packages.appended(listed, HOOK) == listed
    assert packages.removed(listed, HOOK) == ["rassfm", "scecli"]


@pytest.mark.parametrize("other", ["passrelay-hook2", "xpassrelay-hook", "passrelay", ""])
def test_a_name_that_looks_like_it_is_another(other: str) -> None:
    assert packages.removed([other], HOOK) == [other]
    assert packages.appended([other], HOOK) == [other, HOOK]


@given(_names)
def test_append_and_remove_leave_others_as_they_were_and_where_they_were(names: list[str]) -> None:
    others = [name for name in names if not packages.listed([name], HOOK)]
    assert packages.removed(packages.appended(others, HOOK), HOOK) == others


def test_only_a_list_is_read() -> None:
    assert packages.parse(["a", "b"], 7) == ("a", "b")
    assert packages.parse(None, 0) == ()
    for value, kind in (("rassfm", 1), (b"x", 3), (["a"], 1)):
        with pytest.raises(SafetyError, match="REG_MULTI_SZ"):
            packages.parse(value, kind)
