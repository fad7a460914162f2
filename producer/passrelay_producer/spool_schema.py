"""The tables of the spool's file, and how a file of the form before becomes one of this form (docs/adr/0021).

`captured` is written once for each event and never changed; what changes lies in the narrow tables beside it: an event
that waits for the broker has a row in `queued`, one that the broker has confirmed a row in `published`.
"""

from __future__ import annotations

import sqlite3

SCHEMA = "passrelay.spool/2"
FORMER = "passrelay.spool/1"

_PLACES = """
CREATE TABLE recipient (id INTEGER PRIMARY KEY, recipient_key_id TEXT NOT NULL UNIQUE);
CREATE TABLE queued (
    seq INTEGER PRIMARY KEY,
    recipient INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    queued_at INTEGER NOT NULL      -- when it was captured, or republished; milliseconds since 1970, as all times here
);
CREATE TABLE published (
    published_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    recipient INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (published_at, seq)
) WITHOUT ROWID;
"""
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE captured (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    recipient_key_id TEXT NOT NULL,
    protected BLOB NOT NULL,
    sealed BLOB NOT NULL,           -- each part after its length (4 bytes, big-endian)
    bytes INTEGER NOT NULL,         -- of protected and sealed
    captured_at INTEGER NOT NULL,
    queued_at INTEGER NOT NULL      -- the same; a file that was of the form before has times of its own here
);
CREATE TABLE account (
    guid TEXT PRIMARY KEY, kvno INTEGER NOT NULL, must_change INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pending (
    guid TEXT PRIMARY KEY, reason TEXT NOT NULL, since INTEGER NOT NULL, attempts INTEGER NOT NULL
) WITHOUT ROWID;
"""
_EXCLUDED = """
CREATE TABLE IF NOT EXISTS excluded (seq INTEGER PRIMARY KEY AUTOINCREMENT, guid TEXT NOT NULL UNIQUE);
"""
# Its table `event` becomes `captured` as it lies: two columns more (published_at, state) are never looked at again, and
# by the other name a process of the version before that still has the file open fails, instead of adding events that
# nobody would publish. The queries need nothing but its two indexes, so not one wide row is read or written.
_BRING_OVER = """
INSERT INTO recipient (recipient_key_id) SELECT DISTINCT recipient_key_id FROM event;
INSERT INTO queued SELECT seq, recipient.id, bytes, queued_at FROM event INDEXED BY event_counts
    CROSS JOIN recipient USING (recipient_key_id);
INSERT INTO published SELECT published_at, seq, recipient, queued.bytes FROM event INDEXED BY event_by_publication
    CROSS JOIN queued USING (seq) WHERE published_at IS NOT NULL ORDER BY published_at, seq;
DELETE FROM queued WHERE seq IN (SELECT seq FROM published);
DROP INDEX event_by_publication;
DROP INDEX event_counts;
ALTER TABLE event RENAME TO captured;
"""


def make(connection: sqlite3.Connection) -> None:
    """All tables, into an empty file, in the caller's transaction."""
    _execute(connection, _TABLES + _PLACES + _EXCLUDED)
    connection.execute("INSERT INTO meta VALUES ('schema', ?)", (SCHEMA,))


def bring_over(connection: sqlite3.Connection) -> None:
    """Make this form of the form before, in the caller's transaction."""
    _execute(connection, _PLACES + _EXCLUDED + _BRING_OVER)  # spools from before there were filters lack `excluded`
    connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (SCHEMA,))


def form(connection: sqlite3.Connection) -> str | None:
    """The file's form as it says itself."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    return None if row is None else str(row[0])


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    # Not executescript(), which would commit first.
    for statement in statements.strip().split(";\n"):
        connection.execute(statement)
