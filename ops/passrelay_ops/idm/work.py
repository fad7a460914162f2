"""Doing a plan: step after step on its servers, then looking until every server shows the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from passrelay_consumer.result_codes import BUSY_CODES, DirectoryError
from passrelay_ops.idm.login import Login
from passrelay_ops.idm.plan import Step
from passrelay_ops.idm.server import Server
from passrelay_ops.idm.view import View
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.idm_settings import IdmSettings

REPLICATION_SECONDS = 30.0
"""How long the tree may take to every other server before the command says that it is missing there."""

Seen = TypeVar("Seen")


@contextlib.contextmanager
def servers(idm: IdmSettings, login: Login) -> Iterator[Callable[[str], Server]]:
    """Gives each server's connection, opened when it is first asked for; all are closed at the end."""
    opened: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def connection(url: str) -> Server:
            if url not in opened:
                opened[url] = stack.enter_context(Server(url, idm, login))
            return opened[url]

        yield connection


@contextlib.contextmanager
def explained(url: str, dn: str) -> Iterator[None]:
    """Turns what a server refuses into the error of ours, with the server's words and what to do."""
    try:
        yield
    except DirectoryError as error:
        # 53: a server or database that is read-only for a while.
        kind = UnavailableError if error.code in BUSY_CODES | {None, 53} else ConfigurationError
        again = "repair it, then run the same command again: it goes on where it ended"
        raise kind(f"{url}: {dn}: {error}: {again}") from None


def apply(steps: Sequence[Step], connection: Callable[[str], Server]) -> None:
    """Apply every step on each of its servers; the first that fails ends it. What was done is found done next time."""
    for step in steps:
        for url in step.servers:
            with explained(url, step.record.dn):
                connection(url).apply(step.record)


def settle(read: Callable[[], list[View]], settled: Callable[[View], bool]) -> list[View]:
    """Look at the servers until all of them are settled, or REPLICATION_SECONDS are over; what was seen last."""
    return wait_for(read, lambda views: all(view.unusable is not None or settled(view) for view in views))


def wait_for(read: Callable[[], Seen], good: Callable[[Seen], bool]) -> Seen:
    """Read again and again until it is good, or REPLICATION_SECONDS are over; what was read last."""
    retrying = Retrying(
        retry=retry_if_result(lambda seen: not good(seen)),
        wait=wait_fixed(0.3),
        stop=stop_after_delay(REPLICATION_SECONDS),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    seen: Seen = retrying(read)
    return seen
