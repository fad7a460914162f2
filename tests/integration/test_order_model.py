"""The model of docs/order.md, small: searched to its end without a fault, and failing without any one protection."""

from __future__ import annotations

import shutil

import pytest

from tests.model.__main__ import went_wrong
from tests.model.sizes import SIZES, WEAKENED, Size, Weakened
from tests.model.spin import MissingProgramError, search
from tests.model.trail import steps

SMALL = [size for size in SIZES if not size.large]


@pytest.mark.parametrize("size", SMALL, ids=lambda size: size.name)
def test_nothing_is_lost_stale_or_expired_and_every_run_ends(size: Size) -> None:
    result = search(size.model, size.defines)
    assert result.fault is None, "\n".join(steps(result.trail))
    assert result.complete
    assert result.states > 10_000  # a model in which nothing can happen is right too


@pytest.mark.parametrize("weakened", WEAKENED, ids=lambda weakened: weakened.name)
def test_without_this_protection_it_fails(weakened: Weakened) -> None:
    result = search(weakened.model, weakened.defines)
    assert went_wrong(result, weakened), result.fault


def test_the_weak_settle_rule_needs_three_changes_to_fail() -> None:
    """Two changes alone would have let it pass: the size of a model is part of what it shows."""
    result = search("order.pml", ("CHANGES2", "WEAK_SETTLE", "CONSUMERS=1"))
    assert (result.complete, result.fault) == (True, None)


def test_a_story_names_its_operations_by_csn() -> None:
    weakened = next(item for item in WEAKENED if item.name == "no-settle")
    story = steps(search(weakened.model, weakened.defines, shortest=True).trail)
    assert "consumer 1: change 1; writes it at A: CSN 2" in story
    assert "consumer 1: change 2; writes it at B: CSN 1" in story
    assert "replication: CSN 2 comes from A to B, wins the marker and password" in story
    assert story[-1] == "WRONG stale: at the end A has the password of change 1"


def test_a_missing_spin_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "spin" else f"/usr/bin/{name}")
    with pytest.raises(MissingProgramError, match="spin not found: apt-get install spin gcc libc6-dev"):
        search("order.pml", ("CHANGES2",))
