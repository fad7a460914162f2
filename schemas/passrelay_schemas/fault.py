"""How an exception in any thread or callback ends the process, and what may be said about an unexpected one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec

from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.logs import Action, Log

Arguments = ParamSpec("Arguments")


def describe(error: BaseException) -> dict[str, str]:
    """Type and place, for the log. Message and values may hold anything, a password included, so they are left out."""
    place, trace = "unknown", error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_globals.get('__name__', 'unknown')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return {"error": type(error).__name__, "at": place}


class Faults:
    """Where threads and callbacks report what they cannot handle; `on_fault` wakes the main thread."""

    def __init__(self, log: Log, on_fault: Callable[[], None]) -> None:
        self._log = log
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self.error: Exception | None = None
        """The first one."""

    def report(self, error: Exception) -> None:
        """Keep the first one and end the process. What passrelay explains itself is for the main thread to raise."""
        with self._lock:
            first = self.error is None
            if first:
                self.error = error
        if not isinstance(error, PassrelayError):
            self._log.error(
                Action.INTERNAL_ERROR,
                **describe(error),
                repair="the process ends and is to be started again; report this line if it comes back",
            )
        if first:
            self._on_fault()

    def exit_code(self) -> int:
        """0 without a fault, 1 after an unexpected one; raises the PassrelayError that ended the process."""
        if isinstance(self.error, PassrelayError):
            raise self.error
        return 0 if self.error is None else 1

    def guard(self, function: Callable[Arguments, None]) -> Callable[Arguments, None]:
        """`function` as a thread's target or a callback: its exceptions are reported, and after one nothing runs."""

        @functools.wraps(function)
        def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            if self.error is not None:
                return
            try:
                function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - pika would swallow it and reconnect; a thread would just vanish
                self.report(error)

        return guarded
