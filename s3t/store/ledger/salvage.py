"""The deletions that can still be read from a ledger, be it damaged, while nobody adds to them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from s3t.store import files
from s3t.store.ledger import database, hash_chain


class Past(NamedTuple):
    """What could be read.

    manifest: digest of the manifest that the ledger was made with; empty if that is unknown.
    deletions: (request, ids asked for, ids deleted) in the order of the ledger, of those that still name their ids.
    forgotten: request -> marks of the ids that it deleted (`s3t.store.ledger.marks`), of those that were redacted.
    problem: why that may not be all, in one line; empty if it is.
    """

    manifest: str = ""
    deletions: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    forgotten: Mapping[str, frozenset[str]] = {}
    problem: str = ""


@contextmanager
def held(path: Path) -> Iterator[Past]:
    """What can be read of the ledger at a path; until this is left no other process writes it, if it can be written at all.

    Raises:
      ValueError: a link in its place; another process holds it.
    """
    for beside in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        files.check_regular(beside)
    if not path.exists():
        yield Past(problem=f"{path} is missing")
        return
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        connection = sqlite3.connect(uri, timeout=database.WAIT_SECONDS, isolation_level=None, uri=True)
    except sqlite3.DatabaseError as error:
        yield Past(problem=f"{path} cannot be read ({error})")
        return
    with closing(connection):
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            if database.code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise database.explanation(path, error) from None
        yield _read(connection, path)


def _read(connection: sqlite3.Connection, path: Path) -> Past:
    """Row by row, so that what comes before damage is known."""
    rows: list[hash_chain.Row] = []
    problem = ""
    try:
        for row in connection.execute("SELECT seq, at, kind, request, detail, digest FROM log ORDER BY seq"):
            rows.append(hash_chain.Row(*row))
    except sqlite3.DatabaseError as error:
        problem = f"{path} can be read up to row {len(rows)} ({error})"
    marked: dict[int, set[str]] = {}
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'forgotten'").fetchone():
            for deleted, mark in connection.execute("SELECT deleted, mark FROM forgotten"):
                marked.setdefault(deleted, set()).add(mark)
    except sqlite3.DatabaseError as error:
        problem = problem or f"the marks in {path} of what was forgotten cannot all be read ({error})"
    return _past(rows, marked, problem or hash_chain.read_on(hash_chain.start(), rows).problem)


def _past(rows: Sequence[hash_chain.Row], marked: Mapping[int, set[str]], problem: str) -> Past:
    """What the rows say was deleted.

    Args:
      rows: as far as they could be read.
      marked: row of a deactivation -> marks of the ids that were forgotten with it.
      problem: why that may not be all.
    """
    manifest = ""
    asked: dict[str, tuple[int, ...]] = {}
    deletions: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    forgotten: dict[str, frozenset[str]] = {}
    for row in rows:
        try:
            detail = json.loads(row.detail)
            if row.kind == "created":
                manifest = str(detail["manifest"])
            elif row.kind in hash_chain.SALTED and hash_chain.is_sealed(detail):
                forgotten[row.request] = frozenset(marked.get(row.seq, ()))
            elif row.kind == "received":
                asked[row.request] = tuple(map(int, detail["ids"]))
            elif row.kind == "deactivated":
                gone = tuple(map(int, detail["ids"]))
                deletions.append((row.request, asked.get(row.request, gone), gone))
        except (KeyError, TypeError, ValueError, RecursionError):
            problem = problem or f"row {row.seq} cannot be read"
    return Past(manifest, tuple(deletions), forgotten, problem)
