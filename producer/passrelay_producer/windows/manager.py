"""Windows' service manager: making, changing, removing and asking about the producer's service."""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from passrelay_producer.windows import ACCOUNT, SERVICE
from passrelay_producer.windows.facts import ServiceFacts, ServiceState
from passrelay_producer.windows.service import END_MS, START_MS
from passrelay_schemas.errors import UnavailableError

LOGON_REPAIR = (
    "let NT SERVICE\\ALL SERVICES `Log on as a service` in the policy that sets it for domain controllers "
    "(Default Domain Controllers Policy, User Rights Assignment)"
)
_REPAIRS = {1069: LOGON_REPAIR, 1072: "close every window that shows services, and run this again"}
DISPLAY_NAME = "passrelay producer"
DESCRIPTION = "Takes sealed password changes from this domain controller and sends them to Red Hat IdM, over RabbitMQ."
RESTART_MS = (5_000, 60_000, 60_000)
"""How long after a failure it is started again."""
_DAY_SECONDS = 86_400
_ERRORS = {1058: "it is disabled", 1060: "there is no such service", 1069: "its account may not log on as a service"}
_NO_SUCH_SERVICE, _ALREADY_RUNNING, _NOT_ACTIVE, _INVALID_LEVEL = 1060, 1056, 1062, 124
_OWN_PROCESS, _AUTOMATIC, _NORMAL_ERROR = 0x10, 2, 1
_NO_TAG = False
"""No load order group, and so no number in one."""
_SERVICE_SPECIFIC, _NEVER_STARTED = 1066, 1077


def look() -> ServiceFacts | None:
    """The service as it is; None when there is none. UnavailableError."""
    if sys.platform != "win32":
        return None
    import pywintypes
    import win32service

    with _manager(win32service.SC_MANAGER_CONNECT) as manager:
        try:
            handle = win32service.OpenService(
                manager, SERVICE, win32service.SERVICE_QUERY_STATUS | win32service.SERVICE_QUERY_CONFIG
            )
        except pywintypes.error as error:
            if error.winerror == _NO_SUCH_SERVICE:
                return None
            raise _unavailable("asked about", error) from None
        status: Any = win32service.QueryServiceStatusEx(handle)
        config = win32service.QueryServiceConfig(handle)
        win32service.CloseServiceHandle(handle)
    code = status["Win32ExitCode"]
    if code == _SERVICE_SPECIFIC:
        code = status["ServiceSpecificExitCode"]
    return ServiceFacts(
        state={
            win32service.SERVICE_STOPPED: ServiceState.STOPPED,
            win32service.SERVICE_START_PENDING: ServiceState.STARTING,
            win32service.SERVICE_STOP_PENDING: ServiceState.STOPPING,
            win32service.SERVICE_RUNNING: ServiceState.RUNNING,
        }.get(status["CurrentState"], ServiceState.OTHER),
        account=config[7],
        command=config[3],
        automatic=config[1] == _AUTOMATIC,
        exit_code=0 if code == _NEVER_STARTED else code,
    )


def make(command: str) -> None:
    """Make the service, or change the one that is there; it starts with Windows and again after a failure."""
    if sys.platform != "win32":
        return
    import pywintypes
    import win32service

    with _manager(win32service.SC_MANAGER_ALL_ACCESS) as manager, _explained("made"):
        try:
            handle = win32service.OpenService(manager, SERVICE, win32service.SERVICE_ALL_ACCESS)
        except pywintypes.error as error:
            if error.winerror != _NO_SUCH_SERVICE:
                raise
            handle = win32service.CreateService(
                manager, SERVICE, DISPLAY_NAME, win32service.SERVICE_ALL_ACCESS, _OWN_PROCESS, _AUTOMATIC,
                _NORMAL_ERROR, command, None, _NO_TAG, None, ACCOUNT, None,
            )  # fmt: skip
        else:
            win32service.ChangeServiceConfig(
                handle, _OWN_PROCESS, _AUTOMATIC, _NORMAL_ERROR,
                command, None, _NO_TAG, None, ACCOUNT, None, DISPLAY_NAME,
            )  # fmt: skip
        restart = [(win32service.SC_ACTION_RESTART, wait) for wait in RESTART_MS]
        actions = {"ResetPeriod": _DAY_SECONDS, "RebootMsg": "", "Command": "", "Actions": restart}
        values: dict[int, Any] = {
            win32service.SERVICE_CONFIG_DESCRIPTION: DESCRIPTION,
            win32service.SERVICE_CONFIG_FAILURE_ACTIONS: actions,
            # Also when it ends by itself with an exit code, not only when it crashes.
            win32service.SERVICE_CONFIG_FAILURE_ACTIONS_FLAG: True,
            win32service.SERVICE_CONFIG_PRESHUTDOWN_INFO: END_MS,
            # A service asks for what it needs, and gets no other privilege.
            win32service.SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO: ["SeChangeNotifyPrivilege"],
        }
        for level, value in values.items():
            try:
                win32service.ChangeServiceConfig2(handle, level, value)
            except pywintypes.error as error:
                if error.winerror != _INVALID_LEVEL:  # wine does not know all of them
                    raise
        win32service.CloseServiceHandle(handle)


