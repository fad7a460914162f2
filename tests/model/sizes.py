"""What is searched: sizes of the two models, and what is taken away from them to see the search fail."""

from __future__ import annotations

from dataclasses import dataclass

ORDER = "order.pml"
DELIVERY = "delivery.pml"


@dataclass(frozen=True)
class Size:
    """One search that must come to its end without a fault."""

    name: str
    model: str
    defines: tuple[str, ...]
    about: str
    large: bool = False
    """Takes minutes and gigabytes: by hand only."""
    memory_mb: int = 2048


@dataclass(frozen=True)
class Weakened:
    """The model without one protection, or with a weaker rule: the search must find a fault."""

    name: str
    model: str
    defines: tuple[str, ...]
    about: str
    wrong: str
    """What the trail must say went wrong: stale, expiry, silent, lost or endless."""


_ONE = "CONSUMERS=1"
_MUST = "ANY_MUST"

SIZES = (
    Size("delivery", DELIVERY, ("CHANGES=1", "CONSUMERS=2"), "one change, two DCs, two consumers"),
    Size("delivery-2", DELIVERY, ("CHANGES=2", _ONE), "two changes, two DCs, one consumer", large=True),
    Size("two", ORDER, ("CHANGES2",), "two changes, two consumers"),
    Size("split", ORDER, ("CHANGES2", "SPLIT"), "the same, read and compare-and-set as two steps"),
    Size("copies", ORDER, ("CHANGES2", "COPIES=2"), "the same, two settle copies of one event at a time"),
    Size("floor", ORDER, ("CHANGES2", "FLOOR=1"), "the same, and an operator's floor below the newest at any moment"),
    Size("must-1", ORDER, ("CHANGES2", _MUST, _ONE), "two changes, each must-change or not, one consumer"),
    Size("tick-old-1", ORDER, ("TICK=1", _ONE), "two changes, a must-change tick of the older, one consumer"),
    Size("tick-new-1", ORDER, ("TICK=2", _ONE), "two changes, a must-change tick of the newer, one consumer"),
    Size("three-1", ORDER, ("CHANGES3", _ONE), "three changes, one consumer"),
    Size("twins-0", ORDER, ("TWINS", _ONE), "two changes, the newer captured on two DCs, one consumer"),
    Size("must", ORDER, ("CHANGES2", _MUST), "two changes, each must-change or not, two consumers", large=True),
    Size("tick-old", ORDER, ("TICK=1",), "two changes, a tick of the older, two consumers", large=True),
    Size("tick-new", ORDER, ("TICK=2",), "two changes, a tick of the newer, two consumers", large=True),
    Size("three", ORDER, ("CHANGES3",), "three changes, two consumers", large=True),
    Size("three-servers", ORDER, ("CHANGES2", "SERVERS=3"), "two changes, three servers, two consumers", large=True),
    Size("twins", ORDER, ("TWINS",), "two changes, the newer captured on two DCs, two consumers", large=True),
    Size("twins-1", ORDER, ("TWINS", _MUST, _ONE), "two DCs, each must-change or not, one consumer", large=True),
)

WEAKENED = (
    Weakened("cursor-first", DELIVERY, ("CHANGES=1", "CURSOR_FIRST"), "cursor and event in two transactions", "lost"),
    Weakened("no-confirms", DELIVERY, ("CHANGES=1", "NO_CONFIRMS"), "marked as published when sent", "lost"),
    Weakened("auto-ack", DELIVERY, ("CHANGES=1", "ACK_FIRST"), "acked when taken", "lost"),
    Weakened("mark-replayed-first", DELIVERY, ("CHANGES=1", "MARK_REPLAYED_FIRST"), "letter closed, then sent", "lost"),
    Weakened(
        "no-compare-and-set", ORDER, ("CHANGES2", "SPLIT", "NO_COMPARE_AND_SET"), "read, then plain write", "stale"
    ),
    Weakened("no-settle", ORDER, ("CHANGES2", "NO_SETTLE", _ONE), "no settle copies", "stale"),
    Weakened("ack-first", ORDER, ("CHANGES2", "ACK_FIRST", _ONE), "ack before settle copy and journal", "silent"),
    Weakened("no-flag-x", ORDER, ("CHANGES2", _MUST, "NO_FLAG_X", _ONE), "must-change without a flag", "expiry"),
    Weakened("no-kvno", ORDER, ("CHANGES2", "NO_KVNO", _ONE), "ordered by the DCs' clocks", "stale"),
    Weakened("no-proof", ORDER, ("CHANGES2", _MUST, "NO_PROOF", _ONE), "a marker without a proof beside it", "stale"),
    Weakened("weak-settle", ORDER, ("CHANGES3", "WEAK_SETTLE", _ONE), "settled = not older on any server", "stale"),
    Weakened("own-copies", ORDER, ("TICK=2", "OWN_COPIES", _ONE), "no copy after another event's write", "expiry"),
    Weakened("torn-by-text", ORDER, ("CHANGES2", _MUST, "TORN_BY_TEXT"), "torn = the texts differ", "endless"),
)
