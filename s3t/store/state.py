"""What can be said of a store: what it serves, what is deleted, and which deletions are healed."""

from __future__ import annotations

import shlex
from typing import Any

from s3t.store import deletions, disk, newcomers, publishing, untrained
from s3t.store.disk import Store
from s3t.store.ledger import database, records
from s3t.store.ledger.database import Ledger

REBUILD = "needs rebuild"


def status(store: Store, max_age: float | None = None) -> dict[str, Any]:
    """What is served, deleted and still to be done.

    Args:
      store: the store.
      max_age: seconds that a request may wait to be healed, None if that is no problem.

    Returns:
      ok, false if no shard has a model, a serving node's file is missing or a request has waited too long; problems, one
      line each; what is served, deleted and to be done; oldest_open (request, and at as in `ages`) and last_heal;
      warnings, one line each, which are no problems.
    """
    with database.reading(store.ledger):  # one snapshot
        result, lost = _status(store)
        waiting = ages(store.ledger)
    serving = set(publishing.identities(publishing.live(store)))  # a node that was dropped meanwhile may have lost its file
    problems = [f"the file of node {name} is missing" for name in lost if name in serving]
    problems += [] if any(result["depth"]) else [f"{REBUILD}: no shard has a model"]
    oldest = waiting["oldest_open"]
    if oldest and max_age is not None and oldest["seconds"] > max_age:
        problems += [
            f"request {oldest['request']} has waited {oldest['seconds']:.0f} s to be healed, more than {max_age:g}: "
            "heal the store"
        ]
    return {
        "ok": not problems,
        "problems": problems,
        **result,
        "oldest_open": oldest
        and {"request": oldest["request"], "at": oldest["at"]},  # what stays the same when asked again
        "last_heal": waiting["last_heal"],
        "warnings": _open_to_others(store),
    }


def _open_to_others(store: Store) -> list[str]:
    """One line if somebody else may look into the store, as into those that were made before 0.2."""
    if any(map(disk.is_open_to_others, disk.paths(store))):
        return [f"others may read {store.root} or files in it: chmod -R go= {shlex.quote(str(store.root))}"]
    return []


def _status(store: Store) -> tuple[dict[str, Any], list[str]]:
    """The facts of one snapshot, and the serving nodes whose files are missing."""
    nodes = publishing.live(store)
    rows, head = database.head(store.ledger)
    depth = [max((len(node.slices) for node in nodes if node.shard == s), default=0) for s in range(store.manifest.shards)]
    late = len(newcomers.behind(store))
    notes = [f"{late} nodes have not seen examples that came since: heal the store"] if late else []
    idle = untrained.untrained(store)
    lost = [node.identity for node in nodes if not disk.file_of(store, node.identity).is_file()]
    return {
        "state": REBUILD if not any(depth) else "partial" if late or publishing.missing(store) else "complete",
        "depth": depth,
        "nodes": {
            "live": len(nodes),
            "missing": len(publishing.missing(store)),
            "leftovers": len(disk.leftovers(store, publishing.identities(nodes))),
        },
        **records.counts(store.ledger),
        "untrained": sum(idle.values()),
        "notes": [*notes, *untrained.note(store, idle)],
        "rows": rows,
        "head": head,
    }, lost


def ages(ledger: Ledger) -> dict[str, Any]:
    """How long deletions have waited, and when the last was healed.

    Returns:
      oldest_open: request, at (UTC) and seconds of the oldest request that is not healed, None if all are; last_heal: UTC,
      None if there was none.
    """
    row = ledger.execute(
        "SELECT requests.request, at, (julianday('now') - julianday(at)) * 86400 FROM requests "
        "JOIN log ON seq = deactivated WHERE state != 'healed' ORDER BY deactivated LIMIT 1"
    ).fetchone()
    healed = ledger.execute("SELECT at FROM log WHERE kind = 'healed' ORDER BY seq DESC LIMIT 1").fetchone()
    oldest = row and dict(zip(("request", "at", "seconds"), row, strict=True))
    return {"oldest_open": oldest, "last_heal": healed and healed[0]}


def mark_healed(store: Store) -> tuple[str, ...]:
    """Note which requests are healed: purged ones for which every node of the plan that they hit serves again.

    What cannot be trained is not waited for, see `publishing.missing`.
    """
    waiting = [place for place in publishing.missing(store) if publishing.trainable(store, *place)]
    healed: list[str] = []
    for request in deletions.requests(store.ledger, "purged"):
        hit = deletions.places_hit(store.ledger, request)
        if not any((shard, slice_) in hit for shard, slices in waiting for slice_ in slices):
            healed += [request] * deletions.record_healed(store.ledger, request)
    return tuple(healed)
