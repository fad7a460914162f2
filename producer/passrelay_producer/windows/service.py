"""The Windows service: `passrelay producer run` under Windows' service manager, which started this process.

It runs as a virtual account of its own, not as SYSTEM: what parses answers of networks must not own the domain. The
account can read and delete the hook's files, but make none.

Windows gives a service 30 s from its process's start to its first word, and a controller that boots is slow: so nothing
heavy is imported before that.
"""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from passrelay_producer.windows import SERVICE

START_MS = 180_000
END_MS = 75_000
"""How long the manager should wait: capturing and publishing may each take 30 s to end."""
_SERVICE_SPECIFIC = 1066
"""ERROR_SERVICE_SPECIFIC_ERROR: the exit code beside it is ours."""
_NOT_A_SERVICE = 1063
"""ERROR_FAILED_SERVICE_CONTROLLER_CONNECT."""


class Stoppable(Protocol):
    """The running producer."""

    def stop(self) -> None:
        """Ask for a clean end."""


class Hosted:
    """One run of the producer for a service manager. `stop` may come from any thread, at any time."""

    def __init__(self, config: Path, running: Callable[[], None]) -> None:
        """`running` is called as soon as the producer works."""
        self._config = config
        self._running = running
        self._lock = threading.Lock()
        self._service: Stoppable | None = None
        self._asked = False

    def run(self) -> int:
        """Until `stop` or a fault; the exit code. Whatever goes wrong is one line of the log."""
        from passrelay_producer.windows.service_log import ServiceLog
        from passrelay_schemas import logs
        from passrelay_schemas.errors import PassrelayError
        from passrelay_schemas.logs import Action, Log

        with ServiceLog(self._config.parent / "log") as sink:
            lines = cast("TextIO", sink)
            logs.configure(sink=lines)
            log = Log("producer")
            try:
                from passrelay_producer import service
                from passrelay_producer.windows import registry
                from passrelay_schemas.settings import ProducerSettings
                from passrelay_schemas.settings_file import load

                settings = load(ProducerSettings, self._config)
                logs.configure(settings.log.level, lines)
                if settings.source.hook is not None:
                    registry.check_folder(settings.source.hook.folder)
                return service.run(settings, self._begun)
            except PassrelayError as error:
                why, code = str(error), error.exit_code
            except Exception as error:  # noqa: BLE001 - a traceback could show what must not be shown
                why, code = f"internal error: {type(error).__name__}", 1
            log.error(Action.NOT_STARTED, why=why, repair="`passrelay config check`, `passrelay doctor`")
            return code

    def stop(self) -> None:
        """Ask for a clean end."""
        with self._lock:
            self._asked = True
            service = self._service
        if service is not None:
            service.stop()

    def _begun(self, service: Stoppable) -> None:
        with self._lock:
            self._service = service
            asked = self._asked
        if asked:
            service.stop()
        self._running()


if sys.platform == "win32":
    import pywintypes
    import servicemanager
    import win32service
    import win32serviceutil

    class ProducerService(win32serviceutil.ServiceFramework):
        """What the service manager talks to."""

        _svc_name_ = SERVICE
        config: Path

        def __init__(self, args: Sequence[str]) -> None:
            super().__init__(args)
            self._hosted = Hosted(self.config, lambda: self._report(win32service.SERVICE_RUNNING))
            self._state = win32service.SERVICE_START_PENDING

        def GetAcceptedControls(self) -> int:  # noqa: N802
            """Stop, shutdown, and preshutdown, which leaves more time than shutdown."""
            return int(
                win32service.SERVICE_ACCEPT_STOP
                | win32service.SERVICE_ACCEPT_SHUTDOWN
                | win32service.SERVICE_ACCEPT_PRESHUTDOWN
            )

        def SvcStop(self) -> None:  # noqa: N802
            """Asked to end."""
            self._report(win32service.SERVICE_STOP_PENDING, END_MS)
            self._hosted.stop()

        SvcShutdown = SvcStop

        def SvcOtherEx(self, control: int, event_type: int, data: Any) -> None:  # noqa: N802
            """Preshutdown, which the framework does not know."""
            if control == win32service.SERVICE_CONTROL_PRESHUTDOWN:
                self.SvcStop()

        def SvcInterrogate(self) -> None:  # noqa: N802
            """Asked how it is."""
            # The framework's own says "running" at any time, also to somebody who waits for the end.
            self.ReportServiceStatus(self._state)

        def SvcRun(self) -> None:  # noqa: N802
            """The service's whole life."""
            self._report(win32service.SERVICE_START_PENDING, START_MS)
            code = self._hosted.run()
            if code:
                self.ReportServiceStatus(
                    win32service.SERVICE_STOPPED, win32ExitCode=_SERVICE_SPECIFIC, svcExitCode=code
                )
                # The framework would say next that all went well, and the recovery actions would not be taken.
                os._exit(code)
            self._report(win32service.SERVICE_STOP_PENDING)

        def _report(self, state: int, wait_ms: int = 5000) -> None:
            self._state = state
            self.ReportServiceStatus(state, waitHint=wait_ms)

    def main() -> int:
        """What the service manager starts; the exit code."""
        parser = argparse.ArgumentParser(prog=SERVICE)
        parser.add_argument("--config", type=Path, required=True)
        ProducerService.config = parser.parse_args().config
        servicemanager.Initialize(SERVICE, None)
        servicemanager.PrepareToHostSingle(ProducerService)
        try:
            servicemanager.StartServiceCtrlDispatcher()  # type: ignore[no-untyped-call]
        except pywintypes.error as error:
            if error.winerror != _NOT_A_SERVICE:
                raise
            sys.stderr.write("only Windows' service manager starts this: `passrelay producer run` is for a terminal\n")
            return 2
        return 0

    if __name__ == "__main__":
        sys.exit(main())
