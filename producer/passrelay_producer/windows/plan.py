"""What installing and removing would do, as steps in their order, decided from one look at the machine.

Each act may be repeated, so a second run, also after one that was cut off, ends where the first should have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from passrelay_producer.sources.hook_folder import QUARANTINE
from passrelay_producer.windows import (
    ACCOUNT,
    DLL,
    EVENT_SOURCES,
    HOOK,
    LEAST_BUILD,
    SERVICE,
    folders,
    only_readable,
    only_taken_from,
    own,
    packages,
    registry,
    service_command,
    settings_access,
    virtual_account_sid,
)
from passrelay_producer.windows.facts import DllFile, Facts, HookSettings, Role
from passrelay_producer.windows.folders import FolderFacts, Occupied
from passrelay_producer.windows.hands import Hands
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.windows_acl import TRUSTED_INSTALLER, WRITE, strangers

_MOST_FOLDER = 179
"""Characters of the hook's folder (windows_hook/path.h)."""


@dataclass(frozen=True)
class Step:
    """One act and what it does, in words."""

    text: str
    act: Callable[[Hands], None]


@dataclass(frozen=True)
class Plan:
    """`refused` says why nothing is done at all; `after` what is left for a person."""

    refused: Sequence[str] = ()
    steps: Sequence[Step] = ()
    after: Sequence[str] = ()


@dataclass(frozen=True)
class Wanted:
    """What is to be installed."""

    config: Path
    settings: ProducerSettings | None
    """None while there is no producer.toml: then only the folders are made."""
    producer: str | None
    """As the signing key says; None while there is none."""
    hook_key: KeyDocument | None
    """A new one; None keeps what the registry has."""
    dll: DllFile | None
    python: Path
    folders: Sequence[FolderFacts]
    """What `own_folders` names, as it was found."""
    occupied: Occupied
    in_environment: bool = False
    """This Python is a virtual environment's."""
    trusted: frozenset[str] = field(default_factory=frozenset)
    """SIDs that may write the program's folder."""
    signed_by_microsoft: bool = False
    """The operator says that the DLL has the signature which a hardened LSASS asks for."""


def install(facts: Facts, wanted: Wanted) -> Plan:
    """Folders first, so that keys and settings are never readable by others, then all that rests on them."""
    refused = [*_machine_refuses(facts, wanted), *_settings_refuse(facts, wanted)]
    refused += _folders_refuse(own_folders(wanted.config, wanted.settings), wanted.folders, wanted.occupied)
    if refused:
        return Plan(refused)
    steps = [*_folders(wanted)]
    if wanted.settings is None or wanted.producer is None:
        return Plan((), steps, [_begin(wanted)])
    hook = wanted.settings.source.hook
    if hook is None:
        return Plan(["[source.hook] is missing"])
    settings = _hook_settings(facts, wanted, wanted.producer, str(hook.folder))
    access = settings_access(virtual_account_sid())
    text = f"registry: HKLM\\SOFTWARE\\passrelay\\hook: SYSTEM, Administrators, and {ACCOUNT} may read"
    steps.append(Step(text, lambda hands: hands.close_settings(access)))
    if settings != facts.settings:
        text = (
            f"registry: HKLM\\SOFTWARE\\passrelay\\hook for {settings.producer}, sealing to {settings.recipient_key_id}"
        )
        steps.append(Step(text, lambda hands: hands.write_settings(settings)))
    after = [*_dll(facts, wanted, steps)]
    before = facts.settings.folder if facts.settings is not None else ""
    if before and not registry.same_folder(before, hook.folder):
        after.append(f"the hook wrote to {before} until now: move the *.record files in it into {hook.folder}")
    system = PureWindowsPath("%SystemRoot%") / "System32" / DLL
    steps += [_source(source, Path(system)) for source in EVENT_SOURCES]
    command = service_command(PureWindowsPath(wanted.python), PureWindowsPath(wanted.config))
    same = facts.service is not None and facts.service.command == command and facts.service.account == ACCOUNT
    text = f"service {SERVICE}: {'as it is' if same else 'make'}, account {ACCOUNT}, restarted after a failure"
    steps.append(Step(text, lambda hands: hands.make_service(command)))
    steps.append(Step(f"service {SERVICE}: start", lambda hands: hands.start_service()))
    return Plan((), steps, after)


