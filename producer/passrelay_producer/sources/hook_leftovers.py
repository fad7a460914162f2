"""Files whose events are in the spool: never taken again, and deleted as soon as that can be done.

A second event of the same change would come later at the same version, and win over a password that was set in IdM
meanwhile. So the names are kept in the cursor for as long as the folder lists them, and there is a most of them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping

from passrelay_producer.sources.hook_folder import HookFolder
from passrelay_schemas.logs import Action, Log

MOST = 2000
"""So many that cannot be deleted: nothing new is taken. A name has 41 characters, and each commit writes them all."""
AGAIN_SECONDS = 1
_REPAIR = (
    "let the service delete there (`passrelay producer windows install --yes` sets its rights), and exclude the folder "
    "from virus scanners"
)


class Leftovers:
    """One thread changes them; `stuck` and `fault` are for any."""

    def __init__(self, folder: HookFolder, log: Log) -> None:
        self._folder = folder
        self._log = log
        self._names: frozenset[str] = frozenset()
        self.stuck: Mapping[str, float] = {}
        """Those that could not be deleted when it was tried last, and since when (monotonic)."""
        self._again = float("-inf")
        self._told = False

    def __contains__(self, name: str) -> bool:
        """Its event is in the spool."""
        return name in self._names

    @property
    def full(self) -> bool:
        """Nothing new is to be taken."""
        return len(self.stuck) >= MOST

    def fault(self) -> str:
        """Why nothing new is taken; empty while something is. The same words for as long as it lasts."""
        if not self.full:
            return ""
        return (
            f"{MOST} files or more in {self._folder.path} are in the spool and cannot be deleted: until they can, no "
            f"new ones are taken, they wait there: {_REPAIR}"
        )

    def add(self, names: Iterable[str]) -> None:
        """Their events are durable."""
        self._names |= frozenset(names)

    def delete(self) -> None:
        """Try those that were not tried yet, and every AGAIN_SECONDS the others; logged when that fails too."""
        now = time.monotonic()
        everything = now >= self._again
        tried = self._names if everything else self._names.difference(self.stuck)
        left = self._folder.delete(tried)
        others = {name: since for name, since in self.stuck.items() if name not in tried}
        self.stuck = others | {name: self.stuck.get(name, now) for name in left}
        if everything:
            self._again = now + AGAIN_SECONDS
            self._tell(left, now)

    def _tell(self, left: Mapping[str, str], now: float) -> None:
        """A scanner's passing touch is over by the second time; what lasts is told once."""
        name = min((name for name in left if now - self.stuck[name] >= AGAIN_SECONDS), default=None)
        if name is not None and not self._told:
            why = f"its event is in the spool, but it cannot be deleted ({left[name]})"
            self._log.error(Action.RECORD_WAITS, file=name, why=why, repair=f"it is tried again by itself: {_REPAIR}")
        self._told = name is not None

    def keep(self, there: Collection[str]) -> None:
        """Forget the files that the folder does not list any more.

        A deletion that Windows calls good is no proof: it may come when a scanner closes the file, and a folder that
        is away for a moment has none of its files.
        """
        self._names = self._names.intersection(there)
        self.stuck = {name: since for name, since in self.stuck.items() if name in there}

    def cursor(self, names: Iterable[str]) -> str:
        """What a page of these files commits: a source that starts anew adds it."""
        return " ".join(sorted(self._names.union(names)))
