"""One AD account, its events, and consumers with the real code between the events and servers in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from passrelay_consumer.directory import Directory
from passrelay_consumer.disposition import Again, Disposition, Dropped, Final, Later, Settled, dispose
from passrelay_consumer.handler import Handler
from passrelay_consumer.opening import Opened, Trusted
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_consumer.progress import Progress
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.envelope import ProtectedHeader
from passrelay_schemas.event import Kind, PasswordChanged
from passrelay_schemas.filetime import UNITS_PER_SECOND, from_datetime
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.message import Counters
from passrelay_schemas.order import Order
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Verdict
from tests.unit.builders import DOMAIN, DOMAIN_SID, PASSWORD, PRODUCER, event
from tests.unit.suppliers import BEGIN, MemoryDirectory, Supplier

_HORIZON = timedelta(hours=24)
_NEVER_TRIED = Counters()


class CrashError(Exception):
    """The consumer's process is gone."""


@dataclass(frozen=True)
class Captured:
    """One event, as one domain controller captured it."""

    event: PasswordChanged
    event_id: UUID
    place: tuple[int, int, int]
    """Where AD itself puts the change: version, second, and in a domain without versions the order of capture."""


@dataclass(frozen=True)
class Message:
    """A message that is not acked; the number of its event is its body."""

    number: int
    counters: Counters = _NEVER_TRIED


@dataclass
class Fate:
    """What happens around one consumer's calls to directories."""

    before_call: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    """By the number of the call, from 1."""
    dies_after_modify: int = 0
    dies_after_publish: int | None = None
    """After so many publishes, before the next one or the ack."""
    calls: int = 0
    modifies: int = 0

    def before(self) -> None:
        self.calls += 1
        self.before_call.get(self.calls, lambda: None)()

    def after_modify(self) -> None:
        self.modifies += 1
        if self.modifies == self.dies_after_modify:
            raise CrashError


class _Choice:
    """What the handler asks of Servers: which one is current, which others can be seen."""

    def __init__(self, suppliers: list[Supplier], current: int, *, blind: bool) -> None:
        self._suppliers = {one.url: one for one in suppliers}
        self._current = suppliers[current].url
        self._blind = blind

    def current(self) -> str:
        return self._current

    def others(self, url: str) -> list[str]:
        return [other for other in self._suppliers if other != url]

    def unreachable(self, url: str) -> str:
        return "cut off" if self._blind else ""

    def expires_passwords(self, url: str) -> bool:
        return True

    def suspect(self, url: str, *, since: float) -> bool:
        return True

    def takes_us(self, url: str, *, listed: bool) -> bool:
        return listed

    def now(self, url: str) -> datetime:
        return self._suppliers[url].now


class _Consumer(Handler):
    """The real handler behind step 6: what it trusts is handed to it, where it looks is in memory."""

    def __init__(self, world: World, choice: _Choice, fate: Fate) -> None:
        super().__init__(world.settings, keyring=cast("Any", None), servers=cast("Any", choice))
        self._world = world
        self._fate = fate

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        return [self._trusted(delivery) for delivery in deliveries]

    def _trusted(self, delivery: Delivery) -> Trusted:
        captured, counters = self._world.captured[int(delivery.body)], delivery.counters
        header = ProtectedHeader(
            suite="x", recipient_key_id="k" * 26, producer=PRODUCER, domain=DOMAIN, event_id=captured.event_id
        )
        progress = Progress(
            header=header,
            authentic=True,
            event=captured.event,
            settling=counters.settle > 0,
            settle_since=counters.settle_since,
        )
        return Trusted(captured.event, self._world.settings.domain[0], progress)

    def _on(self, url: str) -> Directory:
        supplier = next(one for one in self._world.suppliers if one.url == url)

        def before() -> None:
            self._fate.before()
            self._world.tick()

        return MemoryDirectory(supplier, self._world.settings.idm, before=before, after_modify=self._fate.after_modify)


