"""The promise: nothing lost, nothing stale, one outcome for each event; with real processes that die at random."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from passrelay_schemas import topology
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.verdict import FINAL, Verdict
from tests.lab.load import Change, Population
from tests.lab.process import LabError, wait_for
from tests.lab.relay import LineProducer, Relay

pytestmark = pytest.mark.acceptance


def _finals(relay: Relay) -> Counter[Verdict]:
    return Counter(found.verdict for found in relay.outcomes().values())


def _final_records(relay: Relay) -> Counter[Verdict]:
    """All of them: an event that was delivered twice has two."""
    return Counter(found.verdict for found in relay.records() if found.verdict in FINAL)


def _quiet(relay: Relay, event_ids: set[str], timeout_seconds: float = 180) -> None:
    """Every event has a final outcome and no queue holds anything."""
    wait_for(
        lambda: relay.journal_depth() >= len(event_ids) and event_ids <= relay.outcomes().keys(),
        what=f"{len(event_ids)} outcomes in the journal",
        timeout_seconds=timeout_seconds,
        interval_seconds=0.5,
    )
    streams = {topology.DEAD, topology.JOURNAL, topology.NEWS}
    waiting = {name for name in relay.broker.queue_depths() if name not in streams}
    held: dict[str, int] = {}

    def empty() -> bool:
        depths = relay.broker.queue_depths()
        held.clear()
        held.update({name: depths[name] for name in waiting if depths[name]})
        return not held

    try:
        # What the directory did not take at once may wait two minutes in its tier.
        wait_for(empty, what="empty queues", timeout_seconds=400)
    except LabError as error:
        waits = [service.lines("retry") for service in relay.services]
        raise LabError(f"{error}; still held: {held}; tries: {waits}") from None


def _ids(envelopes: Iterable[bytes]) -> set[str]:
    return {str(Envelope.parse(raw).event_id) for raw in envelopes}


def _replay_everything(relay: Relay) -> None:
    """Publish what each record has once more, and wait for as many outcomes."""
    records = relay.records()
    envelopes = [raw for found in records if (raw := found.envelope_bytes) is not None]
    relay.publish(envelopes)
    wait_for(
        lambda: relay.journal_depth() >= len(records) + len(envelopes),
        what="the replay's outcomes",
        timeout_seconds=120,
    )


def test_a_thousand_shuffled_changes_with_duplicates_end_with_the_newest(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 50, seed=1)
    envelopes = [sender.envelope(made.event()) for made in population.changes(1000)]
    shuffled = envelopes + population.random.choices(envelopes, k=150)
    population.random.shuffle(shuffled)
    for number in range(4):
        relay.consumer(f"consumer{number}", workers=8).start()
    relay.publish(shuffled)
    _quiet(relay, _ids(envelopes))
    wait_for(lambda: _final_records(relay).total() >= len(shuffled), what="an outcome of each duplicate")
    assert population.faults() == []
    finals = _finals(relay)
    assert finals.total() == 1000
    assert finals[Verdict.DEAD] == 0
    # Fewer writes than events: what was already superseded is not written, and nothing is written twice.
    applied = Counter(found.event_id for found in relay.records() if found.verdict is Verdict.APPLIED)
    assert len(applied) == applied.total() < 1000
    # The first final record of an event counts; what is delivered again only adds that nothing was to be done. Of two
    # copies at two consumers at once, the one that found the other's write may have its record in the journal first.
    # What was sent to a tier is not final.
    later = _final_records(relay) - finals
    assert set(later) <= {Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.APPLIED}
    assert finals[Verdict.APPLIED] + later[Verdict.APPLIED] == len(applied)
    assert later.total() == 150
    before = {name: relay.directory.read(name) for name in population.history}
    _replay_everything(relay)
    assert {name: relay.directory.read(name) for name in population.history} == before
    assert _finals(relay) == finals
    assert len(relay.records(topology.DEAD)) == 0


class Feeder:
    """Feeds lines to a producer that may die, again and again until each was answered: as any source would."""

    def __init__(self, relay: Relay, producer: LineProducer, changes: list[Change]) -> None:
        self._relay = relay
        self._producer = producer
        self._left = changes
        self.event_ids: set[str] = set()

    @property
    def done(self) -> bool:
        return not self._left

    def feed(self, count: int) -> None:
        """Feed some lines; those without an answer stay."""
        chunk, self._left = self._left[:count], self._left[count:]
        try:
            answers = self._producer.send([made.line() for made in chunk], timeout_seconds=120)
        except (BrokenPipeError, LabError):
            if self._producer.process.running:
                raise
            self._left = chunk + self._left
            return
        self.event_ids.update(answer["event_id"] for answer in answers)


def test_nothing_is_lost_when_everything_is_killed_twenty_times(relay: Relay) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 50, seed=seed)
    changes = population.changes(1000)
    dice.shuffle(changes)
    producer = relay.line_producer("dc1")
    producer.start()
    consumers = [relay.consumer(f"consumer{number}", workers=8) for number in range(4)]
    for consumer in consumers:
        consumer.start()

    def kill_producer() -> None:
        producer.write(made.line() for made in dice.choices(changes, k=5))  # unanswered: may or may not be in the spool
        producer.kill()
        producer.start()

    def kill_consumer() -> None:
        victim = dice.choice(consumers)
        victim.kill()
        victim.start()

    def kill_broker() -> None:
        relay.broker.kill()
        relay.broker.start()

    def kill_directory() -> None:
        relay.directory.kill()
        relay.directory.start()

    kills: list[Callable[[], None]] = (
        [kill_producer] * 6 + [kill_consumer] * 7 + [kill_broker] * 3 + [kill_directory] * 4
    )
    dice.shuffle(kills)
    points = sorted(dice.sample(range(20, 1000), len(kills)))
    feeder = Feeder(relay, producer, changes)
    fed = 0
    for point, kill in zip(points, kills, strict=True):
        while fed < point:
            step = min(25, point - fed)
            feeder.feed(step)
            fed += step
        kill()
    while not feeder.done:
        feeder.feed(50)
    wait_for(
        lambda: producer.metric("passrelay_spool_events", state="queued") == 0,
        what="an empty spool",
        timeout_seconds=120,
    )
    _quiet(relay, feeder.event_ids)
    assert population.faults() == []
    assert _finals(relay)[Verdict.DEAD] == 0
    before = {name: relay.directory.read(name) for name in population.history}
    _replay_everything(relay)
    assert {name: relay.directory.read(name) for name in population.history} == before


def test_a_directory_outage_of_a_minute_gives_no_dead_letter_and_heals_itself(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 20, seed=3)
    consumers = [relay.consumer(f"consumer{number}", workers=4) for number in range(2)]
    for consumer in consumers:
        consumer.start()
    before, meanwhile = ([sender.envelope(made.event()) for made in population.changes(count)] for count in (40, 60))
    relay.publish(before)
    relay.directory.kill()
    down_until = time.monotonic() + 60
    relay.publish(meanwhile)
    for consumer in consumers:
        wait_for(lambda service=consumer: service.lines("paused"), what="a paused consumer", timeout_seconds=60)  # type: ignore[misc]
    wait_for(lambda: time.monotonic() >= down_until, what="the minute", timeout_seconds=70)
    relay.directory.start()
    _quiet(relay, _ids(before + meanwhile), timeout_seconds=60)
    assert population.faults() == []
    assert _finals(relay)[Verdict.DEAD] == 0
    assert relay.records(topology.DEAD) == []
    assert all(consumer.lines("resumed") for consumer in consumers)
