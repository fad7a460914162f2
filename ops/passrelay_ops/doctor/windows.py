"""The hook and the service on this Windows domain controller: loaded, captured, drained, and out of others' reach."""

from __future__ import annotations

from collections.abc import Callable

from passrelay_ops.check import Result, Row
from passrelay_producer.sources.hook_directory import HookDirectory, RefusedError
from passrelay_producer.windows import ACCOUNT, HOOK, SERVICE, machine, packages, registry
from passrelay_producer.windows.facts import Facts, Role, ServiceState
from passrelay_producer.windows.manager import LOGON_REPAIR, why_not
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse
from passrelay_schemas.source_settings import HookSourceSettings
from passrelay_schemas.windows_acl import ADMINISTRATORS, CREATE, KEY_READ, SYSTEM, strangers, virtual_account_sid

CONTROLLER = "windows.controller"
LONGEST_WAIT_SECONDS = 600
_INSTALL = "`passrelay producer windows install --yes`"
_WITH_KEY = "`passrelay producer windows install --hook-key FILE --yes`"
_NEXT_CHANGE = "it reads its registry key with the next password change on this controller: change one, then look again"
_NO_LOGON = 1069
_SLOTS = 256
"""producer/windows_hook/slots.h."""
_Found = tuple[Result, str, str]


def look(hook: HookSourceSettings) -> Facts:
    """One look at the machine."""
    return machine.look(hook.folder)


def ids() -> tuple[str, ...]:
    """The checks of a Windows domain controller."""
    return (*_CHECKS, CONTROLLER)


def rows(subject: str, facts: Facts, *, producer: str | None) -> list[Row]:
    """What the machine's facts tell; `producer` is the name of this host's signing key, None when it has none."""
    if facts.role is not Role.WRITABLE:
        detail = f"this is {facts.role}: no password is changed here"
        first = Row("windows.role", subject, Result.FAIL, detail, "install on the writable domain controllers")
        rest = (Row(check, subject, Result.UNKNOWN, "windows.role failed") for check in _CHECKS)
        return [first, *(row for row in rest if row.id != first.id)]
    found = {check: Row(check, subject, *look_at(facts, producer)) for check, look_at in _CHECKS.items()}
    for check, rests_on in _RESTS_ON.items():
        failed = next((one for one in rests_on if found[one].result is Result.FAIL), None)
        if failed is not None and found[check].result is Result.FAIL:
            found[check] = Row(check, subject, Result.UNKNOWN, f"{failed} failed; {found[check].detail}")
    return list(found.values())


def controller(subject: str, facts: Facts, hook: HookSourceSettings) -> Row:
    """Look-ups go to this machine: another controller shows the version before this one's change. It logs in there."""
    if facts.role is not Role.WRITABLE:
        return Row(CONTROLLER, subject, Result.UNKNOWN, "windows.role failed")
    try:
        with HookDirectory(hook) as directory:
            return Row(CONTROLLER, subject, Result.OK, f"{hook.controller} is {directory.controller}")
    except (ConfigurationError, RefusedError) as error:
        result, text = Result.FAIL, str(error)
    except UnavailableError as error:
        # It may be starting; the service waits for it too.
        result, text = Result.UNKNOWN, str(error)
    what, _, repair = text.rpartition(": ")
    return Row(CONTROLLER, subject, result, what, repair)


def hook_key(subject: str, producers: list[str], documents: list[KeyDocument]) -> Row:
    """An operator's host knows the hook key when a producer on Windows speaks; else it could not be rotated there."""
    check = "keys.hook"
    if not producers:
        return Row(check, subject, Result.OK, "no producer on Windows has spoken")
    active = [key for key in documents if key.use is KeyUse.HOOK and key.status is KeyStatus.ACTIVE]
    if active:
        return Row(check, subject, Result.OK, f"{active[-1].key_id}, for {', '.join(producers)}")
    detail = f"{', '.join(producers)} send what the Windows hook sealed, and no active hook key is enrolled here"
    repair = "`passrelay keys enroll` its *.pub.json here; on every consumer it needs its .key beside it"
    return Row(check, subject, Result.FAIL, detail, repair)


def _role(facts: Facts, producer: str | None) -> _Found:
    return Result.OK, f"{facts.role}, Windows build {facts.build}", ""


