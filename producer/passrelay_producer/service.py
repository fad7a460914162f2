"""The producer process, and what `passrelay producer` does to its spool by hand."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from uuid import UUID

from passrelay_producer.capture import Capture
from passrelay_producer.identity import Identity, wait_until_read
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.news import Newsroom
from passrelay_producer.publisher import Publisher
from passrelay_producer.sources import REPAIRS, Source
from passrelay_producer.spool import Spool
from passrelay_producer.spool_lock import alone
from passrelay_schemas import metrics_page
from passrelay_schemas.errors import ConfigurationError, SafetyError, UnavailableError
from passrelay_schemas.fault import Faults
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.health import Health, Pulse, dead
from passrelay_schemas.hygiene import forbid_core_dumps, keep_out_of_swap, wipe_freed_memory
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.service_manager import supervised
from passrelay_schemas.settings import ProducerSettings

_HOUSEKEEPING_SECONDS = 60
"""How often the spool is swept and news are sent."""
_END_SECONDS = 30
"""How long a thread may take to end. A source that waits longer for its directory (an LDAP call may take 300 s) ends
with the process: what it has not committed to the spool is read again at the next start."""


def run(settings: ProducerSettings, begun: Callable[[Service], None] = lambda service: None) -> int:
    """Capture and publish until SIGTERM, SIGINT or the end of standard input; the exit code.

    `begun` gets the service just before it serves: a manager that sends no signals calls its `stop`.
    ConfigurationError, SafetyError (another producer has this spool); 1 after an unexpected exception in a thread.
    """
    forbid_core_dumps()
    keep_out_of_swap()
    wipe_freed_memory()
    log = Log("producer")
    with Spool(settings.spool) as spool, alone(settings.spool.path.parent):
        service = Service(settings, spool, make_source(settings, log), log)
        begun(service)
        return service.serve()


def init(settings: ProducerSettings, everything: bool) -> None:
    """Commit the source's first cursor: from now on, or from the beginning.

    SafetyError where there is a cursor already and `everything` is False: what changed since would be skipped.
    """
    forbid_core_dumps()
    keep_out_of_swap()
    wipe_freed_memory()
    log = Log("producer")
    source = make_source(settings, log)
    with Spool(settings.spool) as spool, alone(settings.spool.path.parent):
        if spool.cursor() and not everything:
            raise SafetyError(
                f"spool {spool.path}: capturing has begun already; `--from now` would skip what changed since it last "
                "ran: just start the producer, or read everything again with `producer init --from all`"
            )
        spool.commit(source.initialise(spool, everything=everything), [])


def capture(settings: ProducerSettings, user: str | None) -> tuple[int, int]:
    """Capture the current password of one user, or of all (None), into the spool.

    How many events, and how many accounts the filter left out. A running producer publishes the events within about a
    second, another one at its start. ConfigurationError says why there is nothing to capture for `user`.
    """
    forbid_core_dumps()
    keep_out_of_swap()
    wipe_freed_memory()
    log = Log("producer")
    source = make_source(settings, log)
    with Spool(settings.spool) as spool:
        _check_initialised(settings, spool)
        identity = _identity(settings, log)
        taker = Capture(source, spool, identity, metrics=ProducerMetrics(spool), stop=threading.Event(), log=log)
        return taker.take(source.recapture(spool, user))


def recapture(settings: ProducerSettings, domain: str, guids: Sequence[UUID]) -> dict[UUID, str]:
    """Capture the current passwords of these accounts of a domain into the spool, over one connection.

    Who could not be captured, and why. ConfigurationError when this host has no controller of the domain.
    """
    if settings.source.samba is None:
        raise ConfigurationError("[source.samba] is missing: only a domain controller can capture passwords again")
    from passrelay_producer.sources.samba import SambaSource

    forbid_core_dumps()
    keep_out_of_swap()
    wipe_freed_memory()
    log = Log("producer")
    source = SambaSource(settings.source.samba, log, settings.filter)
    with Spool(settings.spool) as spool:
        _check_initialised(settings, spool)
        identity = _identity(settings, log)
        taker = Capture(source, spool, identity, metrics=ProducerMetrics(spool), stop=threading.Event(), log=log)
        taker.take(source.again(spool, domain, guids))
        wanted = set(guids)
        left = {item.guid: REPAIRS[item.reason] for item in spool.pending() if item.guid in wanted}
        return left | {guid: "[filter] leaves the account out" for guid in guids if spool.is_excluded(guid)}


def republish(settings: ProducerSettings, since: datetime) -> int:
    """Queue what was published at or after `since`, by this host's clock, again; how many events. Safe at any time.

    Also what is on its way now, and only when a running service signs with the keys that lie there: in both cases the
    key may have been revoked. What is on its way is not counted.
    ConfigurationError for a time in the future: then the clock was set back since, and nothing would be found.
    """
    now = utc_now()
    if since > now:
        raise ConfigurationError(
            f"--since {rfc3339(since)}: this host's clock says {rfc3339(now)}: set it right, or name how long ago: 24h"
        )
    wait_until_read(settings.keys.directory)
    with Spool(settings.spool) as spool:
        return spool.republish(since)


def make_source(settings: ProducerSettings, log: Log) -> Source:
    """The one source of the settings."""
    if settings.source.samba is not None:
        from passrelay_producer.sources.samba import SambaSource

        return SambaSource(settings.source.samba, log, settings.filter)
    if settings.source.stdin is not None:
        from passrelay_producer.sources.stdin import StdinSource

        return StdinSource(settings.source.stdin, settings.domain, settings.filter)
    if settings.source.hook is not None:
        from passrelay_producer.sources.hook import HookSource

        # The hook's records name their producer, so the source must know its own name.
        producer = Keyring.of(settings.keys).signer().document.producer or ""
        return HookSource(settings.source.hook, producer, log, settings.filter)
    raise ConfigurationError("[source]: no source is configured")


def _check_initialised(settings: ProducerSettings, spool: Spool) -> None:
    if settings.source.samba is not None and not spool.cursor():
        raise ConfigurationError(
            f"spool {spool.path}: nobody has said where to begin: run `passrelay producer init --from now|all` "
            "(now: on a first installation; all: when the spool was lost, every password is captured again)"
        )


def _identity(settings: ProducerSettings, log: Log) -> Identity:
    return Identity(settings.keys.directory, passphrase_file=settings.keys.passphrase_file, log=log)


class Service:
    """One running producer: a thread that captures, one that publishes (and has another sign for it).

    `stop` is safe in a signal handler.
    """

    def __init__(self, settings: ProducerSettings, spool: Spool, source: Source, log: Log) -> None:
        _check_initialised(settings, spool)
        self._settings = settings
        self._spool = spool
        self._log = log
        # put() may be called by a signal handler; an Event's set() could wait for a lock that its own thread holds.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asked = False
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._faults = Faults(log, self._wake)
        self._identity = _identity(settings, log)
        self._metrics = ProducerMetrics(spool, source.waiting)
        self._capture = Capture(source, spool, self._identity, metrics=self._metrics, stop=self._stop, log=log)
        self._newsroom = Newsroom(
            source, spool, self._identity, metrics=self._metrics, source_is_up=self._source_is_up, log=log
        )
        self._news_wanted = threading.Event()
        self._publisher = Publisher(
            settings.broker,
            spool,
            self._identity,
            metrics=self._metrics,
            faults=self._faults,
            log=log,
            ask_for_news=self._want_news,
        )
        self._pulse = Pulse("main thread", most_seconds=3 * _HOUSEKEEPING_SECONDS)
        self._capturing = threading.Thread(target=self._capture_all, name="capture", daemon=True)
        self._publishing = threading.Thread(target=self._faults.guard(self._publisher.run), name="publish", daemon=True)

    def stop(self) -> None:
        """Ask for a clean end, from anywhere."""
        self._asked = True
        self._wake()

    def serve(self) -> int:
        """Until `stop`, a fault, or the end of the input and of the queue; the exit code."""
        with ExitStack() as cleanup:
            cleanup.enter_context(_signals(self))
            self._metrics.watch(source=self._source_is_up, broker=lambda: self._publisher.connected)
            page = metrics_page.serve(self._metrics.registry, self.health(), self._settings.metrics, self._log)
            cleanup.callback(page)
            # Once: the session goes on with the certificates that it found at the start, whatever the files hold later.
            self._metrics.watch_certificates(self._settings.broker)
            self._log.info(Action.STARTED, producer=self._identity.producer, spool=str(self._spool.path))
            self._housekeep()
            self._pulse.beat()
            self._publishing.start()
            self._capturing.start()
            try:
                with supervised(self._dead_or_stuck):
                    self._wait()
            finally:
                self._end()
        self._log.info(Action.STOPPED, queued=self._spool.queued_count())
        return self._faults.exit_code()

    def health(self) -> Health:
        """What is wrong with this process, and what it lacks. It needs no broker: the spool takes events."""
        return Health(self._dead_or_stuck, self._capture.troubles)

    def _dead_or_stuck(self) -> list[str]:
        threads = [self._publishing] if self._ended.is_set() else [self._publishing, self._capturing]
        return [*dead(threads), *self._pulse.troubles(), *self._publisher.troubles()]

    def _source_is_up(self) -> bool:
        """From any thread; an input that has ended lacks nothing."""
        return self._capture.source_is_up or self._ended.is_set()

    def _wake(self) -> None:
        self._wakes.put(None)

    def _want_news(self) -> None:
        self._news_wanted.set()
        self._wake()

    def _capture_all(self) -> None:
        self._faults.guard(self._capture.run)()
        # Only standard input ends by itself: then what is queued is published, and each mark may be the last.
        self._spool.watch(self._wake)
        self._ended.set()
        self._wake()

    def _wait(self) -> None:
        due = time.monotonic() + _HOUSEKEEPING_SECONDS
        while not self._asked and self._faults.error is None:
            self._pulse.beat()
            if self._ended.is_set() and not self._spool.has_queued():
                return
            with suppress(queue.Empty):
                self._wakes.get(timeout=max(0.0, due - time.monotonic()))
            if time.monotonic() >= due:
                self._housekeep()
                self._news_wanted.set()
                due = time.monotonic() + _HOUSEKEEPING_SECONDS
            if self._news_wanted.is_set():
                self._news_wanted.clear()
                self._tell_news()

    def _end(self) -> None:
        """Capturing first: what it has in hand is committed and published at the next start at the latest."""
        self._stop.set()
        self._capturing.join(_END_SECONDS)
        if self._faults.error is None:
            self._tell_news(stopping=True)
        self._publisher.stop()
        self._publishing.join(_END_SECONDS)

    def _tell_news(self, *, stopping: bool = False) -> None:
        news = self._newsroom.write(stopping=stopping)
        if news is not None:
            self._publisher.tell(news)

    def _housekeep(self) -> None:
        try:
            self._spool.sweep()
        except UnavailableError as error:
            self._log.warning(Action.SPOOL_FULL, why=str(error), repair="free space on the spool's disk")
        self._metrics.watch_keys(self._identity.current())
        self._capture.report_fault()


@contextmanager
def _signals(service: Service) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a clean end, as long as the service runs; only the main thread can set that up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: service.stop()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
