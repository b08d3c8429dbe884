"""A ledger's file: its tables, opening it, what can be wrong with it, and the next row of its chain.

The file is SQLite's. A writer waits for another for up to half a minute; a reader delays no writer. A connection belongs to
the file that it opened: if another file stands at its path, every look and every change is refused.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from s3t.store import events, files
from s3t.store.certificates import canonical
from s3t.store.ledger import hash_chain

WAIT_SECONDS = 30.0
BROKEN = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}  # a file that is not whole
FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # on a full disk the latter is said of a file that cannot grow
UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, *FULL}  # one that may be read only
ROOM = 1 << 16  # bytes; with less left a disk is full

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


class Ledger(sqlite3.Connection):
    """A connection to a ledger.

    path: of its file.
    frozen: it is read without locks and does not show what others append meanwhile: not for a server.
    file: what distinguishes the file from another one at its path; of a frozen ledger, from a changed one, too.
    appended: rows that are to be logged once they are committed.
    schema: SQLite's number of the tables, as they were when they were looked at.
    """

    path: Path
    frozen: bool
    file: tuple[int, ...] | None
    appended: list[hash_chain.Row]
    schema: int


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
    path.touch(0o600)  # it says who lies where; SQLite gives the files beside it the same permissions
    with explained(path):
        ledger = _connect(path, "rw")
        ledger.execute("PRAGMA journal_mode = WAL")
        ledger.executescript(SCHEMA)
        ledger.close()
    ledger = open_ledger(path)
    with writing(ledger):
        append(ledger, "created", "", {"manifest": manifest})
    return ledger


def open_ledger(path: Path, *, read_only: bool = False, any_thread: bool = False) -> Ledger:
    """An existing ledger.

    Args:
      path: of its file.
      read_only: the ledger may be one that this process cannot write and no other process writes meanwhile, a copy on a
        read-only or full disk. It is then frozen.
      any_thread: several threads will use the connection, one at a time.

    Raises:
      Damaged: it is not whole.
      ValueError: there is none, or it cannot be read here or now; a link in its place.
    """
    if not path.is_file():
        raise ValueError(f"there is no ledger at {path}")
    ahead = path.with_name(path.name + "-wal")  # rows that are not in the file yet
    for beside in (path, ahead, path.with_name(path.name + "-shm")):
        files.check_regular(beside)  # a link would lead writes and removals elsewhere
    _check_journal(path)
    try:
        return _probed(path, "rw", any_thread)
    except sqlite3.DatabaseError as error:
        if not read_only or code_of(error) not in UNWRITABLE or (ahead.exists() and ahead.stat().st_size):
            raise explanation(path, error) from None
    with explained(path):
        return _probed(path, "ro&immutable=1", any_thread)


def _check_journal(path: Path) -> None:
    """Refuse a file by which SQLite would roll a ledger back: it may name any other file to remove.

    Raises:
      Damaged: there is such a file; a ledger keeps its changes in a -wal.
    """
    journal = path.with_name(path.name + "-journal")
    if os.path.lexists(journal):
        raise Damaged(f"{journal} is nothing that a store has: remove it if you know what it is, or restore the store")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a ledger that cannot be read or written whether it is damaged, or out of this process's reach.

    Raises:
      Damaged, ValueError: as `open_ledger`.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise explanation(path, error) from None


def explanation(path: Path, error: sqlite3.Error) -> ValueError:
    """What an error of SQLite's about the ledger at a path means, and what to do."""
    code, used = code_of(error), f"{path.parent}'s ledger cannot be used ({error})"
    if isinstance(error, sqlite3.ProgrammingError):
        return ValueError(f"{used}: it was closed, or is used in another thread than the one that opened it")
    if code in BROKEN:
        return Damaged(f"{path.parent}'s ledger is damaged ({error}): restore it from a copy")
    if code == sqlite3.SQLITE_FULL or (code in UNWRITABLE and _no_room(path)):
        return ValueError(
            f"{used}: the disk of {path} is full, make room there and repeat the command; nothing was changed"
        )
    if code in UNWRITABLE:
        return ValueError(f"{used}: {_obstacle(path)}")
    return ValueError(f"{used}: wait until no other process holds {path}, then repeat the command; nothing was changed")


