"""Replaying dead letters: published once more, confirmed, and only then recorded as replayed in their own stream.

A crash in between leaves a letter live that was published: it is published once more the next time, and the consumer
finds a duplicate. Sealed events are never opened here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops import repair_commands
from passrelay_ops.confirmed import ConfirmingChannel, Outgoing
from passrelay_ops.dead_letters import Letter, Letters, State, read_record
from passrelay_ops.operator_act import Act
from passrelay_ops.standing import Standing
from passrelay_ops.stream import StreamMessage, Tail, read
from passrelay_schemas.envelope import Envelope, ProtectedHeader
from passrelay_schemas.errors import EventError, UnavailableError
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.message import envelope_properties, record_properties
from passrelay_schemas.topology import DEAD, EVENTS
from passrelay_schemas.verdict import Verdict

MOST_REPLAYS = 10
"""A letter that came back so often is not repaired by one more: nobody may replay in a loop for ever."""
DEFAULT_RATE = 100
"""Letters per second: far below what consumers take, so that fresh changes do not wait behind old ones."""
MOST_AT_ONCE = 100
"""So many are published before their records are: as many are published once more after a crash."""


NOBODY_KNOWS = "its account or entry is not known here, so nobody can say if the password was changed in IdM since"


@dataclass(frozen=True)
class LeftOut:
    """A letter that is not replayed, why, and what the operator can do."""

    letter: Letter
    why: str
    repair: str

    def document(self) -> dict[str, Any]:
        """As it stands in a document."""
        return {
            "event_id": str(self.letter.event_id),
            "account": self.letter.account,
            "why": self.why,
            "repair": self.repair,
        }


@dataclass(frozen=True)
class Plan:
    """What a replay would do."""

    letters: tuple[Letter, ...]
    """To be replayed, by their first failure."""
    standings: Counter[Standing]
    """What IdM says about these."""
    left_out: tuple[LeftOut, ...] = ()
    beyond_limit: int = 0
    """Selected, but more than was asked for."""

    def document(self) -> dict[str, Any]:
        """As it stands in a document."""
        return {
            "letters": len(self.letters),
            "reasons": dict(sorted(Counter(letter.reason for letter in self.letters).items())),
            "oldest": _moment(min((letter.first_failed_at for letter in self.letters), default=None)),
            "newest": _moment(max((letter.first_failed_at for letter in self.letters), default=None)),
            **{standing.value: self.standings[standing] for standing in Standing},
            "left_out": [one.document() for one in self.left_out],
            "beyond_limit": self.beyond_limit,
        }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def plan(
    letters: Iterable[Letter],
    standing: Callable[[Letter], Standing],
    *,
    overwrite_idm: bool = False,
    limit: int | None = None,
) -> Plan:
    """Which of the selected live letters are replayed. `standing` is only asked until `limit` is reached."""
    chosen: list[Letter] = []
    standings: Counter[Standing] = Counter()
    left_out: list[LeftOut] = []
    beyond = 0
    for letter in letters:
        if limit is not None and len(chosen) >= limit:
            beyond += 1
            continue
        found = standing(letter)
        out = _left_out(letter, found, overwrite_idm=overwrite_idm)
        if out is None:
            chosen.append(letter)
            standings[found] += 1
        else:
            left_out.append(out)
    return Plan(tuple(chosen), standings, tuple(left_out), beyond)


def _left_out(letter: Letter, standing: Standing, *, overwrite_idm: bool) -> LeftOut | None:
    if letter.replays >= MOST_REPLAYS:
        repair = "find out why it comes back: `passrelay dead show ID`; then capture the user again, and discard it"
        return LeftOut(letter, f"was replayed {letter.replays} times already", repair)
    rebind = repair_commands.rebind(letter.account, letter.guid, letter.domain)
    if standing is Standing.NEVER_WRITTEN and not overwrite_idm:
        why = "the user's password was changed in IdM since, and none of AD's was ever written there"
        return LeftOut(letter, why, f"if AD's is the right one: {rebind}, then --overwrite-idm")
    if standing is Standing.NEVER_WRITTEN:
        # The consumer's own rule would end it as superseded (idm_newer), and the letter would be gone.
        why = "the consumers keep the password that IdM has: the entry has no marker"
        return LeftOut(letter, why, f"if AD's is the right one: {rebind}, then once more")
    if standing is Standing.CHANGED_IN_IDM and not overwrite_idm:
        why = "the user's password was changed in IdM itself since"
        return LeftOut(letter, why, "if AD's is the right one: --overwrite-idm; else discard it")
    if standing is Standing.NOT_KNOWN and not overwrite_idm:
        return LeftOut(letter, NOBODY_KNOWS, "if AD's is the right one in any case: --overwrite-idm")
    return None


@dataclass
class Done:
    """What a run has done so far."""

    replayed: int = 0
    changed: int = 0
    """Not replayed: discarded, replayed or dead anew since the plan."""
    unreadable: list[Letter] = field(default_factory=list)
    """Their envelope is not in the stream (any more)."""


def run(
    connection: BlockingConnection,
    letters: Letters,
    chosen: Sequence[Letter],
    act: Act,
    *,
    done: Done,
    rate: int = DEFAULT_RATE,
    stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Replay the chosen of `letters`, in the stream's order, `rate` a second, until `stop`; `done` counts along.

    Before each batch the stream is asked what became of its letters since. What another operator does in the tenths of
    a second between that and our record does no harm: a letter that was replayed stays replayed.
    UnavailableError when the broker takes no more; what was published until then is on record.
    """
    channel = ConfirmingChannel(connection)
    began = monotonic()
    with Tail(connection, DEAD, after=letters.end) as tail:
        for batch in _batches(connection, chosen, max(1, min(MOST_AT_ONCE, rate // 4)), done):
            if stop():
                return
            letters.read(tail.new())
            live = [sealed for sealed in batch if sealed.letter.state is State.LIVE and sealed.is_newest]
            done.changed += len(batch) - len(live)
            _publish(channel, live, act, done)
            advance(len(batch))
            connection.sleep(max(0.0, began + done.replayed / rate - monotonic()))


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A letter with its envelope, as the stream has it."""

    letter: Letter
    offset: int
    envelope: bytes

    @property
    def is_newest(self) -> bool:
        """It has not failed anew since."""
        return self.letter.offset == self.offset

    @property
    def header(self) -> ProtectedHeader | None:
        try:
            return Envelope.parse(self.envelope).header
        except EventError:
            return None


def _batches(
    connection: BlockingConnection, chosen: Sequence[Letter], size: int, done: Done
) -> Iterator[list[_Sealed]]:
    """The chosen letters with their envelopes; what has none is counted in `done`."""
    wanted = {letter.offset: letter for letter in chosen}
    batch: list[_Sealed] = []
    if wanted:
        last = max(wanted)
        for message in read(connection, DEAD, since=min(wanted)):
            letter = wanted.get(message.offset)
            envelope = None if letter is None else envelope_of(message)
            if letter is not None and envelope is not None:
                del wanted[message.offset]
                batch.append(_Sealed(letter, message.offset, envelope))
            if len(batch) >= size or (batch and message.offset >= last):
                yield batch
                batch = []
            if message.offset >= last:
                break
    if batch:
        yield batch
    done.unreadable += wanted.values()


def envelope_of(message: StreamMessage) -> bytes | None:
    """The envelope in a letter's message, as the consumer or the broker put it there."""
    record = read_record(message)
    if record is None:
        return None
    try:
        return record.envelope_bytes
    except EventError:
        return None


def _publish(channel: ConfirmingChannel, sealed: Sequence[_Sealed], act: Act, done: Done) -> None:
    numbers = [one.letter.replays + 1 for one in sealed]
    safe = channel.publish(
        Outgoing(EVENTS, one.envelope, envelope_properties(one.header, replays=number))
        for one, number in zip(sealed, numbers, strict=True)
    )
    records = [act.record(sealed[place].letter, Verdict.REPLAYED, replays=numbers[place]) for place in sorted(safe)]
    recorded = channel.publish(Outgoing(DEAD, record.encode(), record_properties(record)) for record in records)
    done.replayed += len(recorded)
    if len(recorded) < len(sealed):
        raise UnavailableError(
            f"exchange {EVENTS}: took {len(safe)} of {len(sealed)} letters, {DEAD} {len(recorded)} records: a queue is "
            "full or not bound: let the consumers work it off, run `passrelay topology check`, then the same again"
        )
