"""A ledger's file: its tables, opening it, what can be wrong with it, and the next row of its chain.

The file is SQLite's. A writer waits for another for up to half a minute; a reader delays no writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from s3t.store import hash_chain
from s3t.store.certificates import canonical

Ledger = sqlite3.Connection

WAIT_SECONDS = 30.0
BROKEN = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}  # a file that is not whole
UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}  # one that may be read only

SCHEMA = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, request TEXT NOT NULL,
                  detail TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE examples (id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, slice INTEGER NOT NULL,
                       registered INTEGER NOT NULL, deleted INTEGER);
CREATE INDEX places ON examples (shard, slice);
CREATE INDEX deletions ON examples (deleted) WHERE deleted IS NOT NULL;
CREATE TABLE requests (request TEXT PRIMARY KEY, state TEXT NOT NULL, deactivated INTEGER NOT NULL);
CREATE INDEX states ON requests (state);
CREATE TABLE nodes (identity TEXT PRIMARY KEY, shard INTEGER NOT NULL, slices TEXT NOT NULL, as_of INTEGER NOT NULL,
                    certificate TEXT NOT NULL, published INTEGER NOT NULL, dropped INTEGER, purged INTEGER);
CREATE INDEX live ON nodes (shard) WHERE dropped IS NULL;
CREATE INDEX unpurged ON nodes (dropped) WHERE dropped IS NOT NULL AND purged IS NULL;
"""


class Damaged(ValueError):
    """A file that is no ledger, or no longer a whole one."""


class Head(NamedTuple):
    """Where a ledger stands: the number of its rows and the digest of the last."""

    rows: int
    digest: str


# --- Opening ----------------------------------------------------------------------------------------------------------


def create_ledger(path: Path, manifest: str) -> Ledger:
    """A new ledger with its first row.

    Args:
      path: of a file that does not exist.
      manifest: digest of the store's manifest.

    Raises:
      ValueError: the file exists.
    """
    if path.exists():
        raise ValueError(f"there is a ledger at {path} already: open it or choose another place")
    ledger = _connect(path, "rwc")
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.executescript(SCHEMA)
    ledger.close()
    ledger = open_ledger(path)
    with ledger:
        begin(ledger)
        append(ledger, "created", "", {"manifest": manifest})
    return ledger


def open_ledger(path: Path, *, read_only: bool = False) -> Ledger:
    """An existing ledger.

    Args:
      path: of its file.
      read_only: the ledger may be one that this process has no permission to write and no other process writes meanwhile, a
        copy on a read-only disk. It is then read without locks and would not show what others append: not for a server.

    Raises:
      Damaged: it is not whole.
      ValueError: there is none, or it cannot be read here or now.
    """
    if not path.is_file():
        raise ValueError(f"there is no ledger at {path}")
    try:
        return _probed(path, "rw")
    except sqlite3.DatabaseError as error:
        ahead = path.with_name(path.name + "-wal")  # rows that are not in the file yet
        if not read_only or _code(error) not in UNWRITABLE or ahead.exists():
            raise _explanation(path, error) from None
    with explained(path):
        return _probed(path, "ro&immutable=1")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a ledger that cannot be read whether it is damaged, or out of this process's reach.

    Raises:
      Damaged, ValueError: as `open_ledger`.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from None


def _explanation(path: Path, error: sqlite3.DatabaseError) -> ValueError:
    if _code(error) in BROKEN:
        return Damaged(f"{path.parent}'s ledger is damaged ({error}): restore it from a copy")
    return ValueError(
        f"{path.parent}'s ledger cannot be read ({error}): check who may write there, and that no other process holds it"
    )


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code; what the sqlite3 module itself finds wrong counts as SQLITE_ERROR."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _probed(path: Path, mode: str) -> Ledger:
    """A connection to a file that has all tables."""
    ledger = _connect(path, mode)
    try:
        ledger.execute("PRAGMA synchronous = FULL")  # a commit returns when it is on disk, not when it is consistent
        ledger.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves it in the drive's cache
        ledger.execute("SELECT 1 FROM log, examples, requests, nodes LIMIT 0").fetchone()
    except sqlite3.DatabaseError:
        ledger.close()
        raise
    return ledger


def _connect(path: Path, mode: str) -> Ledger:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, timeout=WAIT_SECONDS, isolation_level=None, uri=True)


# --- The chain --------------------------------------------------------------------------------------------------------


def head(ledger: Ledger) -> Head:
    """The ledger's head as committed by any process: a few microseconds, to be asked before every batch served."""
    row = ledger.execute("SELECT seq, digest FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, hash_chain.START)


def begin(ledger: Ledger) -> None:
    """Take the one write lock; leaving `with ledger` commits, or takes everything back after an exception."""
    ledger.execute("BEGIN IMMEDIATE")


def append(ledger: Ledger, kind: str, request: str, detail: dict[str, Any]) -> Head:
    """The next row of the chain."""
    before = head(ledger)
    seq, text = before.rows + 1, canonical(detail).decode()
    (at,) = ledger.execute("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").fetchone()
    digest = hash_chain.link(before.digest, seq, at, kind, request, text)
    ledger.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", (seq, at, kind, request, text, digest))
    return Head(seq, digest)
