"""Examples that came to a store after its nodes were trained, and the nodes that are behind because of them.

A node that was trained before stays as it was. Where the registration asks for it (`retrain` in its row), a heal trains a
node of all examples in its place; the old one serves until then.
"""

from __future__ import annotations

import json

from s3t.store import publishing
from s3t.store.disk import Store
from s3t.store.ledger.database import Ledger
from s3t.store.ledger.records import PublishedNode

RETRAIN = '"retrain":true'  # as canonical JSON has it


def behind(store: Store) -> set[PublishedNode]:
    """The serving nodes that lack an example that is there now and that they are to be trained on."""
    latest = _latest(store.ledger)
    return {
        node
        for node in (publishing.live(store) if latest else ())
        if any(latest.get((node.shard, slice_), 0) > node.as_of for slice_ in node.slices)
    }


def _latest(ledger: Ledger) -> dict[tuple[int, int], int]:
    """(shard, slice) -> the last row that brought an example for its nodes, of examples that are not deleted."""
    rows = ledger.execute("SELECT seq FROM log WHERE kind = 'registered' AND instr(detail, ?)", (RETRAIN,)).fetchall()
    if not rows:
        return {}
    query = (
        "SELECT shard, slice, max(registered) FROM examples WHERE deleted IS NULL "
        "AND registered IN (SELECT value FROM json_each(?)) GROUP BY shard, slice"
    )
    seqs = json.dumps([seq for (seq,) in rows])
    return {(shard, slice_): seq for shard, slice_, seq in ledger.execute(query, (seqs,))}
