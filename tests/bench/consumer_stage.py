"""`python -m tests.bench.consumer_stage STAGE CONFIG COUNT`: one stage of the consumer alone, made of its own parts.

open     the work queue's deliveries are verified, opened, and acked with no record
journal  the work queue's deliveries get a record as if applied, confirmed, and are acked; nothing is opened or written
write    envelopes from standard input (base64 lines), opened before the clock starts: find, decide and one modify each

Prints events per second. A process of its own, as the consumer is: what it does at its start counts here too.
"""

from __future__ import annotations

import base64
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from passrelay_consumer.brake import Brake
from passrelay_consumer.channel import EventChannel
from passrelay_consumer.disposition import Disposition
from passrelay_consumer.handler import Handler
from passrelay_consumer.journal import Journal, Message
from passrelay_consumer.ledger import Ledger
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.opening import Opened
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_consumer.pool import Pool
from passrelay_consumer.servers import Servers
from passrelay_schemas import logs
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.fault import Faults
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.hygiene import forbid_core_dumps, wipe_freed_memory
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.verdict import Verdict

_PATIENCE_SECONDS = 900
_SOMEBODY = UUID(int=0x1234)

Kind = TypeVar("Kind", bound=Handler)


class OnlyOpens(Handler):
    """Steps 1 to 6: nothing is looked for or written."""

    def deliver(self, opened: Opened) -> Outcome | Hold:
        """Applied, it says of what is not refused."""
        if isinstance(opened, Outcome):
            return opened
        return opened.progress.outcome(Verdict.APPLIED, applied_at=opened.progress.now)


class OnlyAnswers(Handler):
    """None of the steps: what the journal needs is there at once."""

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        """Outcomes as of passwords that were applied."""
        return [self._applied(delivery) for delivery in deliveries]

    def _applied(self, delivery: Delivery) -> Outcome:
        header = Envelope.parse(delivery.body).header
        now = utc_now()
        return Outcome(Verdict.APPLIED, header=header, account="bench", guid=_SOMEBODY, applied_at=now, authentic=True)


class OnlyWrites(Handler):
    """Steps 7 to 10, apart from the others."""

    def prepared(self, raw: bytes) -> Opened:
        """Steps 1 to 6."""
        (opened,) = self.open([Delivery(raw, Counters(), utc_now())])
        return opened

    def write(self, prepared: Opened) -> None:
        """The rest; RuntimeError unless it was applied."""
        outcome = self.deliver(prepared)
        if isinstance(outcome, Hold):
            raise RuntimeError(f"not applied: {outcome.why}")  # noqa: TRY004 - it says that a server is away
        if outcome.verdict is not Verdict.APPLIED:
            raise RuntimeError(f"not applied: {outcome.verdict} {outcome.reason}")


class NoJournal(Journal):
    """Nothing to be published before the ack."""

    def messages(self, disposition: Disposition, delivery: Delivery) -> tuple[Message, ...]:
        """None."""
        return ()


class Counting(Ledger):
    """A ledger that knows when the first and the last of `count` deliveries were acked."""

    def __init__(self, metrics: ConsumerMetrics, log: Log, *, count: int) -> None:
        super().__init__(metrics, Brake(20), log)
        self._left = count
        self._count = count
        self._began = self._ended = 0.0
        self.done = threading.Event()

    def enter(self, disposition: Disposition, counters: Counters) -> bool:
        """As in the product, and counted."""
        pulled = super().enter(disposition, counters)
        self._ended = time.perf_counter()
        self._began = self._began or self._ended
        self._left -= 1
        if not self._left:
            self.done.set()
        return pulled

    @property
    def rate(self) -> float:
        """Per second, between the first and the last."""
        return (self._count - 1) / max(1e-6, self._ended - self._began)


class Stage:
    """The parts that the stages share."""

    def __init__(self, settings: ConsumerSettings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._log = Log("consumer")
        self._keyring = Keyring.of(settings.keys)
        self._servers = Servers(settings.idm, log=self._log)

    def consume(self, handler: type[Handler], journal: type[Journal]) -> float:
        """Deliveries of the work queue through the product's channel and pool, acked per second."""
        settings, metrics = self._settings, ConsumerMetrics()
        ledger = Counting(metrics, self._log, count=self._count)
        faults = Faults(self._log, ledger.done.set)
        pool = Pool(
            lambda: self._handler(handler),
            settings.consumer.workers,
            journal=journal(self._keyring, self._log),
            horizon=timedelta(hours=settings.idm.horizon_hours),
            settles=settings.idm.settles,
            log=self._log,
        )
        channel = EventChannel(
            settings,
            name="passrelay bench",
            pool=pool,
            servers=self._servers,
            ledger=ledger,
            metrics=metrics,
            faults=faults,
            log=self._log,
        )
        thread = threading.Thread(target=faults.guard(channel.run), daemon=True)
        thread.start()
        finished = ledger.done.wait(_PATIENCE_SECONDS)
        channel.stop()
        thread.join(_PATIENCE_SECONDS)
        pool.close()
        if not finished or faults.exit_code():
            raise RuntimeError("not every delivery was acked")
        return ledger.rate

    def write(self, bodies: Sequence[bytes]) -> float:
        """Find, decide and write; a connection for each of the workers, which its first event opens."""
        threads = self._settings.consumer.workers
        begin = threading.Barrier(threads + 1)
        faults = Faults(self._log, begin.abort)
        shares = [bodies[number::threads] for number in range(threads)]
        workers = [threading.Thread(target=faults.guard(self._writer(share, begin))) for share in shares]
        for worker in workers:
            worker.start()
        begin.wait(_PATIENCE_SECONDS)
        began = time.perf_counter()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
        self._servers.close()
        if faults.exit_code():
            raise RuntimeError("not every event was written")
        return (len(bodies) - threads) / seconds

    def _writer(self, share: Sequence[bytes], begin: threading.Barrier) -> Callable[[], None]:
        def work() -> None:
            handler = self._handler(OnlyWrites)
            first, *rest = [handler.prepared(raw) for raw in share]
            handler.write(first)
            begin.wait(_PATIENCE_SECONDS)
            for prepared in rest:
                handler.write(prepared)
            handler.close()

        return work

    def _handler(self, kind: type[Kind]) -> Kind:
        return kind(self._settings, keyring=self._keyring, servers=self._servers)


def main(name: str, config: Path, count: int) -> None:
    """Print the stage's rate."""
    forbid_core_dumps()
    wipe_freed_memory()
    settings = load(ConsumerSettings, config)
    logs.configure(settings.log.level)
    stage = Stage(settings, count)
    match name:
        case "open":
            rate = stage.consume(OnlyOpens, NoJournal)
        case "journal":
            rate = stage.consume(OnlyAnswers, Journal)
        case _:
            rate = stage.write([base64.b64decode(line) for line in sys.stdin.buffer])
    print(f"{rate:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