def _obstacle(path: Path) -> str:
    """Why a ledger on a disk with room cannot be written, and what to do."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return f"too many files are open to open {path}, raise the limit (ulimit -n) and repeat the command"
        if error.errno == errno.EROFS:
            return f"the disk of {path} is read-only, mount it for writing and repeat the command; nothing was changed"
    return f"check who may write in {path.parent}, and its disk"


def _no_room(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < ROOM or (disk.f_files > 0 and disk.f_favail == 0)


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; what the sqlite3 module itself finds wrong counts as SQLITE_ERROR."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _probed(path: Path, mode: str, any_thread: bool) -> Ledger:
    """A connection to a file that has all tables."""
    opened = _identity(path, frozen="immutable" in mode)
    ledger = _connect(path, mode, any_thread)
    ledger.path, ledger.frozen, ledger.file = path.absolute(), "immutable" in mode, opened
    ledger.appended, ledger.schema = [], -1
    try:
        ledger.execute("PRAGMA trusted_schema = OFF")
        _check_schema(ledger)
        if mode == "rw" and ledger.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            ledger.execute("PRAGMA journal_mode = WAL")  # a copy that SQLite's VACUUM INTO made
        ledger.execute("PRAGMA synchronous = FULL")  # a commit returns when it is on disk, not when it is consistent
        ledger.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves it in the drive's cache
        ledger.execute("SELECT 1 FROM log, examples, requests, nodes LIMIT 0").fetchone()
        check_file(ledger)
    except (sqlite3.DatabaseError, ValueError):
        ledger.close()
        raise
    return ledger


def _check_schema(ledger: Ledger) -> None:
    """Refuse what would run inside our statements, such as a trigger that takes back what is acknowledged.

    Raises:
      Damaged: a trigger, a view or a virtual table; a table or an index of ours that was made otherwise.
    """
    (version,) = ledger.execute("PRAGMA schema_version").fetchone()
    if version == ledger.schema:
        return
    for kind, name, sql in ledger.execute("SELECT type, name, sql FROM sqlite_master"):
        made = str(sql)
        virtual = made.upper().startswith("CREATE VIRTUAL")
        if kind not in ("table", "index") or virtual or _own().get(name, made) != made:
            what = f"the {kind} {name!r:.80} is none of a store's"
            raise Damaged(f"{ledger.path.parent}'s ledger was altered ({what}): restore it from a copy")
    ledger.schema = version


@functools.cache
def _own() -> dict[str, str]:
    """Name -> statement of each table and index that a ledger is made with, as SQLite keeps it."""
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(SCHEMA)
        return {name: str(sql) for name, sql in made.execute("SELECT name, sql FROM sqlite_master")}


def _connect(path: Path, mode: str, any_thread: bool = False) -> Ledger:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(
        uri, timeout=WAIT_SECONDS, isolation_level=None, uri=True, factory=Ledger, check_same_thread=not any_thread
    )


def _identity(path: Path, frozen: bool) -> tuple[int, ...] | None:
    """Of a file that others write its device and number, of one that nobody writes its size and time, too."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, *((status.st_size, status.st_mtime_ns) if frozen else ()))


def check_file(ledger: Ledger) -> None:
    """Refuse a connection whose file is no longer the one at its path: what others append would never be seen.

    Raises:
      ValueError: the file was moved, replaced or removed, or a frozen one was changed.
    """
    if _identity(ledger.path, ledger.frozen) != ledger.file:
        raise ValueError(f"the ledger at {ledger.path} was moved or replaced while it was open: open the store anew")


@contextmanager
def reading(ledger: Ledger) -> Iterator[None]:
    """Read from one snapshot.

    Raises:
      Damaged, ValueError: as `open_ledger`, `check_file`.
    """
    with explained(ledger.path), ledger:
        check_file(ledger)
        ledger.execute("BEGIN")
        _check_schema(ledger)
        yield


@contextmanager
def writing(ledger: Ledger) -> Iterator[None]:
    """Take the one write lock; leaving commits and logs, or takes everything back after an exception.

    Raises:
      Damaged, ValueError: as `open_ledger`, `check_file`; if a file took the ledger's place meanwhile, what was committed
        holds for the file that was opened and not for the one that others see.
    """
    with explained(ledger.path):
        with ledger:
            ledger.execute("BEGIN IMMEDIATE")
            check_file(ledger)
            _check_schema(ledger)
            ledger.appended.clear()  # of what was taken back
            yield
        check_file(ledger)
    if events.LOGGER.isEnabledFor(logging.INFO):
        for row in ledger.appended:
            events.LOGGER.info(events.row_line(row.kind, row.request, row.detail, row.seq, row.digest))


# --- The chain --------------------------------------------------------------------------------------------------------


def head(ledger: Ledger) -> Head:
    """The ledger's head as committed by any process: a few microseconds, to be asked before every batch served.

    Raises:
      ValueError: as `check_file`.
    """
    check_file(ledger)
    row = ledger.execute("SELECT seq, digest FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    if row and not isinstance(row[1], str):
        raise Damaged(f"{ledger.path.parent}'s ledger is damaged (row {row[0]} has no digest): restore it from a copy")
    return Head(*row) if row else Head(0, hash_chain.START)


def append(ledger: Ledger, kind: str, request: str, detail: dict[str, Any]) -> Head:
    """The next row of the chain.

    Raises:
      Damaged: the last row has a number that nothing can follow.
    """
    before = head(ledger)
    if not 0 <= before.rows < hash_chain.LAST:
        raise Damaged(f"{ledger.path.parent}'s ledger is damaged (its last row is {before.rows}): restore it from a copy")
    seq, text = before.rows + 1, canonical(detail).decode()
    (at,) = ledger.execute("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").fetchone()
    digest = hash_chain.link(before.digest, seq, at, kind, request, text)
    row = hash_chain.Row(seq, at, kind, request, text, digest)
    ledger.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", row)
    ledger.appended.append(row)
    return Head(seq, digest)
