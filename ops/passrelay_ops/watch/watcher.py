"""One connection that follows the dead stream and the news, and asks for the depth of every queue.

It reads only, so any number may run. A lost connection comes back for ever; what was seen before is forgotten, because
the streams tell it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from datetime import datetime

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from passrelay_ops.connection import connect
from passrelay_ops.dead_letters import Letters
from passrelay_ops.doctor.greeting import certificate_end
from passrelay_ops.doctor.producers import expected
from passrelay_ops.news import judge, succeeds
from passrelay_ops.stream import Tail
from passrelay_ops.watch.metrics import WatchMetrics
from passrelay_ops.watch.sight import Depth, Sight, live, voices
from passrelay_schemas import topology
from passrelay_schemas.errors import ConfigurationError, PassrelayError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.health import Health, Pulse
from passrelay_schemas.key_watch import KeyWatch
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.news import News
from passrelay_schemas.settings import OpsSettings

_LOOK_SECONDS = 5
_TRUE_SECONDS = 120
"""An older look is not shown: better no number than a false one."""
_SESSION_SECONDS = 86_400
"""Then the streams are read anew: letters that they have dropped meanwhile are forgotten."""
_CERTIFICATE_SECONDS = 3600
"""A connection that stays shows the certificate it began with, so the broker's is asked for anew."""
_STUCK_SECONDS = 900
"""To read a full dead stream takes minutes."""


class Watcher:
    """Looks until `stop`, on the thread that calls `run`."""

    def __init__(self, settings: OpsSettings, keyring: Keyring, log: Log) -> None:
        self._settings = settings
        self._keyring = keyring
        self._keys = KeyWatch(keyring, log)
        self._log = log
        self._stop = threading.Event()
        self._pulse = Pulse("watching", most_seconds=_STUCK_SECONDS)
        self._sight: Sight | None = None
        self._seen_at = float("-inf")
        self._certificate_due = float("-inf")
        self.metrics = WatchMetrics(self.sight)

    def stop(self) -> None:
        """Ask for the end; from any thread but the one that runs, and not in a signal handler."""
        self._stop.set()

    def sight(self) -> Sight | None:
        """The last look; None while there is none that is young enough to be true."""
        return self._sight if time.monotonic() - self._seen_at < _TRUE_SECONDS else None

    def health(self) -> Health:
        """Alive: the loop turns. Ready: the last look is true."""
        return Health(self._pulse.troubles, lambda: [] if self.sight() else ["broker: cannot be looked at"])

    def run(self) -> None:
        """Until `stop`."""
        while not self._stop.is_set():
            retrying = Retrying(
                retry=retry_if_exception_type(PassrelayError),
                wait=wait_random_exponential(multiplier=0.5, max=30),
                stop=stop_when_event_set(self._stop),
                sleep=sleep_using_event(self._stop),
                before_sleep=self._report,
                retry_error_callback=lambda _: None,
            )
            retrying(self._session)

    def _report(self, state: RetryCallState) -> None:
        self._pulse.beat()
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            repair = "passrelay's metrics of letters and producers are missing until it is back"
            if isinstance(error, ConfigurationError):
                repair = "repair it; this process tries again by itself"
            self._log.warning(Action.BROKER_LOST, broker=self._settings.broker.shown, why=str(error), repair=repair)

    def _session(self) -> None:
        """One connection, a day at most. Raises PassrelayError when the broker is not there or refuses."""
        ends = time.monotonic() + _SESSION_SECONDS
        try:
            with connect(self._settings.broker) as connection:
                letters = Letters(None, lambda _: None)
                heard: dict[str, News] = {}
                with (
                    Tail(connection, topology.DEAD, after=None) as dead,
                    Tail(connection, topology.NEWS, after=None) as news,
                ):
                    self._log.info(Action.BROKER_CONNECTED, broker=self._settings.broker.shown)
                    first = True
                    while not self._stop.is_set() and time.monotonic() < ends:
                        self._refresh_keys()
                        self._look_at_certificate()
                        letters.read(dead.new())
                        found = judge(news.new(), self._keyring)
                        heard |= _newer(found.news, heard, utc_now())
                        for one in () if first else found.unbelieved:
                            self.metrics.refused(one.reason)
                        self._look(connection, letters, heard)
                        first = False
                        self._rest(connection)
        finally:
            self._sight = None

    def _look(self, connection: BlockingConnection, letters: Letters, heard: dict[str, News]) -> None:
        now = utc_now()
        waiting, expiring = live(letters.by_first_failure(), now)
        channel = connection.channel()
        self._sight = Sight(
            live=waiting,
            expiring=expiring,
            work=_depth(channel, topology.EVENTS),
            tiers={tier.name: _depth(channel, tier.queue) for tier in topology.TIERS},
            voices=voices(self._expected(), heard, now),
            at=now,
        )
        channel.close()
        self._seen_at = time.monotonic()
        self._pulse.beat()

    def _look_at_certificate(self) -> None:
        if time.monotonic() >= self._certificate_due:
            self._certificate_due = time.monotonic() + _CERTIFICATE_SECONDS
            self.metrics.show_broker_certificate(certificate_end(self._settings.broker))

    def _expected(self) -> Collection[str]:
        return expected(self._settings, list(self._keyring.documents()))

    def _rest(self, connection: BlockingConnection) -> None:
        until = time.monotonic() + _LOOK_SECONDS
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            connection.sleep(min(left, 0.5))  # which answers the broker's heartbeats

    def _refresh_keys(self) -> None:
        if self._keys.look():
            self.metrics.watch_keys(self._keyring)


def _depth(channel: BlockingChannel, queue: str) -> Depth:
    found = channel.queue_declare(queue, passive=True).method
    return Depth(messages=found.message_count, consumers=found.consumer_count)


def _newer(found: Mapping[str, News], known: Mapping[str, News], now: datetime) -> dict[str, News]:
    return {name: news for name, news in found.items() if succeeds(news, known.get(name), now)}
