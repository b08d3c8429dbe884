"""What examples are called beside their ids: the group that each belongs to.

Labels come with a registration, stay for ever, and are bound by the chain: the row `registered` holds a digest of the
labels that it brought. Their table is made with the first of them, so that a ledger of an older version has none.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from itertools import groupby

from s3t.store.database import Ledger

Labels = Mapping[str, Mapping[int, str]]  # kind -> id -> label

GROUPS = "groups"
KINDS = (GROUPS,)  # as the rows of the log call them, too

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS labels (kind TEXT NOT NULL, id INTEGER NOT NULL, label TEXT NOT NULL, "
    "registered INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS labelled ON labels (kind, label)",
)


def group_labels(ids: Iterable[int], groups: Iterable[int | str | None]) -> dict[int, str]:
    """The groups of examples as text, as they are asked for; an example of no group is left out.

    Args:
      ids: distinct.
      groups: of each, as in `partition.assign`.

    Raises:
      ValueError: two groups that are one as text, a number and its digits.
    """
    of_id = {int(id_): group for id_, group in zip(ids, groups, strict=True) if group is not None}
    seen: dict[str, int | str] = {}
    for group in of_id.values():
        if seen.setdefault(str(group), group) != group:
            raise ValueError(f"the groups {group!r} and {seen[str(group)]!r} are written alike: rename one")
    return {id_: str(group) for id_, group in of_id.items()}


# --- Writing, inside a transaction ------------------------------------------------------------------------------------


def record(ledger: Ledger, seq: int, labels: Labels) -> dict[str, str]:
    """Keep the labels that row `seq` brings.

    Returns:
      kind -> digest of them, for the row's detail; of kinds that have some.
    """
    found = {kind: sorted(of_id.items()) for kind, of_id in labels.items() if of_id}
    for statement in SCHEMA if found else ():
        ledger.execute(statement)
    for kind, pairs in found.items():
        ledger.executemany("INSERT INTO labels VALUES (?, ?, ?, ?)", ((kind, *pair, seq) for pair in pairs))
    return {kind: labels_digest(pairs) for kind, pairs in found.items()}


def labels_digest(pairs: Iterable[tuple[int, str]]) -> str:
    """SHA-256 over (id, label) in ascending order of ids."""
    sha = hashlib.sha256(b"s3t.labels\n")
    for pair in pairs:
        sha.update(json.dumps(pair, separators=(",", ":")).encode() + b"\n")
    return sha.hexdigest()


# --- Reading ----------------------------------------------------------------------------------------------------------


def has(ledger: Ledger, kind: str) -> bool:
    """Whether any example has a label of a kind."""
    if not ledger.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'labels'").fetchone():
        return False
    return ledger.execute("SELECT 1 FROM labels WHERE kind = ? LIMIT 1", (kind,)).fetchone() is not None


def labels_of(ledger: Ledger, kind: str) -> dict[int, str]:
    """id -> label of a kind, of all examples that have one."""
    return dict(ledger.execute("SELECT id, label FROM labels WHERE kind = ?", (kind,))) if has(ledger, kind) else {}


def ids_with(ledger: Ledger, kind: str, label: str) -> list[int]:
    """The ids of a label, ascending, those of deleted examples among them; none if nothing has it."""
    if not has(ledger, kind):
        return []
    rows = ledger.execute("SELECT id FROM labels WHERE kind = ? AND label = ? ORDER BY id", (kind, label))
    return [id_ for (id_,) in rows]


def digests(ledger: Ledger) -> dict[tuple[int, str], str]:
    """(row, kind) -> digest of the labels that the table says the row brought."""
    if not ledger.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'labels'").fetchone():
        return {}
    rows = ledger.execute("SELECT registered, kind, id, label FROM labels ORDER BY registered, kind, id")
    batches = groupby(rows, key=operator.itemgetter(0, 1))
    return {key: labels_digest([row[2:] for row in batch]) for key, batch in batches}