class World:
    """`ahead`: how far each server's clock is ahead, in seconds."""

    def __init__(self, *ahead: int, order: Order = Order.KVNO) -> None:
        self.suppliers = [Supplier(number, seconds) for number, seconds in enumerate(ahead)]
        for one in self.suppliers:
            one.peers = [other for other in self.suppliers if other is not one]
        idm = IdmSettings(
            servers=tuple(one.url for one in self.suppliers),
            ca_file=Path("ca"),
            bind_dn="uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
            password_file=Path("password"),
        )
        domain = DomainSettings(name=DOMAIN, sid=DOMAIN_SID, order=order, search_base="dc=idm,dc=test")
        self.settings = ConsumerSettings.model_construct(idm=idm, domain=(domain,))
        self.captured: list[Captured] = []
        self.messages: list[Message] = []
        self.recorded: set[int] = set()

    def capture(self, kvno: int, *, second: int = 0, must: bool = False, tick: bool = False) -> Message:
        """An event in the queue. One kvno and second is one password; kvno 0 where time is the order."""
        number = len(self.captured)
        made = event(
            None if tick else f"{PASSWORD}-{kvno}-{second}",
            kvno=kvno,
            changed_at=from_datetime(BEGIN) + second * UNITS_PER_SECOND,
            must_change=must or tick,
            kind=Kind.EXPIRE if tick else Kind.CHANGE,
        )
        event_id = UUID(int=(1_700_000_000_000 + number) << 80 | 0x7 << 76 | 0b10 << 62)
        self.captured.append(Captured(made, event_id, (kvno, second, 0 if kvno else number)))
        self.messages.append(Message(number))
        return self.messages[-1]

    def copy_of(self, message: Message) -> Message:
        """The event's settle copy."""
        return next(one for one in self.messages if one.number == message.number and one.counters.settle)

    def replicate(self, source: int, target: int, most: int = 1) -> None:
        for _ in range(most):
            self.suppliers[target].receive(source)

    def tick(self) -> None:
        for one in self.suppliers:
            one.time += 1

    def work(self, message: Message, current: int, fate: Fate | None = None, *, blind: bool = False) -> Outcome:
        """A consumer takes the message; `current` is its current server, `blind`: it cannot reach the others."""
        fate = fate or Fate()
        consumer = _Consumer(self, _Choice(self.suppliers, current, blind=blind), fate)
        outcome = consumer.handle(Delivery(str(message.number).encode(), message.counters, BEGIN))
        assert isinstance(outcome, Outcome)
        assert outcome.verdict is not Verdict.DEAD, outcome
        disposition = dispose(outcome, message.counters, horizon=_HORIZON, settles=self.settings.idm.settles)
        publishes = self._publishes(message, disposition)
        for publish in publishes[: fate.dies_after_publish]:
            publish()
        if fate.dies_after_publish is not None:
            raise CrashError
        if message in self.messages:  # else another consumer, which had the same message, was faster
            self.messages.remove(message)
        return outcome

    def dies(self, message: Message, current: int, fate: Fate) -> None:
        """A consumer that dies with the message in hand."""
        try:
            self.work(message, current, fate)
        except CrashError:
            return
        raise AssertionError("it did not die")

    def _publishes(self, message: Message, disposition: Disposition) -> list[Callable[[], None]]:
        """What the channel publishes before it acks, in the order of journal.py."""
        outcome, counters = disposition.outcome, message.counters
        since = counters.settle_since or outcome.written_at
        match disposition:
            case Final(settle=settle):
                records = [lambda: self.recorded.add(message.number)]
                return [*records, *([self._send(message, Counters(settle=1, settle_since=since))] if settle else [])]
            case Later(attempt=attempt):
                return [self._send(message, Counters(attempt=attempt))]
            case Again(round=number):
                return [self._send(message, Counters(settle=number, settle_since=since))]
            case Settled() | Dropped():
                return []

    def _send(self, message: Message, counters: Counters) -> Callable[[], None]:
        return lambda: self.messages.append(replace(message, counters=counters))

    def settle_down(self) -> None:
        """Nothing fails any more: everything ends, and ends right."""
        for _ in range(40 * len(self.messages) + 400):
            while any(one.receive(other) for one in self.suppliers for other in range(len(self.suppliers))):
                pass
            if not self.messages:
                break
            message = self.messages.pop(0)
            self.messages.append(message)
            self.work(message, 0)
        assert not self.messages, "it never ends"
        assert self.recorded == set(range(len(self.captured)))
        changes = [one for one in self.captured if one.event.kind is not Kind.EXPIRE]
        newest = max(changes, key=lambda one: one.place)
        must = any(
            one.event.must_change
            and (one.place == newest.place or (one.event.kind is Kind.EXPIRE and one.event.kvno == newest.event.kvno))
            for one in self.captured
        )
        for one in self.suppliers:
            assert newest.event.password is not None
            assert one.password == newest.event.password.reveal()
            assert one.expired == must