def _protected(facts: Facts, producer: str | None) -> _Found:
    if not facts.protected:
        return Result.OK, "RunAsPPL is off: LSASS loads the hook as it is", ""
    detail = f"RunAsPPL is {facts.protected}"
    if facts.loaded:
        return Result.OK, f"{detail}, and LSASS has loaded the hook: it has Microsoft's signature", ""
    repair = (
        "a hardened LSASS loads only what Microsoft has signed (CodeIntegrity event 3033 or 3063 says so): have the "
        "DLL signed by Microsoft, or take RunAsPPL away from this controller"
    )
    return Result.FAIL, f"{detail}: LSASS is hardened and has not loaded the hook", repair


def _listed(facts: Facts, producer: str | None) -> _Found:
    names = ", ".join(facts.packages)
    if not packages.listed(facts.packages, HOOK):
        return Result.FAIL, f"Notification Packages has no {HOOK}: {names}", f"{_INSTALL}, then restart"
    if facts.dll is None:
        return Result.FAIL, f"{HOOK} is listed, but there is no such DLL in System32", f"{_INSTALL}, then restart"
    passsync = (
        "; passhook is PassSync's, which carries changes too" if packages.listed(facts.packages, "passhook") else ""
    )
    return Result.OK, f"Notification Packages: {names}{passsync}", ""


def _loaded(facts: Facts, producer: str | None) -> _Found:
    status, dll = facts.status, facts.loaded_dll
    if facts.loaded:
        which = (
            f"{status.version}, SHA-256 {dll.sha256}" if dll is not None else f"{status.version}, no file in System32"
        )
        waits = "; the restart that loads the newer one is still to come" if facts.replaced is not None else ""
        return Result.OK, f"LSASS has loaded {which}{waits}", ""
    if status.state == "refused":
        return Result.FAIL, f"the hook refused to load: {status.reason}", "repair that, then restart this controller"
    repair = "restart this controller; after that look at the event log (source passrelay-hook)"
    return Result.FAIL, "LSASS has not loaded the hook since it started: no change is captured", repair


def _settings(facts: Facts, producer: str | None) -> _Found:
    settings = facts.settings
    if settings is None:
        return Result.FAIL, "HKLM\\SOFTWARE\\passrelay\\hook is missing", _INSTALL
    wrong, repair = [], _INSTALL
    if producer is not None and settings.producer != producer:
        wrong.append(f"Producer is {settings.producer or 'missing'}, the signing key's is {producer}")
    if settings.domain_sid != facts.domain_sid:
        wrong.append(f"DomainSid is {settings.domain_sid or 'missing'}, the domain's is {facts.domain_sid}")
    if settings.key_fault:
        wrong.append(settings.key_fault)
        repair = _WITH_KEY
    if not settings.folder:
        wrong.append("Folder is missing")
    elif facts.configured is not None and not registry.same_folder(settings.folder, facts.configured):
        wrong.append(f"Folder is {settings.folder}, where the hook writes, but the source reads {facts.configured}")
    if facts.loaded and facts.status.settings_trouble:
        wrong.append(f"the hook goes on with settings from before, because {facts.status.settings_trouble}")
        # Of the last change: repaired since, it is told until the next one.
        repair = f"{_WITH_KEY}; {_NEXT_CHANGE}" if settings.fault else f"{_NEXT_CHANGE}; if this stays, {_WITH_KEY}"
    said = facts.status.key_id if facts.loaded else ""
    if said not in ("", settings.recipient_key_id):
        repair = repair if wrong else _NEXT_CHANGE
        wrong.append(f"the hook seals to {said}, not to the registry's {settings.recipient_key_id or 'key'}")
    if wrong:
        return Result.FAIL, "; ".join(wrong), repair
    itself = ", as it says itself" if said else ""
    return Result.OK, f"the hook seals to {settings.recipient_key_id} for {settings.producer}{itself}", ""


