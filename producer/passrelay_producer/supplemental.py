"""supplementalCredentials: Samba keeps the clear text there as an OpenPGP message, Primary:SambaGPG."""

from __future__ import annotations

import binascii
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passrelay_producer import nt_hash
from passrelay_producer.sources import PendingReason
from passrelay_schemas.errors import ConfigurationError, KeyFileError, PassrelayError
from passrelay_schemas.limits import MAX_KEY_FILE_BYTES
from passrelay_schemas.secret import Secret

if TYPE_CHECKING:
    from pysequoia import PyDecryptor

SAMBA_GPG = "Primary:SambaGPG"
_LENGTHS = struct.Struct("<III")
_PREFIX_BYTES = 96
_COUNT = struct.Struct("<HH")
_SIGNATURE = 0x50
_PACKAGE = struct.Struct("<HHH")
_MAX_MESSAGE_BYTES = 65536


class SupplementalError(PassrelayError):
    """The blob is not a USER_PROPERTIES structure."""


class ClearTextError(PassrelayError):
    """The clear text of an account cannot be had now; `reason` says what is missing."""

    def __init__(self, reason: PendingReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def packages(blob: bytes) -> dict[str, bytes]:
    """The packages of a USER_PROPERTIES blob ([MS-SAMR] 2.2.10.1) by name, unhexed; or SupplementalError."""
    start = _LENGTHS.size + _PREFIX_BYTES
    if len(blob) < start:
        raise SupplementalError(f"supplementalCredentials: {len(blob)} bytes are less than its header")
    zero, length, zero_too = _LENGTHS.unpack_from(blob)
    end = _LENGTHS.size + length
    # One byte of padding follows the counted part.
    if zero or zero_too or not end <= len(blob) <= end + 1:
        raise SupplementalError(f"supplementalCredentials: length {length} does not fit {len(blob)} bytes")
    if end == start:
        return {}
    if end < start + _COUNT.size:
        raise SupplementalError("supplementalCredentials: no room for the count of packages")
    signature, count = _COUNT.unpack_from(blob, start)
    if signature != _SIGNATURE:
        raise SupplementalError(f"supplementalCredentials: signature {signature:#x}, {_SIGNATURE:#x} was expected")
    found: dict[str, bytes] = {}
    position = start + _COUNT.size
    for _ in range(count):
        position = _take(blob[:end], position, found)
    if position != end:
        raise SupplementalError(f"supplementalCredentials: {end - position} bytes after the last package")
    return found


def _take(blob: bytes, position: int, found: dict[str, bytes]) -> int:
    if position + _PACKAGE.size > len(blob):
        raise SupplementalError("supplementalCredentials: a package's header is cut off")
    name_bytes: int
    data_bytes: int
    name_bytes, data_bytes, _reserved = _PACKAGE.unpack_from(blob, position)
    position += _PACKAGE.size
    if position + name_bytes + data_bytes > len(blob):
        raise SupplementalError("supplementalCredentials: a package is longer than the blob")
    raw_name, position = blob[position : position + name_bytes], position + name_bytes
    try:
        name = raw_name.decode("utf-16-le")
        data = binascii.unhexlify(blob[position : position + data_bytes])
    except (UnicodeDecodeError, binascii.Error):
        raise SupplementalError("supplementalCredentials: a package is not UTF-16 and hex digits") from None
    if name in found:
        raise SupplementalError(f"supplementalCredentials: package {name!r} stands twice")
    found[name] = data
    return position + data_bytes


class OpenPgpKeyFile:
    """The secret keys whose public halves smb.conf names in `password hash gpg key ids`; read again when replaced.

    Callable from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._decryptors: list[tuple[str, PyDecryptor]] = []

    @property
    def state(self) -> tuple[int, ...]:
        """Changes whenever the file is made, replaced or removed: then what waits for a key is worth another try."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)

    def check(self) -> None:
        """Read the file if it changed. KeyFileError: missing, readable by others, no usable secret key."""
        with self._lock:
            state = self.state
            if state == self._seen and self._decryptors:
                return
            self._decryptors = _decryptors(self._path)
            self._seen = state

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the (primary) keys in the file as it is now, as GnuPG prints them; none where it cannot be used."""
        try:
            self.check()
        except ConfigurationError:
            return ()
        return tuple(fingerprint for fingerprint, _ in self._decryptors)

    def open(self, message: bytes) -> bytes:
        """The content of an OpenPGP message; ClearTextError(KEY_MISSING) when no key of the file opens it."""
        import pysequoia

        try:
            self.check()
        except KeyFileError:
            raise ClearTextError(PendingReason.KEY_MISSING) from None
        for _, decryptor in self._decryptors:
            try:
                opened = pysequoia.decrypt(message, decryptor=decryptor)
            except Exception:  # noqa: BLE001, S112 - pysequoia has no error type of its own; each key may fail
                continue
            if opened.bytes is not None:
                return opened.bytes
        raise ClearTextError(PendingReason.KEY_MISSING)


def _decryptors(path: Path) -> list[tuple[str, PyDecryptor]]:
    """Each secret key of the file, with its fingerprint (RFC 9580 5.5.4) in upper case hex."""
    try:
        from pysequoia import Tsk
        from pysequoia.packet import PacketPile, Tag
    except ImportError:
        raise ConfigurationError("[source.samba] needs pysequoia: install passrelay[samba]") from None
    try:
        mode = path.stat().st_mode
        content = path.read_bytes() if path.stat().st_size <= MAX_KEY_FILE_BYTES else b""
    except OSError as error:
        raise KeyFileError(
            f"[source.samba] gpg_key_file {path}: {error.strerror}: export the secret key to it, mode 0600"
        ) from None
    if mode & 0o077:
        raise KeyFileError(
            f"[source.samba] gpg_key_file {path}: mode {mode & 0o777:04o} lets others read it: chmod 600"
        )
    keys: list[list[Any]] = []
    try:
        for packet in PacketPile.from_bytes(content):
            if packet.tag == Tag.SecretKey:
                keys.append([])
            keys[-1].append(packet)
        decryptors = [(key[0].fingerprint.upper(), Tsk.from_packets(key).decryptor()) for key in keys]
    except Exception:  # noqa: BLE001 - pysequoia has no error type of its own, and its text quotes a stack
        decryptors = []
    if not decryptors:
        raise KeyFileError(
            f"[source.samba] gpg_key_file {path}: no secret OpenPGP key without a passphrase: "
            "export it with `gpg --export-secret-keys ID`"
        )
    return decryptors


def clear_text(*, blob: bytes | None, unicode_pwd: bytes | None, key: OpenPgpKeyFile) -> Secret:
    """The password that belongs to `unicode_pwd`, or ClearTextError.

    A controller without the OpenPGP key leaves the package of an older password in place, hence the comparison.
    """
    try:
        message = packages(blob).get(SAMBA_GPG) if blob is not None else None
    except SupplementalError:
        raise ClearTextError(PendingReason.UNREADABLE) from None
    if message is None:
        raise ClearTextError(PendingReason.NO_CLEAR_TEXT)
    if unicode_pwd is None or len(message) > _MAX_MESSAGE_BYTES:
        raise ClearTextError(PendingReason.UNREADABLE)
    opened = key.open(message)
    if not nt_hash.matches(opened, unicode_pwd):
        raise ClearTextError(PendingReason.STALE_CLEAR_TEXT)
    if len(opened) % 2:
        # Not left to decode(): its exception would carry the bytes.
        raise ClearTextError(PendingReason.UNREADABLE)
    # AD takes any UTF-16; a lone surrogate is refused where the event is encoded, by its own reason.
    return Secret(opened.decode("utf-16-le", "surrogatepass"))