def start(seconds: float = START_MS / 1000) -> None:
    """Start it, or start it anew if it runs; UnavailableError when it does not run in time."""
    stop()
    if sys.platform != "win32":
        return
    import win32service

    with _service(win32service.SERVICE_START) as handle, _explained("started"):
        win32service.StartService(handle, None)
    found = _wait(lambda one: one.state is not ServiceState.STARTING, seconds)
    if found is None or found.state is not ServiceState.RUNNING:
        why = f"{found.state}, exit code {found.exit_code}" if found else "it is gone"
        raise UnavailableError(
            f"service {SERVICE}: does not run ({why}): see log\\producer.log and the event log (source {SERVICE})"
        )


def stop(seconds: float = END_MS / 1000) -> None:
    """Stop it cleanly; nothing to do when there is none or it is stopped. UnavailableError when it does not end."""
    found = look()
    if sys.platform != "win32" or found is None or found.state is ServiceState.STOPPED:
        return
    import pywintypes
    import win32service

    with _service(win32service.SERVICE_STOP) as handle, _explained("stopped"):
        try:
            win32service.ControlService(handle, win32service.SERVICE_CONTROL_STOP)
        except pywintypes.error as error:
            if error.winerror != _NOT_ACTIVE:
                raise
    found = _wait(lambda one: one.state is ServiceState.STOPPED, seconds)
    if found is not None and found.state is not ServiceState.STOPPED:
        raise UnavailableError(f"service {SERVICE}: does not end within {seconds:.0f} s: see producer.log")


def remove() -> None:
    """Stop and remove it; nothing to do when there is none."""
    if look() is None or sys.platform != "win32":
        return
    import win32service

    stop()
    with _service(win32service.SERVICE_ALL_ACCESS) as handle, _explained("removed"):
        win32service.DeleteService(handle)


def why_not(code: int) -> str:
    """The exit code of a service in words."""
    return _ERRORS.get(code, f"exit code {code}")


def _wait(wanted: Any, seconds: float) -> ServiceFacts | None:
    deadline = time.monotonic() + seconds
    while (found := look()) is not None and not wanted(found) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@contextlib.contextmanager
def _manager(rights: int) -> Iterator[Any]:
    if sys.platform != "win32":
        raise UnavailableError("services: this is not Windows")
    import win32service

    with _explained("asked about"):
        manager = win32service.OpenSCManager(None, None, rights)
    try:
        yield manager
    finally:
        win32service.CloseServiceHandle(manager)


@contextlib.contextmanager
def _service(rights: int) -> Iterator[Any]:
    if sys.platform != "win32":
        raise UnavailableError("services: this is not Windows")
    import win32service

    with _manager(win32service.SC_MANAGER_CONNECT) as manager:
        with _explained("opened"):
            handle = win32service.OpenService(manager, SERVICE, rights)
        try:
            yield handle
        finally:
            win32service.CloseServiceHandle(handle)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    if sys.platform != "win32":
        yield
        return
    import pywintypes

    try:
        yield
    except pywintypes.error as error:
        raise _unavailable(what, error) from None


def _unavailable(what: str, error: Any) -> UnavailableError:
    repair = _REPAIRS.get(error.winerror, "run this as an administrator")
    return UnavailableError(f"service {SERVICE}: cannot be {what} ({error.strerror}): {repair}")
