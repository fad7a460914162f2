"""The watching process: signals, its page, and a clean end."""

from __future__ import annotations

import queue
import signal
import threading

from passrelay_ops.watch.watcher import Watcher
from passrelay_schemas import __version__, metrics_page
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.fault import Faults
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.service_manager import supervised
from passrelay_schemas.settings import OpsSettings

_END_SECONDS = 15


def run(settings: OpsSettings) -> int:
    """Watch until SIGTERM or SIGINT: the exit code. ConfigurationError without [metrics] listen."""
    if settings.metrics.listen is None:
        raise ConfigurationError('[metrics] listen is not set, so nobody would see anything: "127.0.0.1:9466"')
    log = Log("watch")
    keyring = Keyring.of(settings.keys)
    watcher = Watcher(settings, keyring, log)
    watcher.metrics.watch_keys(keyring)
    watcher.metrics.watch_certificates(settings.broker)
    # put() may be called by a signal handler; an Event's set() could wait for a lock that its own thread holds.
    wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
    faults = Faults(log, lambda: wakes.put(None))
    stop_page = metrics_page.serve(watcher.metrics.registry, watcher.health(), settings.metrics, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wakes.put(None))
    thread = threading.Thread(target=faults.guard(watcher.run), name="watch", daemon=True)
    thread.start()
    log.info(Action.STARTED, version=__version__)
    try:
        with supervised(watcher.health().alive):
            wakes.get()
    finally:
        watcher.stop()
        thread.join(_END_SECONDS)
        stop_page()
    code = faults.exit_code()
    log.info(Action.STOPPED, exit_code=code)
    return code
