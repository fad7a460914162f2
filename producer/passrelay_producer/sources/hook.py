"""Capture on a Windows domain controller: the hook's records, each with the account that its RID stands for.

The source opens nothing: it seals a record together with what AD says of the account, and the consumer opens both. A
file is deleted when its event is in the spool; the names of the last page and of all that are still there are kept as
the cursor, so that nothing is sent twice, whatever comes between the two. Whatever cannot be done now, the files wait.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from passrelay_producer.sources import About, Memory, Page, PendingReason, Result
from passrelay_producer.sources.hook_directory import HookDirectory
from passrelay_producer.sources.hook_folder import ForeignError, HeldError, HookFolder, RecordName, Why
from passrelay_producer.sources.hook_leftovers import Leftovers
from passrelay_producer.sources.hook_reader import HookReader
from passrelay_producer.sources.hook_waits import Waits
from passrelay_producer.sources.samba_scope import SambaScope
from passrelay_producer.windows import registry
from passrelay_schemas import filetime
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.hook_record import HookRecord, TornError
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.source_settings import HookSourceSettings

PAGE_RECORDS = 128
"""So many records are committed together."""
_TAKEN = "taken"
"""The cursor's key: the names of files whose events are in the spool, as far as they may still be there."""
_REPAIRS = {
    Why.TORN: "this file has no whole password; its name has time and RID. If another program held it, the change is "
    "in another file or in an event 3 (source passrelay-hook); otherwise the controller crashed or its disk is "
    "damaged: see `passrelay audit`",
    Why.FOREIGN: "compare the hook's registry values DomainSid and Producer with this producer; a good record that is "
    "moved back into the folder is taken",
    Why.NO_ACCOUNT: "nothing, if the account was deleted; otherwise let [source.hook] bind_user see it, and move the "
    "file back into the folder",
}


