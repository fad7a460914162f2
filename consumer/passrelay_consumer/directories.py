"""One connection to each IdM server, shared by some of a consumer's workers."""

from __future__ import annotations

import itertools
import threading

from passrelay_consumer.directory import Directory
from passrelay_schemas.idm_settings import IdmSettings


class Directories:
    """By server, each opened when it is needed first. Safe for any number of threads."""

    def __init__(self, settings: IdmSettings) -> None:
        self._directories = {url: Directory(url, settings) for url in settings.servers}

    def on(self, url: str) -> Directory:
        """The connection to this server of [idm] servers."""
        return self._directories[url]

    def close(self) -> None:
        """Drop the connections; what is on its way is still answered."""
        for directory in self._directories.values():
            directory.close()


class SharedDirectories:
    """So many connections to each server, dealt out to threads: each keeps its share, whatever becomes of its work."""

    def __init__(self, settings: IdmSettings, connections: int) -> None:
        self._shares = itertools.cycle([Directories(settings) for _ in range(connections)])
        self._dealt = threading.local()

    def of_this_thread(self) -> Directories:
        """The calling thread's share, the same each time."""
        if not hasattr(self._dealt, "share"):
            self._dealt.share = next(self._shares)
        share: Directories = self._dealt.share
        return share
