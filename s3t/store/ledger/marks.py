"""What stands for an id once it is forgotten: a mark under the store's secret key, by which the same id is known again."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable

from s3t.store.ledger.database import Ledger

TABLE = (
    "CREATE TABLE IF NOT EXISTS forgotten (mark TEXT PRIMARY KEY, shard INTEGER NOT NULL, slice INTEGER NOT NULL, "
    "registered INTEGER NOT NULL, deleted INTEGER NOT NULL, redacted INTEGER NOT NULL)"
)  # made by a store's first redaction


def mark(key: bytes, id_: int) -> str:
    """The mark of an id: whoever has the key can try ids, nobody else can."""
    return hmac.digest(key, f"s3t.mark\n{id_!r}".encode(), "sha256").hex()


def leaf(mark_: str, shard: int, slice_: int) -> str:
    """What an example adds to the digest of its registration: it says as much when the id itself is forgotten."""
    return hashlib.sha256(f"s3t.leaf\n{mark_},{shard!r},{slice_!r}".encode()).hexdigest()


def leaves_digest(leaves: Iterable[str]) -> str:
    """SHA-256 over the leaves of a registration, whatever their order."""
    return hashlib.sha256("\n".join(["s3t.leaves", *sorted(leaves)]).encode()).hexdigest()


def forgotten_digest(rows: Iterable[tuple[str, int, int, int, int]]) -> str:
    """SHA-256 over (mark, shard, slice, registered, deleted) of what one redaction forgot, whatever the order."""
    lines = sorted(f"{mark_},{shard!r},{slice_!r},{come!r},{gone!r}" for mark_, shard, slice_, come, gone in rows)
    return hashlib.sha256("\n".join(["s3t.forgotten", *lines]).encode()).hexdigest()


def are_kept(ledger: Ledger) -> bool:
    """Whether a ledger has forgotten an id at any time."""
    return ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'forgotten'").fetchone() is not None


def forgotten(ledger: Ledger, key: bytes, ids: Iterable[int]) -> set[int]:
    """Those of some ids that were registered, deleted and forgotten."""
    if not are_kept(ledger):
        return set()
    marked = {mark(key, id_): id_ for id_ in ids}
    query = "SELECT mark FROM forgotten WHERE mark IN (SELECT value FROM json_each(?))"
    return {marked[found] for (found,) in ledger.execute(query, (json.dumps(list(marked)),))}