def _registry(facts: Facts, producer: str | None) -> _Found:
    access = facts.registry
    if facts.settings is None:
        return Result.UNKNOWN, "windows.settings failed", ""
    if access is None:
        return Result.FAIL, "the access list of the hook's registry key cannot be read", _INSTALL
    if facts.settings_open:
        detail = (
            "others may write the hook's registry key, and so have passwords sealed to themselves: "
            f"{', '.join(facts.settings_open)}"
        )
        return Result.FAIL, detail, f"{_WITH_KEY}: the key that is in the registry may be theirs"
    account = virtual_account_sid()
    rights = [grant.mask for grant in access.grants or () if grant.sid == account]
    if not any(mask & KEY_READ == KEY_READ for mask in rights):
        detail = "the service may not read the hook's registry key, so it cannot tell whether the hook is loaded"
        return Result.FAIL, detail, _INSTALL
    return Result.OK, "only SYSTEM and Administrators can write it; the service reads", ""


def _folder(facts: Facts, producer: str | None) -> _Found:
    if facts.folder is None:
        return Result.FAIL, "the hook's folder is missing, or its access list cannot be read", _INSTALL
    others = strangers(facts.folder, CREATE, {SYSTEM, ADMINISTRATORS})
    if others:
        detail = f"others may put files into the hook's folder, and so forge records: {', '.join(others)}"
        return Result.FAIL, detail, _INSTALL
    return Result.OK, "only SYSTEM and Administrators can put files there", ""


def _lost(facts: Facts, producer: str | None) -> _Found:
    status = facts.status
    if status.lost:
        detail = f"{status.lost} changes since the start were not captured; the last: RID {status.last_lost_rid}"
        repair = f"{status.last_lost_reason or 'see the event log'}; then have them changed again (`passrelay audit`)"
        return Result.FAIL, detail, repair
    if status.slots_left is not None and status.slots_left < _SLOTS:
        detail = f"new files could not be made; {status.slots_left} of {_SLOTS} prepared ones are left"
        repair = "make room on the disk of the hook's folder; each change that finds room then makes one again"
        return Result.FAIL, detail, repair
    return Result.OK, "none, as far as the hook knows", ""


def _service(facts: Facts, producer: str | None) -> _Found:
    service = facts.service
    if service is None:
        return Result.FAIL, f"there is no service {SERVICE}", _INSTALL
    if service.state is not ServiceState.RUNNING:
        why = f" ({why_not(service.exit_code)})" if service.exit_code else ""
        repair = (
            LOGON_REPAIR if service.exit_code == _NO_LOGON else f"`sc start {SERVICE}`; producer.log and the event log"
        )
        return Result.FAIL, f"the service {SERVICE} is {service.state}{why}", repair
    if service.account.casefold() != ACCOUNT.casefold():
        return Result.FAIL, f"it runs as {service.account}, not as {ACCOUNT}", _INSTALL
    if not service.automatic:
        return Result.FAIL, "it runs, but does not start with Windows", _INSTALL
    return Result.OK, f"runs as {service.account}", ""


def _records(facts: Facts, producer: str | None) -> _Found:
    waiting = facts.waiting
    if waiting.fault:
        what, _, repair = waiting.fault.rpartition(": ")
        return Result.FAIL, what, repair
    if not waiting.records:
        return Result.OK, "the hook's folder is empty", ""
    detail = f"{waiting.records} records wait, the oldest for {waiting.oldest_seconds:.0f} s"
    if waiting.oldest_seconds <= LONGEST_WAIT_SECONDS:
        return Result.OK, detail, ""
    return Result.FAIL, detail, "producer.log says why (record_waits, capture_failed)"


def _quarantine(facts: Facts, producer: str | None) -> _Found:
    if not facts.waiting.quarantined:
        return Result.OK, "nothing is in quarantine", ""
    detail = f"{facts.waiting.quarantined} files are in quarantine"
    return Result.FAIL, detail, "producer.log (record_quarantined) says why; move good ones back, delete the others"


_CHECKS: dict[str, Callable[[Facts, str | None], _Found]] = {
    "windows.role": _role,
    "windows.ppl": _protected,
    "windows.listed": _listed,
    "windows.settings": _settings,
    "windows.registry": _registry,
    "windows.folder": _folder,
    "windows.loaded": _loaded,
    "windows.lost": _lost,
    "windows.service": _service,
    "windows.records": _records,
    "windows.quarantine": _quarantine,
}
_RESTS_ON = {"windows.loaded": ("windows.ppl", "windows.listed"), "windows.records": ("windows.service",)}
