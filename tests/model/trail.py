"""The lines that order.pml prints on the way to a fault, as steps that a person can follow.

The model numbers operations anew at every step; here each gets one CSN for the whole story, in the same order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CYCLE = "<<<<<START OF CYCLE>>>>>"
_SERVERS = "ABC"
_PLAIN, _X = 0, 1


@dataclass(frozen=True)
class _Operation:
    event: int
    flag: int
    """As in operations.pml: 0 sets a password, X is the must-change step, F a floor."""


@dataclass
class _Story:
    events: dict[int, str] = field(default_factory=dict)
    consumers: list[int] = field(default_factory=lambda: [1, 2])
    operations: list[_Operation] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    """All operations, by CSN."""
    known: list[int] = field(default_factory=list)
    """Those that the model still numbers, by their numbers."""
    marker: dict[int, int] = field(default_factory=dict)
    password: dict[int, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def newer(self, one: int, other: int | None) -> bool:
        return other is None or self.order.index(one) > self.order.index(other)

    def arrives(self, server: int, operation: int) -> str:
        """Last writer wins, attribute by attribute; says which it won."""
        won = []
        if self.newer(operation, self.marker.get(server)):
            self.marker[server] = operation
            won.append("marker")
        if self.operations[operation].flag == _PLAIN and self.newer(operation, self.password.get(server)):
            self.password[server] = operation
            won.append("password")
        return " and ".join(won) or "nothing"


def steps(trail: tuple[str, ...]) -> list[str]:
    """The story, one step a line, and what the servers show at its end. Lines of delivery.pml stay as they are."""
    story = _Story()
    forgotten: list[int] = []
    pending = ""
    for line in trail:
        sign, _, rest = line.partition(" ")
        if line == CYCLE:
            story.lines.append("and from here on, again and again, without any fault:")
            continue
        if sign == "#":
            story.lines.append(rest)
            continue
        word, *texts = rest.split()
        if word == "wrong":
            story.lines.append(f"WRONG {texts[0]}: {_wrong(story, *texts)}")
            continue
        numbers = [int(text) for text in texts]
        if word != "forgotten" and forgotten:
            story.known = [one for place, one in enumerate(story.known, 1) if place not in forgotten]
            forgotten = []
        match word:
            case "forgotten":
                forgotten.append(numbers[0])
            case "write" | "finish" | "floor":
                pending = _beginning(story, word, numbers)
            case "operation":
                story.lines.append(pending + _operation(story, *numbers))
            case _:
                _other(story, word, numbers)
    csn = {operation: place for place, operation in enumerate(story.order, 1)}
    return [re.sub(r"<(\d+)>", lambda found: str(csn[int(found[1])]), line) for line in story.lines]


def _operation(story: _Story, server: int, event: int, flag: int, place: int) -> str:
    operation = len(story.operations)
    story.operations.append(_Operation(event, flag))
    above = story.known[place - 1] if place <= len(story.known) else None
    story.order.insert(story.order.index(above) if above is not None else len(story.order), operation)
    story.known.insert(place - 1, operation)
    story.arrives(server, operation)
    return f"CSN <{operation}>"


def _beginning(story: _Story, word: str, numbers: list[int]) -> str:
    if word == "floor":
        return f"the operator sets a floor at {_SERVERS[numbers[0]]}: "
    consumer, event, server, copy = numbers
    what = "the settle copy of " if copy else ""
    act = "writes it" if word == "write" else "makes it must-change (marker and expiry only)"
    return f"consumer {story.consumers[consumer]}: {what}{story.events[event]}; {act} at {_SERVERS[server]}: "


def _other(story: _Story, word: str, numbers: list[int]) -> None:
    if word == "event":
        event, key, must, tick = numbers
        name = f"the must-change tick of change {key}" if tick else f"change {key}"
        if name in story.events.values():
            name += " from the other DC"
        story.events[event] = name
        story.lines.append(f"there is {name}{', must change at next logon' if must else ''}")
    elif word == "swap":
        story.consumers.reverse()
    elif word == "calm":
        story.lines.append("(from here on nothing fails any more)")
    elif word == "arrive":
        source, target, place = numbers
        operation = story.known[place - 1]
        won = story.arrives(target, operation)
        lost = "" if "password" in won or story.operations[operation].flag == _X else ", not the password"
        won = f"wins the {won}{lost}" if won != "nothing" else "loses"
        story.lines.append(f"replication: CSN <{operation}> comes from {_SERVERS[source]} to {_SERVERS[target]}, {won}")
    else:
        consumer, event, *server = numbers
        where = _SERVERS[server[0]] if server else ""
        says = _SAYINGS[word].format(event=story.events[event], where=where)
        story.lines.append(f"consumer {story.consumers[consumer]}: {says}")


_SAYINGS = {
    "read": "{event}; reads the entry at {where} and decides to write",
    "refused": "{event}; its compare-and-set at {where} is refused, it begins anew",
    "superseded": "{event}; finds something newer at {where}",
    "retired": "the settle copy of {event}; finds something newer at {where}, retires",
    "duplicate": "{event}; finds it written at {where}",
    "look": "the settle copy of {event}; finds it written at {where}",
    "agrees": "{event}; {where} agrees",
    "differs": "{event}; {where} differs, next round",
    "settled": "{event} is settled",
    "publish": "{event}; publishes its settle copy",
    "record": "{event}; its record is in the journal, done",
    "crash": "dies with {event} in hand",
}


def _wrong(story: _Story, kind: str, number: str, must: str = "") -> str:
    if kind == "silent":
        return f"{story.events[int(number)]} has no record"
    server = _SERVERS[int(number)]
    if kind == "stale":
        return f"at the end {server} has the password of {_named(story, story.password[int(number)])}"
    if kind == "expiry":
        return f"at the end the password at {server} {'is not' if must == '1' else 'is'} expired"
    return f"at the end the marker at {server} does not name the password that is there"


def _named(story: _Story, operation: int) -> str:
    return story.events[story.operations[operation].event]
