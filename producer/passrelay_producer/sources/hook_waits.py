"""Files of the hook's folder that cannot be read or moved now: each waits by itself, holding up nobody else."""

from __future__ import annotations

from collections.abc import Collection

from passrelay_producer.sources.hook_reader import WAIT_SECONDS
from passrelay_schemas.logs import Action, Log


class Waits:
    """Names of files, and until when each is left alone. Times are monotonic, in seconds."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._until: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        """It could not be used when it was tried last."""
        return name in self._until

    def forget(self, name: str) -> None:
        """It could be used now."""
        self._until.pop(name, None)

    def has(self, name: str, now: float) -> bool:
        """This file is not to be tried yet."""
        return self._until.get(name, now) > now

    def put(self, name: str, why: str, now: float) -> None:
        """Try it again after WAIT_SECONDS; said once for as long as the file is there."""
        if name not in self._until:
            self._log.error(Action.RECORD_WAITS, file=name, why=why, repair="it is then tried again by itself")
        self._until[name] = now + WAIT_SECONDS

    def keep(self, names: Collection[str]) -> None:
        """Forget the files that are no longer there."""
        self._until = {name: until for name, until in self._until.items() if name in names}
