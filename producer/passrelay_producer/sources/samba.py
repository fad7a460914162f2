"""Capture on a Samba domain controller: DirSync tells which accounts changed, one search each tells everything.

The database is asked whether it moved, as soon as its files are written and at short intervals; DirSync runs only when
it did. Nothing is remembered here but the cursor: what the spool did not commit is read again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from passrelay_producer.sources import About, Excluded, Memory, Page, PendingReason, Result
from passrelay_producer.sources.samba_commits import Commits, database_folder
from passrelay_producer.sources.samba_cursor import Cursor, newest
from passrelay_producer.sources.samba_directory import Change, SambaDirectory
from passrelay_producer.sources.samba_pulse import Pulse
from passrelay_producer.sources.samba_reader import REST, Reader, Sweep, parts
from passrelay_producer.sources.samba_scope import Moved, SambaScope
from passrelay_producer.supplemental import OpenPgpKeyFile
from passrelay_schemas.errors import ConfigurationError, KeyFileError, UnavailableError
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.source_settings import SambaSourceSettings

FULL_SECONDS = 30
"""DirSync runs at least this often, whatever the USN says."""
MOVE_SECONDS = 1
"""A connection that has to wait is replaced no more often than this."""
SWEEP_SECONDS = 60
SWEEP_ACCOUNTS = 100
"""Every SWEEP_SECONDS at most so many pending accounts are read again, in turn."""
QUIET_CURSOR_SECONDS = 60
"""A cursor that moved over nothing is committed no more often than this."""


class SambaSource:
    """The source `[source.samba]`. Raises UnavailableError when the controller cannot be asked."""

    def __init__(self, settings: SambaSourceSettings, log: Log, filters: FilterSettings | None = None) -> None:
        self._settings = settings
        self._filters = filters or FilterSettings()
        self._filtered = False
        """The filter was found good by this process."""
        self._log = log
        self._key = OpenPgpKeyFile(settings.gpg_key_file)
        self._about = About("samba")

    def initialise(self, memory: Memory, *, everything: bool) -> Page:
        """`producer init`: the cursor of now (users are listed once, without passwords), or an empty one for all.

        From now on includes whoever comes into the filter later, so those who are outside now are remembered.
        """
        with SambaDirectory(self._settings.ldapi_path) as directory:
            cursor = Cursor(b"", directory.invocation_id, directory.highest_usn())
            scope = self._scope(directory)
            if everything:
                return Page(cursor=cursor.mapping())
            cookie, more = b"", True
            while more:
                changes = directory.changes(cookie)
                cookie, more = changes.cookie, changes.more
            writes = {guid: usn for guid, usn in directory.writes(since=1).items() if usn is not None}
            excluded = [Excluded(rule, guid) for guid, rule in scope.excluded()]
            cursor = replace(cursor, cookie=cookie, witnesses=newest(writes))
            return Page(cursor=cursor.mapping(), excluded=excluded)

    def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
        """Changes as they come, until `stop`; a cursor that stands in a page is safe to commit with it."""
        cursor = Cursor.parse(memory.cursor())
        self._report_key()
        path = self._settings.ldapi_path
        with Commits(database_folder(path)) as commits, Pulse(path) as pulse, SambaDirectory(path) as directory:
            self._about = About("samba", domains=(directory.domain,), controller=directory.controller)
            scope = self._scope(directory)
            if not self._trusted(directory, cursor):
                cursor = Cursor(b"", directory.invocation_id, directory.highest_usn())
                yield Page(cursor=cursor.mapping())
            reader = Reader(directory, memory, scope, self._key)
            watch, sweep = _Watch(self._key), Sweep(reader, memory)
            saved, saved_at = cursor, time.monotonic()
            while not stop.is_set():
                yield from reader.again(watch.waiting(memory))
                yield from sweep.pages()
                more = watch.due(pulse.moved())
                usn = directory.highest_usn() if more else cursor.usn
                watch.keep_apart(pulse, directory)
                writes: dict[UUID, int] = {}
                while more and not stop.is_set():
                    started = time.monotonic()
                    changes = directory.changes(cursor.cookie)
                    watch.rest(time.monotonic() - started)
                    more = changes.more
                    moved = _look(scope, usn)
                    if moved.everybody:
                        sweep.want()
                    yield from reader.come_in(_left_out(moved.users, changes.items, memory))
                    *earlier, last = parts(changes.items)
                    for part in earlier:  # without a cursor, so that a crash leads back to the first part
                        yield reader.page(part, writes)
                    page = reader.page(last, writes)
                    cursor = replace(cursor, cookie=changes.cookie)
                    if not more:
                        cursor = replace(cursor, usn=usn, witnesses=newest(cursor.witnesses, writes))
                    if changes.items:
                        yield replace(page, cursor=cursor.mapping())
                        saved, saved_at = cursor, time.monotonic()
                    del page  # the next one may be hours away, and these are passwords
                if cursor != saved and time.monotonic() - saved_at > QUIET_CURSOR_SECONDS:
                    yield Page(cursor=cursor.mapping())
                    saved, saved_at = cursor, time.monotonic()
                watch.wait(commits, stop, self._settings.poll_ms / 1000)

    def recapture(self, memory: Memory, sam_account_name: str | None) -> Iterator[Page]:
        """`producer capture`: the current password of one user or of all; the cursor stays where it is."""
        self._key.check()
        with SambaDirectory(self._settings.ldapi_path) as directory:
            scope = self._scope(directory)
            guids = list(directory.users(sam_account_name))
            why = None if sam_account_name is None else scope.why_not(guids)
            found = False
            for page in Reader(directory, memory, scope, self._key).again(guids if why is None else []):
                found = found or bool(page.events or page.pending)
                yield page
        if sam_account_name is not None and not found:
            raise ConfigurationError(f"nothing to capture for {sam_account_name!r}: {why or 'it has no password'}")

    def again(self, memory: Memory, domain: str, guids: Sequence[UUID]) -> Iterator[Page]:
        """The current passwords of these accounts, as far as the filter lets them in; the cursor stays where it is.

        ConfigurationError when the controller is of another domain.
        """
        self._key.check()
        with SambaDirectory(self._settings.ldapi_path) as directory:
            if directory.domain != domain:
                raise ConfigurationError(
                    f"{self._settings.ldapi_path}: this is a controller of {directory.domain}, not of {domain}: "
                    "capture them on one of theirs"
                )
            yield from Reader(directory, memory, self._scope(directory), self._key).again(guids)

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        """The spool remembers, so nothing is left to do."""

    def about(self) -> About:
        """Domain and controller as they were at the last connection, and the keys as their file is now."""
        return replace(self._about, openpgp_fingerprints=self._key.fingerprints)

    def fault(self) -> str:
        """None beside those that reading meets."""
        return ""

    def waiting(self) -> Mapping[PendingReason, int]:
        """Nothing: the spool has the pending accounts."""
        return {}

    def _report_key(self) -> None:
        # Not fatal: passwords that cannot be opened wait as pending, and the order of events does not suffer.
        try:
            self._key.check()
        except KeyFileError as error:
            self._log.error(Action.KEYRING_FAULT, detail=str(error))

    def _trusted(self, directory: SambaDirectory, cursor: Cursor) -> bool:
        """False when the database is not the one that the cursor belongs to.

        Asked once for each connection: samba closes it when it is stopped, and cannot be restored otherwise.
        """
        usn = directory.highest_usn()
        writes = directory.writes(since=cursor.least)
        why = cursor.restored(invocation_id=directory.invocation_id, usn=usn, writes=writes)
        if why is not None:
            self._log.warning(
                Action.SOURCE_RESTORED,
                why=why,
                usn=usn,
                cursor_usn=cursor.usn,
                repair="every password is captured again; if the whole AD domain went back, raise its epoch too",
            )
        return why is None

    def _scope(self, directory: SambaDirectory) -> SambaScope:
        """The filter. A fault in it is the configuration's; once it was good, somebody changed the directory."""
        try:
            scope = SambaScope(self._filters, directory)
            if not self._filtered:
                scope.check()
        except ConfigurationError as error:
            if not self._filtered:
                raise
            raise _waits(error) from None
        self._filtered = True
        return scope


