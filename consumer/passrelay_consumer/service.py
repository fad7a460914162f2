"""The consumer process: threads, signals, the keyring's refresh, and a clean end."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Callable
from datetime import timedelta

from passrelay_consumer.brake import Brake
from passrelay_consumer.channel import EventChannel, WaitsForServers
from passrelay_consumer.directories import SharedDirectories
from passrelay_consumer.handler import Handler
from passrelay_consumer.journal import Journal
from passrelay_consumer.ledger import Ledger
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.pool import Handles, Pool
from passrelay_consumer.servers import Servers
from passrelay_schemas import __version__, metrics_page
from passrelay_schemas.fault import Faults
from passrelay_schemas.health import Health, Pulse, dead
from passrelay_schemas.hygiene import forbid_core_dumps, keep_out_of_swap, wipe_freed_memory
from passrelay_schemas.key_watch import KeyWatch
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.secret_file import read_secret_file
from passrelay_schemas.service_manager import supervised
from passrelay_schemas.settings import ConsumerSettings

_REFRESH_SECONDS = 2
_END_SECONDS = 60
"""How long a clean end may take: what a worker has in hand ends within LDAP's timeouts. systemd kills after 90 s."""
_CLOSE_SECONDS = 10
_TURN_SECONDS = 60
"""The main thread reads the keyring every other second: longer than this it hangs, on a file system for example."""


class Service:
    """One consumer with its broker session and workers."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        keyring: Keyring,
        make_handler: Callable[[], Handles],
        servers: WaitsForServers,
        metrics: ConsumerMetrics,
        log: Log,
    ) -> None:
        self._keys = KeyWatch(keyring, log)
        self._keyring = keyring
        self._metrics = metrics
        self._log = log
        # put() may be called by a signal handler; an Event's set() could wait for a lock that its own thread holds.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._faults = Faults(log, self.stop)
        self._pool = Pool(
            make_handler,
            settings.consumer.threads,
            journal=Journal(keyring, log),
            horizon=timedelta(hours=settings.idm.horizon_hours),
            settles=settings.idm.settles,
            log=log,
        )
        self._pulse = Pulse("main thread", most_seconds=_TURN_SECONDS)
        self._threads: list[threading.Thread] = []
        self._channel = EventChannel(
            settings,
            name=f"passrelay consumer {socket.gethostname()} {os.getpid()}",
            pool=self._pool,
            servers=servers,
            ledger=Ledger(metrics, Brake(settings.consumer.brake), log),
            metrics=metrics,
            faults=self._faults,
            log=log,
        )

    def start_thread(self, name: str, target: Callable[[], None]) -> None:
        """One more thread, whose unexpected exceptions end the process."""
        thread = threading.Thread(target=self._faults.guard(target), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """Ask for the end; safe in a signal handler and from any thread."""
        self._wakes.put(None)

    def health(self) -> Health:
        """What is wrong with this process, and what it lacks."""
        return Health(self._dead_or_stuck, self._not_ready)

    def _dead_or_stuck(self) -> list[str]:
        parts = (self._pulse, self._pool, self._channel)
        return [*dead(self._threads), *(trouble for part in parts for trouble in part.troubles())]

    def _not_ready(self) -> list[str]:
        troubles = [] if self._channel.connected else ["broker: not connected"]
        if not self._metrics.server_is_up:
            troubles.append("IdM: no server passes its probe")
        if self._channel.paused:
            troubles.append("consuming: paused")
        return troubles

    def serve(self) -> int:
        """Consume until `stop`: 0 after a clean end, 1 after an unexpected exception in any thread."""
        self.start_thread("broker", self._channel.run)
        broker = self._threads[-1]
        while not self._stop_was_asked():
            self._pulse.beat()
            if self._keys.look():
                self._metrics.watch_keys(self._keyring)
        if self._faults.error is None:
            self._channel.stop()
            broker.join(_END_SECONDS)
        self._channel.abandon()
        broker.join(_CLOSE_SECONDS)
        self._pool.close()
        return self._faults.exit_code()

    @property
    def connected(self) -> bool:
        """The broker is connected."""
        return self._channel.connected

    def _stop_was_asked(self) -> bool:
        try:
            self._wakes.get(timeout=_REFRESH_SECONDS)
        except queue.Empty:
            return False
        return True


def run(settings: ConsumerSettings) -> int:
    """Consume until SIGTERM or SIGINT; the process's exit code. ConfigurationError when it cannot start."""
    forbid_core_dumps()
    keep_out_of_swap()
    wipe_freed_memory()
    log = Log("consumer")
    read_secret_file(settings.idm.password_file, what="[idm] password_file")  # now, not at the first event
    keyring = Keyring.of(settings.keys)
    metrics = ConsumerMetrics()
    metrics.watch_keys(keyring)
    metrics.watch_certificates(settings.broker, settings.idm.ca_file)
    servers = Servers(settings.idm, log=log, on_probe=metrics.probed)
    shared = SharedDirectories(settings.idm, settings.consumer.workers)
    service = Service(
        settings,
        keyring=keyring,
        make_handler=lambda: Handler(settings, keyring=keyring, servers=servers, directories=shared.of_this_thread()),
        servers=servers,
        metrics=metrics,
        log=log,
    )
    metrics.watch(broker=lambda: service.connected)
    stop_page = metrics_page.serve(metrics.registry, service.health(), settings.metrics, log)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())

    def watch_servers() -> None:
        servers.current()  # at once: whether this consumer can work must be known before the first event
        servers.watch(ended)

    service.start_thread("watch-servers", watch_servers)
    log.info(Action.STARTED, version=__version__, workers=settings.consumer.workers, prefetch=settings.consumer.held)
    try:
        with supervised(service.health().alive):
            code = service.serve()
    finally:
        ended.set()
        stop_page()
    log.info(Action.STOPPED, exit_code=code)
    return code
