"""A campaign's faults: the same for the same seed, never two at one place, every kind in each round."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tests.faults.plan import _WAYS, CLUSTER_ONLY, Fault, Kind, draw


def test_the_same_seed_draws_the_same_faults_and_another_one_others() -> None:
    assert draw(7, seconds=600) == draw(7, seconds=600)
    assert draw(7, seconds=600).faults != draw(8, seconds=600).faults


def test_a_longer_campaign_begins_like_a_shorter_one() -> None:
    short, long = draw(7, seconds=120).faults, draw(7, seconds=600).faults
    assert long[: len(short)] == short
    assert len(long) > 3 * len(short)


def test_every_kind_comes_once_in_each_round() -> None:
    one = [kind for kind in Kind if kind not in CLUSTER_ONLY]
    assert Counter(fault.kind for fault in draw(3, count=2 * len(one)).faults) == Counter(one * 2)
    assert Counter(fault.kind for fault in draw(3, count=len(Kind), nodes=3).faults) == Counter(Kind)


def _held(fault: Fault) -> set[str]:
    return set(_WAYS[fault.kind].holds.format(target=fault.target).split())


@pytest.mark.parametrize("seed", range(20))
def test_so_many_overlap_at_most_and_never_two_at_one_place(seed: int) -> None:
    faults = draw(seed, seconds=1800, nodes=3, at_once=3).faults
    assert all(before.at <= after.at for before, after in pairwise(faults))
    assert len(faults) > 300
    for place, fault in enumerate(faults):
        beside = [other for other in faults[max(0, place - 60) : place] if other.until > fault.at]
        assert len(beside) < 3
        assert not [other for other in beside if _held(other) & _held(fault)]


def test_some_overlap_or_the_cap_would_prove_nothing() -> None:
    faults = draw(1, seconds=600).faults
    assert sum(after.at < before.until for before, after in pairwise(faults)) > 20
