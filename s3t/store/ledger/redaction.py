"""The ids of healed requests leave the ledger, while its chain stays what it was to the last digest.

The rows of a request keep what their digests cover: each id under a salt that is thrown away (`hash_chain.sealed`). Its
examples become marks under the store's key (`marks`), so that counts can still be checked and nobody registers
the same id again. Rows from before 0.2 cover the ids themselves and keep them. Request ids are the caller's and stay.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, NamedTuple

from s3t.store import manifests
from s3t.store.disk import Store
from s3t.store.ledger import database, hash_chain, marks, records, registry
from s3t.store.ledger.database import Head, Ledger


class Redaction(NamedTuple):
    """What was forgotten.

    requests: whose ids are gone now.
    examples: how many were forgotten with them.
    kept: requests whose ids cannot leave, for their rows are too old.
    head: of the ledger.
    """

    requests: tuple[str, ...]
    examples: int
    kept: tuple[str, ...]
    head: Head


def redact(store: Store, older_than: float = 0.0) -> Redaction:
    """Forget the ids of healed requests, durably, and in the pages that the ledger's file no longer uses.

    Args:
      store: the store.
      older_than: days that must have passed since a request was healed.

    Raises:
      Damaged: a row of such a request was altered; nothing is changed.
      ValueError: another process reads the store, so that old pages stay for now; the redaction stands, and once more does
        the rest.
    """
    ledger = store.ledger
    ledger.execute("PRAGMA secure_delete = ON")
    with database.writing(ledger):
        due = [(request, seq, _details(ledger, seq, request)) for request, seq in _healed(ledger, older_than)]
        due = [(request, seq, details) for request, seq, details in due if not hash_chain.is_sealed(details[1])]
        leaved = _leaved(ledger)
        old = {request for request, seq, details in due if not _can_be_sealed(ledger, seq, details, leaved)}
        gone = {seq: request for request, seq, _ in due if request not in old}
        examples = _forget(store, sorted(gone)) if gone else 0
        head = database.head(ledger)
    _clear(ledger)
    return Redaction(tuple(gone.values()), examples, tuple(sorted(old)), head)


def _healed(ledger: Ledger, older_than: float) -> list[tuple[str, int]]:
    """(request, row of its deactivation) of the requests that were healed so many days ago, oldest first."""
    healed = {
        request
        for (request,) in ledger.execute(
            "SELECT request FROM log WHERE kind = 'healed' AND julianday('now') - julianday(at) >= ?", (older_than,)
        )
    }
    rows = ledger.execute("SELECT request, deactivated FROM requests WHERE state = 'healed' ORDER BY deactivated")
    return [(request, seq) for request, seq in rows if request in healed]


def _details(ledger: Ledger, seq: int, request: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The details of the rows that received and deactivated a request, looked at in the chain."""
    names = ledger.execute("SELECT request FROM log WHERE seq IN (?, ?)", (seq - 1, seq)).fetchall()
    if names != [(request,)] * 2:
        raise records.altered(ledger, f"row {seq} is not that of request {request:.80}")
    return records.check_row(ledger, seq - 1, "received"), records.check_row(ledger, seq, "deactivated")


def _leaved(ledger: Ledger) -> set[int]:
    """The registrations whose digest stays when examples are forgotten."""
    rows = ledger.execute("SELECT seq, detail FROM log WHERE kind = 'registered'")
    return {seq for seq, detail in rows if "leaves" in json.loads(detail)}


def _can_be_sealed(ledger: Ledger, seq: int, details: tuple[dict[str, Any], dict[str, Any]], leaved: set[int]) -> bool:
    """Whether the digests of a request's rows, and of its examples' registrations, do without the ids."""
    come = {row for (row,) in ledger.execute("SELECT DISTINCT registered FROM examples WHERE deleted = ?", (seq,))}
    return all("salt" in detail for detail in details) and come <= leaved


def _forget(store: Store, gone: list[int]) -> int:
    """Take the ids of these deactivations out of the log and the table of examples; how many examples there were."""
    ledger, key = store.ledger, manifests.key_of(store.manifest)
    ledger.execute(marks.TABLE)
    redacted = database.head(ledger).rows + 1
    forgotten = []
    for seq in gone:
        for at in (seq - 1, seq):
            kind, detail = ledger.execute("SELECT kind, detail FROM log WHERE seq = ?", (at,)).fetchone()
            ledger.execute("UPDATE log SET detail = ? WHERE seq = ?", (hash_chain.sealed(kind, detail), at))
        rows = ledger.execute(
            "SELECT id, shard, slice, registered, deleted FROM examples WHERE deleted = ?", (seq,)
        ).fetchall()
        registry.forget(ledger, [id_ for id_, *_ in rows])
        forgotten += [(marks.mark(key, id_), *place) for id_, *place in rows]
        ledger.execute("DELETE FROM examples WHERE deleted = ?", (seq,))
    ledger.executemany("INSERT INTO forgotten VALUES (?, ?, ?, ?, ?, ?)", ((*row, redacted) for row in forgotten))
    detail = {"rows": gone, "count": len(forgotten), "digest": marks.forgotten_digest(forgotten)}
    database.append(ledger, "redacted", "", detail)
    return len(forgotten)


def _clear(ledger: Ledger) -> None:
    """Write the file anew without pages and keys of what was there, and empty the file of rows ahead.

    Raises:
      ValueError: another process reads or writes meanwhile, or there is no room.
    """
    ledger.execute("PRAGMA temp_store = MEMORY")  # nowhere else on a disk
    try:
        ledger.execute("VACUUM")
        (busy, *_) = ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("another process reads it")
    except sqlite3.Error as error:
        raise ValueError(
            f"the ids are redacted, but {ledger.path} or its -wal may hold them in pages out of use ({error}): "
            "repeat the command when no other process is at work and the disk has room"
        ) from None
