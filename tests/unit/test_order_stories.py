"""The faults that the model finds without one protection (docs/order.md), played to the consumer's real code.

Servers are A (0) and B (1). Their clocks are set so that each operation gets the place in the order of CSNs that the
story needs.
"""

from __future__ import annotations

from dataclasses import replace

from passrelay_schemas.message import Counters
from passrelay_schemas.verdict import Verdict
from tests.unit.order_world import Fate, World

A, B = 0, 1


def test_an_older_write_that_was_decided_before_a_newer_one_settled_is_refused() -> None:
    world = World(0, 0)
    older, newer = world.capture(1), world.capture(2)

    def newer_is_written_and_settled() -> None:
        world.work(newer, A)
        world.replicate(A, B)
        assert world.work(world.copy_of(newer), A).unsettled == ""

    outcome = world.work(older, A, Fate(before_call={2: newer_is_written_and_settled}))
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, "newer")
    world.settle_down()


def test_an_older_write_at_another_server_with_a_faster_clock_is_undone() -> None:
    world = World(60, 0)
    older, newer = world.capture(1), world.capture(2)
    world.work(older, A)
    world.work(newer, B)
    world.settle_down()


def test_must_change_is_done_after_a_crash_between_its_two_writes() -> None:
    world = World(0, 0)
    world.dies(world.capture(1, must=True), A, Fate(dies_after_modify=1))
    world.settle_down()


def test_a_newer_password_is_not_expired_by_the_must_change_step_of_the_one_before() -> None:
    world = World(0, 0)
    older, newer = world.capture(1, must=True), world.capture(2)
    world.work(older, A, Fate(before_call={4: lambda: world.work(newer, A)}))
    world.settle_down()


def test_a_newer_marker_beside_an_older_password_is_seen() -> None:
    world = World(60, 0)
    older, newer = world.capture(1), world.capture(2, must=True)
    world.dies(older, A, Fate(dies_after_modify=1))

    def clock_of_b_is_set() -> None:
        world.suppliers[B].ahead = 120

    world.work(newer, B, Fate(before_call={4: clock_of_b_is_set}))
    world.replicate(B, A, 2)
    world.replicate(A, B)
    shown = [supplier.password for supplier in world.suppliers]
    assert all(password.endswith("-1-0") for password in shown)  # both: the newer marker, the older password
    world.settle_down()


def test_an_older_must_change_step_does_not_expire_the_newer_password() -> None:
    world = World(0, 60)
    older, newer = world.capture(1, must=True), world.capture(2)

    def newer_is_written_at_b() -> None:
        world.work(newer, B)
        world.suppliers[A].ahead = 120

    world.work(older, A, Fate(before_call={4: newer_is_written_at_b}))
    world.settle_down()


def test_not_older_than_ours_on_every_server_is_not_settled() -> None:
    world = World(10, 0)
    first, second, third = world.capture(1), world.capture(2), world.capture(3)
    world.dies(first, A, Fate(dies_after_modify=1))
    world.work(third, A)
    world.work(world.copy_of(third), B)  # B has nothing yet: written there too, with a smaller CSN than the first
    assert world.work(world.copy_of(third), A).unsettled
    world.replicate(A, B)
    world.suppliers[B].ahead = 120
    world.dies(second, B, Fate(dies_after_modify=1))
    world.settle_down()


def test_a_tick_that_died_before_its_settle_copy_is_looked_after() -> None:
    world = World(60, 0)
    change, tick = world.capture(1), world.capture(1, tick=True)
    world.work(change, A)
    world.work(world.copy_of(change), B)
    world.dies(tick, B, Fate(dies_after_modify=1))
    assert world.work(tick, B).verdict is Verdict.DUPLICATE
    world.settle_down()


def test_two_events_of_one_change_that_found_each_others_write_are_looked_after() -> None:
    world = World(0, 10)
    older, one, other = world.capture(1, must=True), world.capture(2), world.capture(2)
    world.work(older, A)
    world.work(world.copy_of(older), B)
    world.dies(one, A, Fate(dies_after_modify=1))
    world.dies(other, B, Fate(dies_after_modify=1))
    assert world.work(one, B).verdict is Verdict.DUPLICATE
    assert world.work(other, A).verdict is Verdict.DUPLICATE
    world.replicate(B, A)  # the older password, without its must-change step
    world.suppliers[A].ahead = 120
    world.work(replace(older, counters=Counters(replays=1)), A)  # which is done now, after everything else
    world.replicate(B, A, 2)
    world.settle_down()


def test_two_writes_of_one_change_do_not_race_for_ever() -> None:
    world = World(0, 10)
    change = world.capture(1, must=True)
    world.dies(change, A, Fate(dies_after_modify=1))
    world.dies(change, B, Fate(dies_after_modify=1))
    world.suppliers[A].ahead = 60
    world.work(change, A)
    world.replicate(A, B, 2)
    world.replicate(B, A)
    copy = world.copy_of(change)
    assert world.work(copy, B).verdict is Verdict.DUPLICATE  # A's marker, B's password: the same change, nothing to do
    world.settle_down()
