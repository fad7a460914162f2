"""The spool's file: made with the right modes and schema, or refused with its name and the repair."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from passrelay_producer import spool_schema
from passrelay_producer.spool_lock import alone
from passrelay_producer.spool_schema import FORMER, SCHEMA
from passrelay_schemas import windows_acl
from passrelay_schemas.errors import ConfigurationError, SafetyError, UnavailableError
from passrelay_schemas.logs import Action, Log

_BUSY_SECONDS = 30
"""How long to wait for another process (`producer republish`, `producer capture`) that is writing."""


class SpoolFullError(UnavailableError):
    """The spool cannot take more now: its disk is full or failing, or max_bytes of unpublished events are reached."""


_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
"""What a full disk, a failing one and one that the kernel made read-only look like to SQLite."""
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def explained(path: Path, lacks: str = "cannot be written", then: str = "") -> Iterator[None]:
    """SQLite's errors as ours; what is left is a fault of the program and passes through.

    `lacks` and `then` are words of the error for a full disk: what cannot be done, and what to do.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if code in _FULL:
            raise SpoolFullError(f"spool {path}: {lacks} ({name}): its disk is full or failing{then}") from None
        if code in _BUSY:
            raise UnavailableError(f"spool {path}: another process holds it ({name})") from None
        if code in _DAMAGED:
            raise _foreign(path, f"damaged ({name})") from None
        raise


def _foreign(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"spool {path}: {what}: stop the producer, move the file and its -wal aside (keep them), "
        "then start again with `passrelay producer init --from all`"
    )


def open_file(path: Path) -> sqlite3.Connection:
    """The connection to the spool at `path`, made new if there is none.

    ConfigurationError when directory or file belong to, or can be read by, others, and when the file is damaged or
    of another version: it is never made anew by itself, since it may hold what was not published yet.
    """
    _prepare(path)
    with explained(path):
        try:
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(f"spool {path}: cannot be opened ({error.sqlite_errorname})") from None
        try:
            _set_up(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(path.parent, "directory", 0o700)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _sync(path.parent)
        except FileExistsError:
            _check(path, "file", 0o600)
    except OSError as error:
        raise ConfigurationError(f"spool {path}: cannot be made ({error.strerror}): check [spool] path") from None


def _check(path: Path, what: str, mode: int) -> None:
    if sys.platform == "win32":
        # The file's own list is its directory's.
        if what == "directory" and (fault := windows_acl.read_fault(path, service="M")):
            raise ConfigurationError(f"spool {what} {path}: {fault}")
        return
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"spool {what} {path}: belongs to user id {found.st_uid}, this process runs as {os.geteuid()}: "
            "run as the spool's owner, or chown it"
        )
    if found.st_mode & 0o077:
        raise ConfigurationError(
            f"spool {what} {path}: mode {found.st_mode & 0o777:04o} lets others in: `chmod {mode:o} {path}`"
        )


def _sync(directory: Path) -> None:
    """Make a new name durable; Windows needs and knows no such thing."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    # Look before the first write: a foreign file must not even be switched to another journal mode.
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and "meta" not in tables:
        raise _foreign(path, "not a spool but another SQLite file")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise ConfigurationError(f"spool {path}: SQLite's WAL does not work on its file system: take a local one")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if not tables:
        with writing(connection):
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
                spool_schema.make(connection)
    form = spool_schema.form(connection)
    if form == FORMER:
        form = _bring_over(connection, path)
    if form != SCHEMA:
        raise _foreign(path, f"of version {form or 'unknown'}, this program reads {SCHEMA}")


def _bring_over(connection: sqlite3.Connection, path: Path) -> str | None:
    """Make the file one of this form, all or nothing; the form that it then has.

    SafetyError while a producer runs on it: it is of the version before and would end. SpoolFullError when the disk has
    no room for that: the file is as it was.
    """
    began = time.monotonic()
    lacks, then = f"of version {FORMER}, cannot be brought to {SCHEMA}", "; it is as it was: make room and start again"
    try:
        with alone(path.parent), explained(path, lacks, then), writing(connection):
            if spool_schema.form(connection) == FORMER:  # not yet brought over by another process meanwhile
                spool_schema.bring_over(connection)
    except SafetyError:
        with writing(connection):  # waits for another process of this version that is just bringing it over
            form = spool_schema.form(connection)
        if form == SCHEMA:
            return form
        raise SafetyError(
            f"spool {path}: of version {FORMER}, and a producer of the version before runs on it: stop that one first"
        ) from None
    seconds = round(time.monotonic() - began, 1)
    Log("spool").info(Action.SPOOL_CONVERTED, spool=str(path), former=FORMER, form=SCHEMA, seconds=seconds)
    return spool_schema.form(connection)


@contextmanager
def writing(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """One transaction: all that is done inside, or nothing of it after an exception."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some errors SQLite has already rolled back by itself; only the first error counts.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def one_view(connection: sqlite3.Connection) -> AbstractContextManager[None]:
    """Every query inside sees the file as the first one does, whatever other processes commit meanwhile."""
    return writing(connection, "BEGIN")