def _look(scope: SambaScope, usn: int) -> Moved:
    try:
        return scope.look(usn)
    except ConfigurationError as error:
        raise _waits(error) from None


def _waits(error: ConfigurationError) -> UnavailableError:
    # Nothing is captured, so nothing is lost: the cursor stays, and what was captured before is published.
    return UnavailableError(f"{error}. Until then nothing is captured")


def _left_out(users: Iterable[UUID], changes: Iterable[Change], memory: Memory) -> list[UUID]:
    """Those of the users whom the filter left out; whose password changed is read anyway."""
    read = {change.guid for change in changes}
    return [guid for guid in users if guid not in read and memory.is_excluded(guid)]


class _Watch:
    """When to ask for more than whether the database moved."""

    def __init__(self, key: OpenPgpKeyFile) -> None:
        self._key = key
        self._key_state: tuple[int, ...] | None = None
        self._moved = True
        self._full_due = 0.0
        self._rest_until = 0.0
        self._move_due = 0.0
        self._sweep_due = 0.0
        self._sweep: deque[UUID] = deque()

    def due(self, moved: bool) -> bool:
        """True when DirSync should run now."""
        now = time.monotonic()
        self._moved = self._moved or moved
        if now < self._rest_until or not (self._moved or now >= self._full_due):
            return False
        self._moved, self._full_due = False, now + FULL_SECONDS
        return True

    def rest(self, seconds: float) -> None:
        """A DirSync took so long."""
        self._rest_until = time.monotonic() + REST * seconds

    def keep_apart(self, *connections: Pulse | SambaDirectory) -> None:
        """Move those that others keep busy, to where there is room. There may be none, so not again and again."""
        now = time.monotonic()
        if now >= self._move_due and (crowded := [one for one in connections if one.crowded]):
            self._move_due = now + MOVE_SECONDS
            for one in crowded:
                one.move()

    def wait(self, commits: Commits, stop: threading.Event, seconds: float) -> None:
        """Until something may be due, but no longer than so many seconds: the next commit, or the end of the rest."""
        if self._moved:  # it is known already what is to be read then
            stop.wait(max(0.0, min(seconds, self._rest_until - time.monotonic())))
        else:
            commits.wait(seconds, stop)

    def waiting(self, memory: Memory) -> list[UUID]:
        """Pending accounts to read again: all at the start and when the key file changed, else some now and then."""
        state, now = self._key.state, time.monotonic()
        if state != self._key_state:
            self._key_state, self._sweep_due = state, now + SWEEP_SECONDS
            return [item.guid for item in memory.pending()]
        if now < self._sweep_due:
            return []
        self._sweep_due = now + SWEEP_SECONDS
        if not self._sweep:
            self._sweep.extend(item.guid for item in memory.pending())
        return [self._sweep.popleft() for _ in range(min(SWEEP_ACCOUNTS, len(self._sweep)))]