def _machine_refuses(facts: Facts, wanted: Wanted) -> list[str]:
    found = []
    if facts.role is Role.NONE:
        found.append(
            "this is no domain controller: the hook sees changes where they are made, on each writable controller"
        )
    if facts.role is Role.READ_ONLY:
        found.append(
            "this is a read-only domain controller, where no password is ever changed: install on the writable ones"
        )
    if facts.build < LEAST_BUILD:
        found.append(f"Windows build {facts.build}: Server 2016 ({LEAST_BUILD}) or later is needed")
    if not facts.wide:
        found.append("this Python is a 32-bit one and would not see the real System32: install the 64-bit one")
    if not facts.elevated:
        found.append("this account is no administrator here, or not elevated: start it as administrator")
    if wanted.in_environment:
        found.append(
            f"{wanted.python} is a virtual environment's, which only starts another Python; Windows' service manager "
            "would watch the wrong process: install passrelay into a Python of its own"
        )
    if facts.program is not None:
        others = strangers(facts.program, WRITE, {*wanted.trusted, TRUSTED_INSTALLER})
        if others:
            found.append(
                f"{wanted.python.parent} can be written by {', '.join(others)}, who would run as the service: put "
                "this Python below C:\\Program Files"
            )
    if facts.protected and not wanted.signed_by_microsoft:
        found.append(
            f"RunAsPPL is {facts.protected}: LSASS is hardened and loads only DLLs that Microsoft has signed; this "
            "one is not, and would be left out at the next start without a word of its own. Have the DLL signed by "
            "Microsoft (Hardware Dev Center, LSA signing) and say --signed-by-microsoft, or take RunAsPPL away from "
            "this controller knowing what it protects against"
        )
    return found


def _settings_refuse(facts: Facts, wanted: Wanted) -> list[str]:
    found = []
    if wanted.dll is None:
        found.append(f"{DLL} is missing: name it with --dll")
    key = wanted.hook_key
    if key is not None and (key.use is not KeyUse.HOOK or key.status is not KeyStatus.ACTIVE):
        found.append(
            f"key {key.key_id} is a {key.status} {key.use} key: name the active hook key's document (*.pub.json), made "
            "by `passrelay keys init hook` on a consumer"
        )
    if wanted.settings is None or wanted.producer is None:
        return found
    if key is None and not (facts.settings is not None and facts.settings.recipient_key_id):
        found.append("no hook key yet: copy its *.pub.json here from a consumer and name it with --hook-key")
    elif key is None and facts.settings_open:
        found.append(
            f"the hook's registry key lets others write it ({', '.join(facts.settings_open)}), so the recipient key in "
            "it may be theirs: name the hook key's document from a consumer with --hook-key"
        )
    elif key is None and facts.settings is not None and facts.settings.key_fault:
        found.append(
            f"the registry's hook key is damaged ({facts.settings.key_fault}): name the hook key's *.pub.json with "
            "--hook-key"
        )
    hook = wanted.settings.source.hook
    if hook is None:
        found.append(f"{wanted.config}: has no [source.hook]: write it (docs/windows.md)")
        return found
    folder = PureWindowsPath(hook.folder)
    local = len(folder.drive) == len("C:") and folder.root and len(str(folder)) <= _MOST_FOLDER
    if not local:
        found.append(
            f"[source.hook] folder {folder}: the hook needs a folder on a local disk, at most {_MOST_FOLDER} characters"
        )
    if not facts.domain_sid:
        found.append("Windows does not tell the domain's SID: is this controller working?")
    found += [
        f"[[domain]] {domain.name}: sid is {domain.sid}, this controller's domain is {facts.domain_sid}"
        for domain in wanted.settings.domain
        if domain.sid not in (None, facts.domain_sid)
    ]
    return found


def _begin(wanted: Wanted) -> str:
    if wanted.settings is None:
        missing = f"write {wanted.config} (docs/windows.md)"
    else:
        missing = "make its key: `passrelay keys init producer NAME`"
    return (
        f"the folders are ready; now {missing}, `passrelay keys enroll` the consumers' documents, carry this "
        "producer's to them, `passrelay config check`, and run this again"
    )


def own_folders(config: Path, settings: ProducerSettings | None) -> list[Path]:
    """The folders that are closed to others when installing: base, keys, spool, log, records."""
    base = config.parent
    keys = settings.keys.directory if settings is not None else base / "keys"
    spool = settings.spool.path.parent if settings is not None else base / "spool"
    hook = settings.source.hook if settings is not None else None
    records = hook.folder if hook is not None else base / "records"
    return [base, keys, spool, base / "log", records]


def _folders_refuse(wanted: Sequence[Path], found: Sequence[FolderFacts], occupied: Occupied) -> list[str]:
    looked = {folder.path: folder for folder in found}
    # One that nobody looked at is not passrelay's.
    facts = (looked.get(path, FolderFacts(path, free=False, marked=False)) for path in dict.fromkeys(wanted))
    return [why for folder in facts if (why := folders.why_not(folder, occupied))]


def _folders(wanted: Wanted) -> list[Step]:
    account = virtual_account_sid()
    closed = own_folders(wanted.config, wanted.settings)
    tops = {path for path in closed if folders.top(path, closed)}
    missing = {folder.path for folder in wanted.folders if folder.missing}
    base, keys, spool, log, records = closed

    def step(number: int, path: Path, sddl: str, text: str) -> Step:
        # One that an earlier step makes, itself or on the way to another, is there by then.
        new = path in missing and not any(folders.within(other, path) for other in closed[:number])

        def act(hands: Hands) -> None:
            hands.make_folder(path, sddl, new=new)
            if path in tops:
                hands.mark_folder(path)

        return Step(f"folder {path}: SYSTEM, Administrators, and {ACCOUNT} may {text}", act)

    made = [
        (base, only_readable(account), "read"),
        (keys, only_readable(account), "read"),
        (spool, own(account), "write"),
        (log, own(account), "write"),
        (records, only_taken_from(account), "read and delete files, and make none"),
        (records / QUARANTINE, own(account), "write"),
    ]
    return [step(number, *one) for number, one in enumerate(made)]


