"""Capture on this Samba domain controller: its socket, clear text in its database, the key, and a password as proof."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from passrelay_ops.check import Result, Row
from passrelay_producer.sources import REPAIRS, PendingReason
from passrelay_producer.sources.samba_account import GroupsError, UnreadableError
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_producer.sources.samba_scope import SambaScope
from passrelay_producer.supplemental import ClearTextError, OpenPgpKeyFile, clear_text
from passrelay_schemas.errors import ConfigurationError, PassrelayError, UnavailableError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.source_settings import SambaSourceSettings

OPTION = "password hash gpg key ids"
_IDS = (
    "producer.socket",
    "producer.domain",
    "producer.filter",
    "producer.cleartext",
    "producer.gpg_key",
    "producer.proof",
)
_TESTPARM_SECONDS = 60
_KEY_ID = re.compile(r"(?:0x)?([0-9A-F]{8,64})!?")
"""A key id or fingerprint as GnuPG takes it; anything else is a user id."""


@dataclass(frozen=True)
class KeyFile:
    """The secret OpenPGP key of gpg_key_file."""

    fault: str = ""
    fingerprints: tuple[str, ...] = ()
    """Of its keys and subkeys: upper-case hex."""
    expires_at: datetime | None = None


@dataclass(frozen=True)
class SambaView:
    """What this host showed; what stands behind a fault was not looked at."""

    domain: str = ""
    socket_fault: str = ""
    filter_fault: str = ""
    key_ids: tuple[str, ...] | None = None
    """What smb.conf says; None when it could not be read, `smb_conf_fault` says why."""
    smb_conf_fault: str = ""
    key: KeyFile = field(default_factory=KeyFile)
    proof: PendingReason | str | None = None
    """Of the account whose password changed last: why its clear text cannot be had, or its kvno in words; None when
    there is no such account."""
    looked_at: datetime = field(default_factory=utc_now)


def look(settings: ProducerSettings, samba: SambaSourceSettings) -> SambaView:
    """Look once; nothing is captured and no clear text is kept."""
    key_ids, smb_conf_fault = _key_ids(samba.smb_conf)
    key = _key(samba.gpg_key_file)
    try:
        with SambaDirectory(samba.ldapi_path) as directory:
            domain = directory.domain
            try:
                scope = SambaScope(settings.filter, directory)
                scope.check()
            except ConfigurationError as error:
                return SambaView(domain, "", str(error), key_ids, smb_conf_fault, key)
            proof = _proof(directory, scope, OpenPgpKeyFile(samba.gpg_key_file))
    except UnavailableError as error:
        return SambaView("", str(error), "", key_ids, smb_conf_fault, key)
    return SambaView(domain, "", "", key_ids, smb_conf_fault, key, proof)


def _key_ids(smb_conf: Path) -> tuple[tuple[str, ...] | None, str]:
    """The option's value as Samba itself reads it, with includes; or why it cannot be read."""
    program = shutil.which("testparm")
    if program is None:
        return None, "testparm is not installed"
    try:
        done = subprocess.run(
            [program, "-s", f"--parameter-name={OPTION}", str(smb_conf)],
            capture_output=True,
            text=True,
            timeout=_TESTPARM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"testparm: {type(error).__name__}"
    if done.returncode:
        return None, f"testparm cannot read {smb_conf}: {' '.join(done.stderr.split())[-200:]}"
    return tuple(part for part in re.split(r"[\s,]+", done.stdout.strip()) if part), ""


def _key(path: Path) -> KeyFile:
    try:
        OpenPgpKeyFile(path).check()
    except PassrelayError as error:
        return KeyFile(fault=str(error))
    from pysequoia import Cert
    from pysequoia.packet import PacketPile, Tag

    content = path.read_bytes()
    try:
        keys = [packet for packet in PacketPile.from_bytes(content) if packet.tag in (Tag.SecretKey, Tag.SecretSubkey)]
        fingerprints = tuple(str(packet.fingerprint).upper() for packet in keys)
        expires_at = Cert.from_bytes(content).expiration
    except Exception as error:  # noqa: BLE001 - pysequoia has no error type of its own, and its text quotes a stack
        return KeyFile(fault=f"[source.samba] gpg_key_file {path}: {type(error).__name__}: export the key again")
    return KeyFile("", fingerprints, expires_at)


def _proof(directory: SambaDirectory, scope: SambaScope, key: OpenPgpKeyFile) -> PendingReason | str | None:
    """Open the newest password that would be captured; what comes out is compared with its NT hash and dropped."""
    newest = directory.highest_usn()
    seen, since = set(), newest
    while since > 1:
        # Further back each time: in a large domain nobody reads everything for the sake of one account.
        since = max(1, newest - 10 * (newest - since) - 1000)
        writes = {guid: usn for guid, usn in directory.writes(since).items() if usn is not None and guid not in seen}
        for guid in sorted(writes, key=lambda guid: writes[guid] or 0, reverse=True):
            seen.add(guid)
            try:
                reading = directory.read(guid)
                if reading is None or reading.unicode_pwd is None:
                    continue
                if scope.filter.exclusion(scope.with_token(reading)) is not None:
                    continue
            except GroupsError:
                return PendingReason.NO_GROUPS
            except UnreadableError:
                return PendingReason.UNREADABLE
            try:
                clear_text(blob=reading.supplemental, unicode_pwd=reading.unicode_pwd, key=key)
            except ClearTextError as error:
                return error.reason
            return "the clear text of the newest password opens, and is that password"
    return None


def rows(subject: str, settings: ProducerSettings, samba: SambaSourceSettings, view: SambaView) -> list[Row]:
    """Every check of this controller; what rests on one that failed is unknown."""
    cleartext, gpg_key = _cleartext(subject, view), _gpg_key(subject, samba, view)
    if view.socket_fault:
        what, _, repair = view.socket_fault.rpartition(": ")
        socket = Row("producer.socket", subject, Result.FAIL, what, repair)
        after = [
            Row(check, subject, Result.UNKNOWN, "producer.socket failed")
            for check in ("producer.domain", "producer.filter")
        ]
        proof = Row("producer.proof", subject, Result.UNKNOWN, "producer.socket failed")
        return [socket, *after, cleartext, gpg_key, proof]
    return [
        Row("producer.socket", subject, Result.OK, f"{samba.ldapi_path} gives the rights of the system"),
        _domain(subject, settings, view),
        _filter(subject, view),
        cleartext,
        gpg_key,
        _proved(subject, view, [cleartext, gpg_key]),
    ]


def ids() -> tuple[str, ...]:
    """The checks of a Samba domain controller."""
    return _IDS


def _domain(subject: str, settings: ProducerSettings, view: SambaView) -> Row:
    names = [domain.name for domain in settings.domain]
    if not names or view.domain in names:
        return Row("producer.domain", subject, Result.OK, view.domain)
    detail = f"this is a controller of {view.domain}, [[domain]] names {', '.join(names)}"
    return Row("producer.domain", subject, Result.FAIL, detail, f'write name = "{view.domain}" in [[domain]]')


def _filter(subject: str, view: SambaView) -> Row:
    if not view.filter_fault:
        return Row("producer.filter", subject, Result.OK, "its groups and OUs exist")
    what, _, repair = view.filter_fault.rpartition(": ")
    return Row("producer.filter", subject, Result.FAIL, what, repair)


def _cleartext(subject: str, view: SambaView) -> Row:
    check = "producer.cleartext"
    if view.key_ids is None:
        return Row(check, subject, Result.UNKNOWN, view.smb_conf_fault, "name smb.conf in [source.samba] smb_conf")
    if not view.key_ids:
        return Row(
            check,
            subject,
            Result.FAIL,
            f"smb.conf does not set `{OPTION}`: AD keeps no clear text, so nothing can be captured",
            f"set `{OPTION} = FINGERPRINT` in smb.conf on every DC and restart samba; passwords changed until then "
            "must be changed again",
        )
    return Row(check, subject, Result.OK, f"{OPTION} = {' '.join(view.key_ids)}")


def _gpg_key(subject: str, samba: SambaSourceSettings, view: SambaView) -> Row:
    check, key = "producer.gpg_key", view.key
    if key.fault:
        what, _, repair = key.fault.rpartition(": ")
        return Row(check, subject, Result.FAIL, what, repair)
    if key.expires_at is not None and key.expires_at <= view.looked_at:
        detail = f"the key expired on {key.expires_at:%Y-%m-%d}: GnuPG on the DC encrypts to it no more"
        repair = "lengthen it (`gpg --quick-set-expire FINGERPRINT 5y`) in the DC's GNUPGHOME, and export it again"
        return Row(check, subject, Result.FAIL, detail, repair)
    if view.key_ids and not fits(view.key_ids, key.fingerprints):
        detail = f"{samba.gpg_key_file} holds {', '.join(key.fingerprints)}, smb.conf names {' '.join(view.key_ids)}"
        repair = f"`gpg --export-secret-keys {view.key_ids[0]}` into {samba.gpg_key_file}, mode 0600"
        return Row(check, subject, Result.FAIL, detail, repair)
    return Row(
        check, subject, Result.OK, f"{samba.gpg_key_file}: {key.fingerprints[0] if key.fingerprints else 'usable'}"
    )


def fits(key_ids: Sequence[str], fingerprints: Sequence[str]) -> bool:
    """One of smb.conf's ids names one of these keys; True too where an id is a name, which only GnuPG can look up."""
    for key_id in key_ids:
        found = _KEY_ID.fullmatch(key_id.upper().replace("0X", "0x"))
        if found is None or any(fingerprint.endswith(found[1]) for fingerprint in fingerprints):
            return True
    return False


def _proved(subject: str, view: SambaView, before: Sequence[Row]) -> Row:
    check = "producer.proof"
    failed = next(_failed(before), None)
    if view.filter_fault:
        return Row(check, subject, Result.UNKNOWN, "producer.filter failed")
    if isinstance(view.proof, PendingReason):
        if failed is not None:
            return Row(check, subject, Result.UNKNOWN, f"{failed} failed")
        detail = f"the password that was changed last cannot be read: {view.proof}"
        return Row(check, subject, Result.FAIL, detail, REPAIRS[view.proof])
    if view.proof is None:
        return Row(check, subject, Result.UNKNOWN, "nobody whom the filter lets in has a password yet")
    return Row(check, subject, Result.OK, view.proof)


def _failed(rows: Sequence[Row]) -> Iterator[str]:
    return (row.id for row in rows if row.result is not Result.OK)