class HookSource:
    """The source `[source.hook]`. Raises UnavailableError when folder or controller cannot be used."""

    def __init__(
        self, settings: HookSourceSettings, producer: str, log: Log, filters: FilterSettings | None = None
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._filters = filters or FilterSettings()
        self._filtered = False
        """The filter was found good by this process."""
        self._log = log
        self._folder = HookFolder(settings.folder)
        self._about = About("hook")
        self._page: Sequence[str] = ()
        """The files of the page that is being committed."""
        self._unread, self._unmoved = Waits(log), Waits(log)
        self._reader: HookReader | None = None
        """The last connection's."""
        self._leftovers = Leftovers(self._folder, log)

    def initialise(self, memory: Memory, *, everything: bool) -> Page:
        """Nothing to choose: every record is taken."""
        return Page()

    def recapture(self, memory: Memory, sam_account_name: str | None) -> Iterator[Page]:
        """ConfigurationError: Windows shows no password again."""
        raise ConfigurationError(
            "[source.hook] cannot capture again, Windows shows no passwords: have the password changed, or use "
            "`producer republish`"
        )

    def pages(self, memory: Memory, stop: threading.Event) -> Iterator[Page]:
        """Records as they come, until `stop`."""
        self._leftovers.add(memory.cursor().get(_TAKEN, "").split())
        self._leftovers.delete()
        with HookDirectory(self._settings) as directory:
            self._about = About("hook", domains=(directory.domain,), controller=directory.controller)
            reader = self._reader = HookReader(directory, memory, self._scope(directory), self._log)
            while not stop.is_set():
                self._leftovers.delete()
                if self._leftovers.full:  # a look at the folder would be dear now, too
                    stop.wait(self._settings.poll_ms / 1000)
                    continue
                quarantined: list[str] = []
                content = reader.read(self._records(directory, reader, quarantined))
                for name, why in content.without_account:
                    quarantined += self._quarantine(name.name, Why.NO_ACCOUNT, why)
                self._page = content.names
                if content.names or quarantined:
                    yield Page(
                        events=content.events,
                        tags=range(len(content.events)),
                        accounts=content.accounts,
                        excluded=content.excluded,
                        quarantined=quarantined,
                        cursor={_TAKEN: self._leftovers.cursor(content.names)} if content.names else {},
                    )
                else:
                    stop.wait(self._settings.poll_ms / 1000)

    def committed(self, page: Page, results: Sequence[Result]) -> None:
        """The page is durable: its files go. The reader lets nothing through that cannot be sealed."""
        self._leftovers.add(self._page)
        self._leftovers.delete()
        self._page = ()

    def about(self) -> About:
        """Domain and controller as they were at the last connection."""
        return self._about

    def fault(self) -> str:
        """Why changes do not come here, or are not taken, or soon will not be; what can be taken is, all the same."""
        faults = (registry.hook_fault(), registry.folder_fault(self._settings.folder), self._leftovers.fault())
        return "; ".join(fault for fault in faults if fault)

    def waiting(self) -> Mapping[PendingReason, int]:
        """Files that wait in the folder, for deletion too, or lie in its quarantine, and what the hook has lost."""
        found: Counter[PendingReason] = Counter()
        with suppress(UnavailableError):  # `fault` says it
            found[PendingReason.HOOK_LOST] = registry.hook_status().lost
        with suppress(UnavailableError):  # the source is down, or the files are held
            listing = self._folder.look(filetime.now())
            found[PendingReason.HELD] = sum(name in self._unmoved for name in listing.strangers)
            found.update(self._reasons(listing.records))
            found[PendingReason.QUARANTINED] = self._folder.quarantined()
        return found

    def _reasons(self, names: Sequence[RecordName]) -> Iterator[PendingReason]:
        """Why each of the files waits that does."""
        reader, held = self._reader, set[int]()
        for name in names:
            if name.name in self._leftovers:
                if name.name in self._leftovers.stuck:
                    yield PendingReason.HELD
                continue
            if name.name in self._unread:
                held.add(name.rid)
            reason = None if reader is None else reader.why_waits(name.rid)
            if name.rid in held or name.name in self._unmoved:
                yield PendingReason.HELD
            elif reason is not None:
                yield reason

    def _records(
        self, directory: HookDirectory, reader: HookReader, quarantined: list[str]
    ) -> list[tuple[RecordName, HookRecord]]:
        """The first records that can be taken; what is none of ours is moved away."""
        listing = self._folder.look(filetime.now())
        there = listing.names  # those that a clock which went back makes young again too
        self._unread.keep(there)
        self._unmoved.keep(there)
        self._leftovers.keep(there)
        for stranger in listing.strangers:
            quarantined += self._quarantine(stranger, Why.FOREIGN, "it has not the name of a record")
        now = time.monotonic()
        held: set[int] = set()
        """RIDs with a record that cannot be read: their later ones must not overtake it."""
        found: list[tuple[RecordName, HookRecord]] = []
        for name in listing.records:
            if name.name in self._leftovers or name.rid in held or reader.waits(name.rid, now):
                continue
            if len(found) == PAGE_RECORDS:
                break
            record = self._record(name, directory, quarantined)
            if record is not None:
                found.append((name, record))
            elif self._unread.has(name.name, now):
                held.add(name.rid)
        return found

    def _record(self, name: RecordName, directory: HookDirectory, quarantined: list[str]) -> HookRecord | None:
        """One that can be taken now."""
        now = time.monotonic()
        if self._unread.has(name.name, now) or self._unmoved.has(name.name, now):
            return None
        try:
            record = self._folder.read(name)
            if record is not None:
                self._check_ours(record, directory)
        except TornError as error:
            quarantined += self._quarantine(name.name, Why.TORN, str(error))
        except ForeignError as error:
            quarantined += self._quarantine(name.name, Why.FOREIGN, str(error))
        except HeldError as error:
            self._unread.put(name.name, str(error), now)
        else:
            self._unread.forget(name.name)
            return record
        return None

    def _check_ours(self, record: HookRecord, directory: HookDirectory) -> None:
        header = record.header
        if header.domain_sid != directory.domain_sid:
            raise ForeignError(f"it is of the domain {header.domain_sid}, this controller of {directory.domain_sid}")
        if header.producer != self._producer:
            raise ForeignError(f"it is of producer {header.producer}, this one is {self._producer}")

    def _quarantine(self, name: str, why: Why, detail: str) -> list[str]:
        """Why it was moved away; nothing when it could not be: it waits."""
        now = time.monotonic()
        if self._unmoved.has(name, now):
            return []
        try:
            target = self._folder.quarantine(name)
        except HeldError as error:
            self._unmoved.put(name, f"{detail}, and {error}", now)
            return []
        self._log.error(Action.RECORD_QUARANTINED, file=str(target), reason=why.value, why=detail, repair=_REPAIRS[why])
        return [why.value]

    def _scope(self, directory: HookDirectory) -> SambaScope:
        """The filter. A fault in it is the configuration's; once it was good, somebody changed the directory."""
        try:
            scope = SambaScope(self._filters, directory)
            if not self._filtered:
                scope.check()
        except ConfigurationError as error:
            if not self._filtered:
                raise
            raise UnavailableError(f"{error}. Until then nothing is captured") from None
        self._filtered = True
        return scope