def _hook_settings(facts: Facts, wanted: Wanted, producer: str, folder: str) -> HookSettings:
    before = facts.settings or HookSettings()
    key = wanted.hook_key
    return HookSettings(
        recipient_key=before.recipient_key if key is None else key.public_bytes,
        recipient_key_id=before.recipient_key_id if key is None else key.key_id,
        producer=producer,
        domain_sid=facts.domain_sid,
        folder=folder,
    )


def _dll(facts: Facts, wanted: Wanted, steps: list[Step]) -> list[str]:
    """DLL and list; what a restart is needed for."""
    dll = wanted.dll
    if dll is not None and (facts.dll is None or facts.dll.sha256 != dll.sha256):
        text = f"{DLL} {dll.version} into System32 (SHA-256 {dll.sha256[:16]}...)"
        if facts.dll is not None:
            text += f", in the place of {facts.dll.version} ({facts.dll.sha256[:16]}...)"
        steps.append(Step(text, lambda hands: hands.place_dll(dll.path)))
    listed = packages.appended(facts.packages, HOOK)
    if listed != list(facts.packages):
        text = f"registry: Notification Packages was {_shown(facts.packages)}, becomes {_shown(listed)}"
        steps.append(Step(text, lambda hands: hands.add_package()))
    loaded = facts.loaded_dll
    if loaded is None:
        return ["restart this controller: LSASS loads the hook only when it starts; `status` says whether it did"]
    if dll is not None and loaded.sha256 != dll.sha256:
        return [f"restart this controller when convenient: LSASS goes on with {loaded.version} until then"]
    return []


def _source(source: str, messages: Path) -> Step:
    return Step(f"event log: source {source}", lambda hands: hands.register_source(source, messages))


def _shown(listed: Sequence[str]) -> str:
    return f"[{', '.join(listed)}]"


def remove(facts: Facts, *, data: Sequence[FolderFacts], occupied: Occupied, queued: int, with_data: bool) -> Plan:
    """The hook's end needs a restart; until then it goes on writing records, so its settings and folder stay.

    `data`: the folders that hold passrelay's data. `queued`: events in the spool that the broker has not.
    """
    waits = _waits(facts, queued)
    if not facts.elevated:
        return Plan(["this account is no administrator here, or not elevated: start it as administrator"])
    if with_data and (facts.loaded or waits):
        why = [*waits, *(["the hook is loaded and writes on until the controller restarts"] if facts.loaded else [])]
        refusal = (
            f"--remove-data: {'; '.join(why)}. Let the service send them, remove without --remove-data, restart, and "
            "run this again; or delete the folders by hand, and have those passwords changed again"
        )
        return Plan([refusal])
    if with_data and (others := [fault for folder in data if (fault := folders.why_not(folder, occupied))]):
        return Plan([f"--remove-data: {fault}; or remove without --remove-data" for fault in others])
    steps = []
    if facts.service is not None:
        steps.append(Step(f"service {SERVICE}: stop and remove", lambda hands: hands.remove_service()))
    listed = packages.removed(facts.packages, HOOK)
    if listed != list(facts.packages):
        text = f"registry: Notification Packages was {_shown(facts.packages)}, becomes {_shown(listed)}"
        steps.append(Step(text, lambda hands: hands.remove_package()))
    if facts.dll is not None:
        text = f"{DLL}: remove{', at the next start' if facts.loaded else ''}"
        steps.append(Step(text, lambda hands: hands.remove_dll()))
    after = []
    if facts.loaded:
        after.append(
            "LSASS keeps the hook, its settings and folder until this controller restarts; run this again afterwards"
        )
    else:
        steps += [_no_source(source) for source in EVENT_SOURCES]
        if facts.settings is not None:
            steps.append(
                Step("registry: HKLM\\SOFTWARE\\passrelay\\hook: remove", lambda hands: hands.remove_settings())
            )
    if with_data:
        steps += [_no_folder(folder.path) for folder in data]
    else:
        kept = ", ".join(str(folder.path) for folder in data)
        after.append(
            f"kept: {kept}" + (f"; {'; '.join(waits)}: installed again, the service sends them" if waits else "")
        )
    return Plan((), steps, after)


def _waits(facts: Facts, queued: int) -> list[str]:
    found = []
    if facts.waiting.fault:
        found.append(f"what waits in the hook's folder cannot be told ({facts.waiting.fault})")
    if facts.waiting.records:
        found.append(f"{facts.waiting.records} records wait in the hook's folder")
    if facts.waiting.quarantined:
        found.append(f"{facts.waiting.quarantined} records are in quarantine")
    if queued:
        found.append(f"{queued} events wait in the spool for the broker")
    return found


def _no_source(source: str) -> Step:
    return Step(f"event log: source {source}: remove", lambda hands: hands.remove_source(source))


def _no_folder(path: Path) -> Step:
    return Step(f"folder {path}: remove with everything in it", lambda hands: hands.remove_tree(path))
