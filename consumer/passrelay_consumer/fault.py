"""Unexpected exceptions: one in any thread or callback ends the process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from passrelay_schemas.logs import Action, Log

Arguments = ParamSpec("Arguments")


def describe(error: BaseException) -> dict[str, str]:
    """Type and place for the log. Message and values may hold anything, a password included, so they are left out."""
    place, traceback = "unknown", error.__traceback__
    while traceback is not None:
        place = f"{traceback.tb_frame.f_globals.get('__name__', 'unknown')}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return {"error": type(error).__name__, "place": place}


class Faults:
    """Where threads and callbacks report what should not happen; `on_fault` wakes the main thread."""

    def __init__(self, log: Log, on_fault: Callable[[], None]) -> None:
        self._log = log
        self._on_fault = on_fault
        self.happened = False

    def report(self, error: BaseException) -> None:
        """Log it and end the process."""
        self.happened = True
        self._log.error(
            Action.INTERNAL_ERROR,
            **describe(error),
            repair="the consumer ends and is to be started again; report this line if it comes back",
        )
        self._on_fault()

    def guard(self, function: Callable[Arguments, None]) -> Callable[Arguments, None]:
        """`function` as a thread's target or a callback: its exceptions are reported, and after one nothing runs."""

        @functools.wraps(function)
        def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            if self.happened:
                return
            try:
                function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - pika would swallow it and reconnect; a thread would just vanish
                self.report(error)

        return guarded
