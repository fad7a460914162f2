"""Which IdM server takes writes now: one ordered list, the same on every consumer, probed before and during use."""

from __future__ import annotations

import secrets
import string
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from tenacity import Retrying, retry_if_result, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from passrelay_consumer.directory import Directory, ProbeResult
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.secret import Secret

_LONGEST_WAIT_SECONDS = 5.0
"""Between probes of servers that are all down: service is back within seconds, and a probe costs next to nothing."""

CLOCK_TOLERANCE = timedelta(seconds=60)
"""A server's clock that differs more from ours is worth a warning; its own time is used in any case."""

UNREACHABLE = frozenset({"connect", "bind"})
"""A probe that failed here says that the server cannot be read either."""

OnProbe = Callable[[str, ProbeResult], None]


def probe_password() -> Secret:
    """A random password of 175 bits with every class of characters, which no policy takes for part of the entry's name.

    389-ds refuses a password with three characters in a row from the entry's uid (passwordMinTokenLength): one in a
    hundred random ones, whose server then counted as down. No uid has these signs, and every second one is one.
    """
    pairs = (secrets.choice(string.ascii_letters + string.digits) + secrets.choice("!#%+=~^") for _ in range(20))
    return Secret("a!A!1!" + "".join(pairs))


class _Server:
    """One server's last probe."""

    def __init__(self, url: str, settings: IdmSettings) -> None:
        self.url = url
        self.lock = threading.Lock()
        self.directory = Directory(url, settings)
        self.probed_at = float("-inf")
        self.result: ProbeResult | None = None
        self.good: ProbeResult | None = None
        """The last probe that was good."""
        self.good_unlisted_at = float("-inf")
        """When a probe was good although the list did not show us; monotonic."""


class Servers:
    """Probes, and the choice among servers. Safe for any number of threads."""

    def __init__(self, settings: IdmSettings, *, log: Log, on_probe: OnProbe | None = None) -> None:
        self._settings = settings
        self._servers = [_Server(url, settings) for url in settings.servers]
        self._log = log
        self._on_probe = on_probe

    def current(self) -> str | None:
        """The first server in the list whose last probe was good; a server never probed is probed now."""
        for server in self._servers:
            result = server.result or self._probe(server, since=time.monotonic())
            if result.ok:
                return server.url
        return None

    def others(self, url: str) -> list[str]:
        """Every listed server but this one."""
        return [server.url for server in self._servers if server.url != url]

    def unreachable(self, url: str) -> str:
        """Why the server cannot even be read, as its last probe showed; empty when it can."""
        server = self._by_url(url)
        result = server.result or self._probe(server, since=time.monotonic())
        return result.detail if result.check in UNREACHABLE else ""

    def expires_passwords(self, url: str) -> bool:
        """True when the server runs IPA's plugin, as its last good probe showed.

        Not the last one: while another worker's probe fails, a write that is under way must still be looked at.
        """
        good = self._by_url(url).good
        return good is not None and good.expires_passwords

    def life(self, url: str) -> timedelta | None:
        """How long passwords last there, as the last good probe showed; None when for ever."""
        good = self._by_url(url).good
        return good.life if good is not None else None

    def now(self, url: str) -> datetime:
        """The time by that server's own clock as its last probe showed it; by ours while that is not known.

        What is written to an entry is compared there with the server's times, whatever the clock of this host says.
        """
        result = self._by_url(url).result
        offset = result.clock_offset if result is not None else None
        return utc_now() + (offset or timedelta())

    def suspect(self, url: str, *, since: float) -> bool:
        """After a failed call that began at `since` (monotonic): probe, and tell whether the server is still good.

        Workers that fail together share one probe.
        """
        return self._probe(self._by_url(url), since=since).ok

    def takes_us(self, url: str, *, listed: bool) -> bool:
        """Whether the server is good for a write, from what its list of managers showed just now.

        Where the list does not show us the probe has the last word, and is believed for `probe_seconds`: the list may
        be hidden from us, or our right lie elsewhere, and then each event would cost a probe.
        """
        server = self._by_url(url)
        if listed:
            server.good_unlisted_at = float("-inf")
            return True
        now = time.monotonic()
        if now - server.good_unlisted_at < self._settings.probe_seconds:
            return server.result is not None and server.result.ok
        good = self._probe(server, since=now).ok
        if good:
            server.good_unlisted_at = now
        return good

    def close(self) -> None:
        """Drop the probes' connections."""
        for server in self._servers:
            with server.lock:
                server.directory.close()

    def watch(self, stop: threading.Event) -> None:
        """Probe the servers every `probe_seconds` until `stop`; to be run on a thread of its own."""
        while not stop.wait(self._settings.probe_seconds):
            for server in self._servers:
                if server.result is not None:
                    self._probe(server, since=time.monotonic())

    def wait_until_up(self, stop: threading.Event) -> None:
        """Return when a server passes its probe, or at `stop`: exponential backoff with full jitter, capped."""
        retrying = Retrying(
            retry=retry_if_result(lambda up: not up),
            wait=wait_random_exponential(multiplier=0.25, max=_LONGEST_WAIT_SECONDS),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            retry_error_callback=lambda _: False,
        )
        retrying(self._any_up)

    def _any_up(self) -> bool:
        now = time.monotonic()
        return any(self._probe(server, since=now).ok for server in self._servers)

    def _by_url(self, url: str) -> _Server:
        return next(server for server in self._servers if server.url == url)

    def _probe(self, server: _Server, *, since: float) -> ProbeResult:
        with server.lock:
            if server.result is not None and server.probed_at >= since:
                return server.result
            before = server.result
            result = server.directory.probe(probe_password())
            if result.check == "connect" and before is not None and before.ok:
                # A restarted server closes idle connections: one more try on a fresh one before it counts as down.
                server.directory.close()
                result = server.directory.probe(probe_password())
            if not result.ok:
                server.directory.close()
            server.result, server.probed_at = result, time.monotonic()
            if result.ok:
                server.good = result
        if self._on_probe is not None:
            self._on_probe(server.url, result)
        if before is None or before.ok != result.ok or before.check != result.check:
            self._report(server.url, result)
        if _clock_off(result) and not _clock_off(before):
            self._report_clock(server.url, result)
        return result

    def _report(self, url: str, result: ProbeResult) -> None:
        if result.ok:
            self._log.info(Action.DIRECTORY_UP, server=url)
        elif result.check == "expiry":
            self._log.error(Action.DIRECTORY_EXPIRES, server=url, why=result.detail, repair=result.repair)
        else:
            self._log.error(
                Action.DIRECTORY_DOWN, server=url, check=result.check, why=result.detail, repair=result.repair
            )

    def _report_clock(self, url: str, result: ProbeResult) -> None:
        self._log.warning(
            Action.CLOCK_OFF,
            server=url,
            ahead_seconds=round((result.clock_offset or timedelta()).total_seconds()),
            repair="set the clock of this host or of that IdM server, whichever is wrong (chrony on both); until then "
            "entries get the server's time",
        )


def _clock_off(result: ProbeResult | None) -> bool:
    return result is not None and result.clock_offset is not None and abs(result.clock_offset) > CLOCK_TOLERANCE
