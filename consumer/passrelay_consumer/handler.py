"""The twelve steps from bytes to a verdict: 1 to 6 are the opening's, 11 (journal) and 12 (ack) the channel's.

 7 find exactly one entry                8 decide from the marker                 9 one modify
10 after-write: expired at once? must change at next login?
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from passrelay_consumer.decide import Entry, Finish, Refuse, Settled, Write, decide, own_write
from passrelay_consumer.directories import Directories
from passrelay_consumer.directory import Directory, finish_changes, unexpire_changes, write_changes
from passrelay_consumer.lifetime import expires_at, password_life
from passrelay_consumer.opening import Opened, Opening
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_consumer.policy import in_plain_words
from passrelay_consumer.progress import Progress
from passrelay_consumer.protection import protection
from passrelay_consumer.result_codes import DirectoryError, Trouble
from passrelay_consumer.servers import Servers
from passrelay_consumer.settle import Sight, Unreachable, may_begin, unsettled
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.enrolment import order_key
from passrelay_schemas.errors import EventError, MalformedError, MarkerError, PolicyError, ProtectedError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.filetime import from_datetime, rfc3339
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.limits import MAX_AHEAD_SECONDS
from passrelay_schemas.marker import MUST_CHANGE_DONE, Marker
from passrelay_schemas.order import Order, OrderKey
from passrelay_schemas.secret import Secret
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import WAITING_REASONS, Reason, Verdict

_ROUNDS = 8
"""Compare-and-set rounds at one entry before the event waits in a tier."""


class EntryTroubleError(Exception):
    """The entry or its surroundings need a repair; the event waits."""

    def __init__(self, reason: Reason, diagnostic: str) -> None:
        self.reason = reason
        self.diagnostic = diagnostic
        super().__init__(diagnostic)


class _ServerTroubleError(Exception):
    """No server takes writes now."""


class Handler:
    """One worker's handler. Never raises for bad input."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        keyring: Keyring,
        servers: Servers,
        directories: Directories | None = None,
    ) -> None:
        """`directories`: connections that it shares with other workers; without, it has its own."""
        self._idm = settings.idm
        self._opening = Opening(settings.domain, keyring)
        self._servers = servers
        self._directories = directories or Directories(settings.idm)

    def close(self) -> None:
        """Drop the connections; whoever shares them opens new ones."""
        self._directories.close()

    def handle(self, delivery: Delivery) -> Outcome | Hold:
        """The verdict on one delivery, or Hold when no server takes writes."""
        (opened,) = self.open([delivery])
        return self.deliver(opened)

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        """Steps 1 to 6."""
        return self._opening.open(deliveries)

    def deliver(self, opened: Opened) -> Outcome | Hold:
        """The other steps, for what was not refused; Hold when no server takes writes."""
        if isinstance(opened, Outcome):
            return opened
        progress = opened.progress
        try:
            return self._deliver(opened.event, opened.domain, progress)
        except EventError as error:
            return progress.refused(error)
        except EntryTroubleError as error:
            return progress.outcome(Verdict.RETRY, error.reason, error.diagnostic)
        except _ServerTroubleError as error:
            return Hold(str(error))

    def _deliver(self, event: PasswordChanged, domain: DomainSettings, progress: Progress) -> Outcome:
        event_id = _event_id(progress)
        key = order_key(event, domain, event_id)
        for _ in range(_ROUNDS):
            directory = self._current_server()
            progress.server, progress.now = directory.url, self._servers.now(directory.url)
            _check_time(event, domain, progress.now)
            began = time.monotonic()
            try:
                # 7. Exactly one entry.
                entry = _exactly_one(directory, event, domain, self._idm.protected_groups)
                # 8. Decide from the marker.
                decision = decide(
                    event,
                    key=key,
                    event_id=event_id,
                    entry=entry,
                    epoch=domain.epoch,
                    carry_must_change=self._idm.carry_must_change,
                    idm_newer_wins=self._idm.initial == "idm-newer-wins",
                    times_kept=self._servers.expires_passwords(directory.url),
                    ours_within=own_write(self._idm.timeout_seconds),
                )
                match decision:
                    case Settled():
                        return self._settled(decision, entry, progress)
                    case Refuse():
                        waits = decision.reason in WAITING_REASONS
                        verdict = Verdict.RETRY if waits else Verdict.DEAD
                        return progress.outcome(verdict, decision.reason, decision.diagnostic)
                    case Finish():
                        self._finish(directory, entry, decision.old, progress.now)
                        progress.written_at = datetime.fromisoformat(decision.old.applied_at)
                        again = progress.wrote or progress.settling
                        verdict = Verdict.APPLIED if again else decision.verdict
                        return progress.outcome(verdict, applied_at=progress.now)
                    case Write() if progress.settling and not (entry.marker or may_begin(entry, progress.settle_since)):
                        raise EntryTroubleError(
                            Reason.REFUSED, "the entry has no marker and is not known to be as old as the write"
                        )
                    case Write() if self._lost_us(directory):
                        continue
                    case Write():
                        return self._write(directory, entry, event, key, progress)
            except DirectoryError as error:
                self._judge(error, directory, since=began)
            except MarkerError as error:
                raise EntryTroubleError(
                    Reason.REFUSED, f"{error}: no other program may use the marker attribute"
                ) from None
        raise EntryTroubleError(
            Reason.REFUSED, f"none of {_ROUNDS} rounds came to an end: another write or a lost connection"
        )

    def _write(
        self,
        directory: Directory,
        entry: Entry,
        event: PasswordChanged,
        key: OrderKey,
        progress: Progress,
    ) -> Outcome:
        # 9. One modify: password and marker together, exactly on top of the marker that was read.
        if event.password is None:
            raise MalformedError("an event without a password cannot be written")
        # Not the time of the search: what audit and the next event compare with is when IdM set the password.
        progress.now = self._servers.now(directory.url)
        new = Marker(
            epoch=key.epoch,
            kvno=event.kvno,
            changed_at=key.changed_at,
            guid=event.account.guid,
            event_id=_event_id(progress),
            applied_at=rfc3339(progress.now),
        )
        changes = write_changes(
            password=event.password,
            new=new,
            entry=entry,
            idm=self._idm,
            unlock_at=progress.now if self._idm.unlock else None,
        )
        try:
            directory.modify(entry.dn, changes)
        except DirectoryError as error:
            progress.wrote = progress.wrote or error.code is None
            words = _without(event.password, error.text)
            # IPA holds its policy against who is not listed: only a well server refuses the password itself.
            if error.trouble is Trouble.POLICY and self._servers.suspect(directory.url, since=time.monotonic()):
                raise PolicyError(in_plain_words(words)) from None
            raise DirectoryError(error.code, words) from None
        progress.wrote, progress.written_at = True, progress.now
        # 10. After-write: was it expired at once? Then must_change.
        if self._servers.expires_passwords(directory.url):
            self._unexpire(directory, entry, new)
        diagnostic = ""
        if event.must_change and self._idm.carry_must_change:
            if entry.kerberos:
                self._finish(directory, entry, new, progress.now)
            else:
                diagnostic = "must change at next login was not carried: the entry has no Kerberos attributes"
        return progress.outcome(Verdict.APPLIED, diagnostic=diagnostic, applied_at=progress.now)

    def _lost_us(self, directory: Directory) -> bool:
        """Looked at before each write: a server can take us off its list between two probes."""
        if not self._servers.expires_passwords(directory.url):
            return False
        listed = directory.lists_us()
        return listed is not None and not self._servers.takes_us(directory.url, listed=listed)

    def _unexpire(self, directory: Directory, before: Entry, written: Marker) -> None:
        """Put right at once what a server did that took us off its list in the moment of the write."""
        state = directory.read(before.dn)
        if state is None or not state.expired_at_once or state.marker != written or state.last_change is None:
            return
        life = password_life(before, probe=self._servers.life(directory.url))
        changes = unexpire_changes(
            marker=written,
            attribute=self._idm.marker_attribute,
            expires_at=expires_at(state.last_change, life),
        )
        try:
            directory.modify(before.dn, changes)
        except DirectoryError as error:
            self._servers.suspect(directory.url, since=time.monotonic())
            if error.trouble in (Trouble.RACE, Trouble.SERVER):
                raise
            why = f"{directory.url} expired the password at once: our DN is not in its passSyncManagersDNs"
            raise EntryTroubleError(Reason.NOT_LISTED, why) from None
        self._servers.suspect(directory.url, since=time.monotonic())

    def _finish(self, directory: Directory, entry: Entry, marker: Marker, now: datetime) -> None:
        # A second modify: in the first one IPA's plugin would overwrite krbPasswordExpiration (measured).
        directory.modify(
            entry.dn,
            finish_changes(
                old=marker,
                new=marker.with_flag(MUST_CHANGE_DONE),
                attribute=self._idm.marker_attribute,
                expired_at=now - timedelta(seconds=1),
            ),
        )

    def _settled(self, decision: Settled, entry: Entry, progress: Progress) -> Outcome:
        marker = entry.marker
        if decision.verdict is Verdict.DUPLICATE and progress.settling:
            others = self._servers.others(progress.server or "")
            why = unsettled(entry, {url: self._sight(url, entry.dn) for url in others})
            return replace(progress.outcome(decision.verdict), unsettled=why)
        progress.written_at = datetime.fromisoformat(marker.applied_at) if marker is not None else None
        if marker is None or marker.event_id != _event_id(progress):
            return progress.outcome(decision.verdict, decision.reason)
        # When our own write's answer was lost, it did arrive.
        verdict = Verdict.APPLIED if progress.wrote else decision.verdict
        applied_at = datetime.fromisoformat(marker.applied_at)
        return progress.outcome(verdict, decision.reason, applied_at=applied_at)

    def _sight(self, url: str, dn: str) -> Sight:
        """What another server shows of the entry."""
        why = self._servers.unreachable(url)
        if why:
            return Unreachable(why)
        began = time.monotonic()
        directory = self._on(url)
        try:
            return directory.read(dn)
        except DirectoryError as error:
            if error.trouble is Trouble.MISSING:
                return None
            if error.code is not None:
                directory.close()
            self._servers.suspect(url, since=began)
            return Unreachable(f"LDAP result {error.code}")
        except MarkerError as error:
            return Unreachable(str(error))

    def _current_server(self) -> Directory:
        url = self._servers.current()
        if url is None:
            raise _ServerTroubleError("no IdM server passes its probe")
        return self._on(url)

    def _on(self, url: str) -> Directory:
        return self._directories.on(url)

    def _judge(self, error: DirectoryError, directory: Directory, *, since: float) -> None:
        """Return when another round makes sense; raise otherwise."""
        trouble = error.trouble
        if trouble is Trouble.RACE:
            return
        if trouble is Trouble.MISSING:
            raise EntryTroubleError(Reason.USER_MISSING, "the entry was deleted meanwhile")
        if error.code is not None:  # without an answer it was given up already, and may be a new one by now
            directory.close()
        if not self._servers.suspect(directory.url, since=since):
            if self._servers.current() is None:
                # The server's words may name the entry; the probe's own words are in the log already.
                raise _ServerTroubleError(f"no IdM server takes writes (LDAP result {error.code})")
            return
        if trouble is Trouble.SERVER:
            # A lost connection or answer while the server is well: the marker tells whether the write arrived.
            return
        reason = Reason.ACCESS_DENIED if error.code == 50 else Reason.REFUSED
        raise EntryTroubleError(reason, str(error))


