"""When which cut begins and ends: drawn from a seed, pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a cut takes away."""

    APART = "suppliers_apart"
    HIDDEN = "a_hidden"
    """From the consumers; the suppliers see each other."""
    BOTH = "apart_and_a_hidden"
    """A takes writes that B does not get, then B takes writes: the cut that can undo a newer password."""
    KILLED = "a_killed"
    """Cut off and killed: what B has not got by then, it gets when A is back."""


class Step(StrEnum):
    """One thing done to the servers or the network."""

    CUT = "cut"
    HEAL = "heal"
    HIDE = "hide"
    SHOW = "show"
    CRASH = "crash"
    REVIVE = "revive"


@dataclass(frozen=True)
class Schedule:
    """Which step is taken before which delivery; nothing is cut at the end."""

    kinds: tuple[Kind, ...]
    steps: dict[int, Step]
    deliveries: int


def schedule(dice: random.Random, cuts: int) -> Schedule:
    """So many cuts, of each kind as many, one after the other with pauses of half a second to two between them."""
    kinds = (list(Kind) * cuts)[:cuts]
    dice.shuffle(kinds)
    steps: dict[int, Step] = {}
    at = 0
    for kind in kinds:
        at += dice.randint(10, 40)
        first, second, third = (dice.randint(5, 25) for _ in range(3))
        match kind:
            case Kind.APART:
                steps |= {at: Step.CUT, at + first + second: Step.HEAL}
            case Kind.HIDDEN:
                steps |= {at: Step.HIDE, at + first + second: Step.SHOW}
            case Kind.BOTH:
                ends = [Step.SHOW, Step.HEAL]
                dice.shuffle(ends)
                steps |= {at: Step.CUT, at + first: Step.HIDE}
                steps |= {at + first + second: ends[0], at + first + second + third: ends[1]}
            case Kind.KILLED:
                steps |= {at: Step.CRASH, at + first + second: Step.REVIVE}
        at = max(steps)
    return Schedule(tuple(kinds), steps, at + 20)
