"""Whether a ledger is whole: its chain of rows, and the tables that say the same in a form that is quick to ask."""

from __future__ import annotations

import operator
from itertools import groupby
from typing import Any

from s3t.store import hash_chain
from s3t.store.database import Ledger
from s3t.store.records import examples_digest, text_of

SHOWN = 20  # problems of one kind that are named
DELETED = "SELECT id, deleted FROM examples WHERE deleted IS NOT NULL"


def audit(ledger: Ledger, manifest: str, *expect_heads: str) -> list[str]:
    """Whether the chain is whole and the tables say what it says.

    Args:
      ledger: the ledger; inside a transaction, if other questions are to be answered from the same snapshot.
      manifest: digest of the store's manifest.
      expect_heads: heads that the ledger had at some time.

    Returns:
      what is wrong, one line each; it stops at the first row that is wrong.
    """
    rows = ledger.execute("SELECT seq, at, kind, request, detail, digest FROM log ORDER BY seq")
    history, broken = hash_chain.read_chain(hash_chain.Row(*row) for row in rows)
    if broken:
        return [broken]
    problems = [
        f"the ledger never had the head {head:.80}: its end was cut off or rewritten"
        for head in expect_heads
        if not ledger.execute("SELECT 1 FROM log WHERE digest = ?", (head,)).fetchone()
    ]
    if history.manifest != [manifest]:
        problems.append("the manifest is not the one that the ledger was created with")
    tables: tuple[tuple[str, dict[Any, Any], dict[Any, Any]], ...] = (
        ("the examples registered by row", _registered_rows(ledger), history.registered),
        ("the deletion of id", dict(ledger.execute(DELETED)), history.deleted),
        ("request", {row[0]: row[1:] for row in ledger.execute("SELECT * FROM requests")}, history.requests),
        ("node", {row[0]: row[1:] for row in ledger.execute("SELECT * FROM nodes")}, _node_rows(history)),
    )
    for what, rows_of_table, expected in tables:
        keys = rows_of_table.keys() | expected.keys()
        wrong = [key for key in keys if rows_of_table.get(key) != expected.get(key)]
        problems += [f"{what} {key} is not what the ledger's rows say" for key in sorted(wrong, key=str)[:SHOWN]]
    return problems


def _registered_rows(ledger: Ledger) -> dict[int, tuple[int, str]]:
    """Row -> count and digest of the examples that the table says it registered."""
    rows = ledger.execute("SELECT registered, id, shard, slice FROM examples ORDER BY registered, id")
    batches = ((seq, [row[1:] for row in batch]) for seq, batch in groupby(rows, key=operator.itemgetter(0)))
    return {seq: (len(batch), examples_digest(batch)) for seq, batch in batches}


def _node_rows(history: hash_chain.History) -> dict[str, tuple[Any, ...]]:
    """What the table of nodes should hold, by identity."""
    return {name: (node.place[0], text_of(node.place[1]), *node[1:]) for name, node in history.nodes.items()}
