"""Examples that no node can hold: training begins with a first slice, so a node whose first slice is empty is not made."""

from __future__ import annotations

from s3t.store.disk import Store

Counts = dict[tuple[int, int], int]  # (shard, slice) -> examples


def untrained(store: Store) -> Counts:
    """The examples that are not deleted and that no node of the plan can hold, by place."""
    query = "SELECT shard, slice, count(*) FROM examples WHERE deleted IS NULL GROUP BY shard, slice"
    counts: Counts = {(shard, slice_): count for shard, slice_, count in store.ledger.execute(query)}

    def held(shard: int, slice_: int) -> bool:
        return any((shard, first) in counts for first in _firsts(store, slice_))

    return {place: count for place, count in counts.items() if not held(*place)}


def note(store: Store, found: Counts) -> list[str]:
    """Why examples are untrained, in a line; none if no example is."""
    if not found:
        return []
    shard, slice_ = min(found)
    firsts = _firsts(store, slice_)
    begins = f"all nodes with slice {slice_} begin with slice {' or '.join(map(str, firsts))}, empty in shard {shard}"
    why = begins if firsts else f"the plan has no node with slice {slice_}"
    others = f" (and so in {len(found) - 1} more slices)" if len(found) > 1 else ""
    return [f"{sum(found.values())} examples are in no node: {why}{others}; another plan, or fewer shards, would hold them"]


def _firsts(store: Store, slice_: int) -> list[int]:
    """The first slices of the nodes that hold a slice."""
    return sorted({node[0] for node in store.manifest.nodes if slice_ in node})
