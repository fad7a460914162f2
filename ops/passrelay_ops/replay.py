"""Replaying dead letters: published once more, confirmed, and only then recorded as replayed in their own stream.

A crash in between leaves a letter live that was published: it is published once more the next time, and the consumer
finds a duplicate. Sealed events are never opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.confirmed import Channel, ConfirmingChannel, Outgoing, Sent
from passrelay_ops.dead_letters import Letter, Letters, State, read_record
from passrelay_ops.operator_act import Act
from passrelay_ops.stream import StreamMessage, Tail, read
from passrelay_schemas.envelope import Envelope, ProtectedHeader
from passrelay_schemas.errors import EventError, UnavailableError
from passrelay_schemas.message import envelope_properties, record_properties
from passrelay_schemas.record import Record
from passrelay_schemas.topology import DEAD, EVENTS
from passrelay_schemas.verdict import Verdict

_READ_AT_ONCE = 1000
DEFAULT_RATE = 100
"""Letters per second: far below what consumers take, so that fresh changes do not wait behind old ones."""
MOST_AT_ONCE = 100
"""So many are published together, and with the next ones before their records are: twice as many are published once
more after a crash."""


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
    UnavailableError when the broker takes no more; what was published until then is on record, if it takes records.
    When the connection ends, `done` may not know of the last batches yet.
    """
    course = Course(ConfirmingChannel(connection), ConfirmingChannel(connection), act, done)
    began, published = monotonic(), 0
    with Tail(connection, DEAD, after=letters.end) as tail:
        for batch in _batches(connection, chosen, max(1, min(MOST_AT_ONCE, rate // 4)), done):
            if stop():
                break
            letters.read(tail.new())
            live = [sealed for sealed in batch if sealed.is_due]
            done.changed += len(batch) - len(live)
            course.publish(live)
            advance(len(batch))
            published += len(live)
            if (early := began + published / rate - monotonic()) > 0:
                course.record()  # a colleague who discards looks at the records
                connection.sleep(early)
    course.finish()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A letter with its envelope, as the stream has it."""

    letter: Letter
    offset: int
    envelope: bytes

    @property
    def is_due(self) -> bool:
        """Nobody has replayed or discarded it since, and it has not failed anew."""
        return self.letter.state is State.LIVE and self.letter.offset == self.offset

    @property
    def header(self) -> ProtectedHeader | None:
        """What stands beside the sealed part; None where the envelope cannot be read."""
        try:
            return Envelope.parse(self.envelope).header
        except EventError:
            return None


def _batches(connection: BlockingConnection, chosen: Sequence[Letter], size: int, done: Done) -> Iterator[list[Sealed]]:
    """The chosen letters with their envelopes, at most `size` at once; what has none is counted in `done`."""
    wanted = {letter.offset: letter for letter in chosen}
    batch: list[Sealed] = []
    if wanted:
        last = max(wanted)
        for number, message in enumerate(read(connection, DEAD, since=min(wanted)), 1):
            letter = wanted.get(message.offset)
            envelope = None if letter is None else envelope_of(message)
            if letter is not None and envelope is not None:
                del wanted[message.offset]
                batch.append(Sealed(letter, message.offset, envelope))
            # Also an empty one now and then: records wait for the next batch, and so does Ctrl-C.
            if len(batch) >= size or number % _READ_AT_ONCE == 0 or (batch and message.offset >= last):
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


class Course:
    """Letters, then their records; confirms of both come in while the next batch is read from the stream."""

    def __init__(self, channel: Channel, record_channel: Channel, act: Act, done: Done) -> None:
        # Two: what is published to a stream needs a channel of its own, see the consumer's `outlet`.
        self._channel = channel
        self._record_channel = record_channel
        self._act = act
        self._done = done
        self._letters = Sent()
        self._due: Sequence[Record] = ()
        """Their records, as of the moment that they were published: a letter may fail anew before it is recorded."""
        self._records = Sent()
        self._expected = 0
        """How many records were sent, of the batch before."""
        self._missing = 0
        """Letters and records that the broker did not take."""

    def publish(self, sealed: Sequence[Sealed]) -> None:
        """Publish these, and the records of those before. UnavailableError when the broker took not all until now."""
        self.record()
        if self._missing:
            self.finish()
        self._due = [self._act.record(one.letter, Verdict.REPLAYED, replays=one.letter.replays + 1) for one in sealed]
        self._letters = self._channel.send(
            Outgoing(EVENTS, one.envelope, envelope_properties(one.header, replays=one.letter.replays + 1))
            for one in sealed
        )

    def finish(self) -> None:
        """Wait until everything that was published is on record. UnavailableError when the broker took not all."""
        self.record()
        self._count()
        if self._missing:
            raise UnavailableError(
                f"exchange {EVENTS} or {DEAD}: did not take {self._missing} letters or their records: a queue is full "
                "or not bound: let the consumers work it off, run `passrelay topology check`, then the same again"
            )

    def record(self) -> None:
        """Publish the records of the letters that the broker took."""
        due, safe = self._due, self._channel.settle(self._letters)
        self._missing += len(due) - len(safe)
        self._due, self._letters = (), Sent()
        self._count()
        records = [due[place] for place in sorted(safe)]
        self._expected = len(records)
        self._records = self._record_channel.send(
            Outgoing(DEAD, one.encode(), record_properties(one)) for one in records
        )

    def _count(self) -> None:
        recorded = len(self._record_channel.settle(self._records))
        self._done.replayed += recorded
        self._missing += self._expected - recorded
        self._expected, self._records = 0, Sent()