def _exactly_one(
    directory: Directory, event: PasswordChanged, domain: DomainSettings, protected_groups: Sequence[str]
) -> Entry:
    entries = directory.find(event.account, domain)
    if not entries:
        raise EntryTroubleError(Reason.USER_MISSING, f"no entry below {domain.search_base} matches")
    if len(entries) > 1:
        raise EntryTroubleError(Reason.AMBIGUOUS, f"more than one entry below {domain.search_base} matches")
    why = protection(entries[0], protected_groups)
    if why is not None:
        raise ProtectedError(why)
    return entries[0]


def _event_id(progress: Progress) -> UUID:
    if progress.header is None:
        raise RuntimeError("called before step 1")
    return progress.header.event_id


def _check_time(event: PasswordChanged, domain: DomainSettings, now: datetime) -> None:
    # With versions the time is only a tie-break; without, one date in the far future would shut out every later change.
    if domain.order is Order.TIME and event.changed_at > from_datetime(now + timedelta(seconds=MAX_AHEAD_SECONDS)):
        raise MalformedError("changed_at is more than a day ahead of IdM's clock: check the producer's clock")


def _without(password: Secret, words: str) -> str:
    # Not masked in place: what is left around a short password would tell it.
    return "the server's words hold the password and are not kept" if password.reveal() in words else words
