"""The gate before a model goes out: every claim about a store is looked at, and one that is not proved keeps it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from s3t.service import replay, verify
from s3t.store import claims, state
from s3t.store.claims import NOTHING, PROVED, REFUTED, Claim
from s3t.store.disk import Store
from s3t.store.ledger import audit, database
from s3t.training.source import Source


def release(store: Store, source: Source, which: str | int, expect_heads: Sequence[str]) -> dict[str, Any]:
    """Whether a store may be released, with a verdict for each claim.

    Args:
      store: the store.
      source: what its factory makes.
      which: the nodes that are trained once more, as in `replay.replay`.
      expect_heads: heads that were acknowledged, the last one among them.

    Returns:
      ok, whether every claim is proved; verdict; claims; and head.

    Raises:
      ValueError: as `replay.replay`.
    """
    head = database.head(store.ledger).digest
    record = verify.verify(store.root)
    found = [_record(record), _heads(store, expect_heads), *_state(store)]
    if record["ok"]:  # else there is nothing to train from
        found.append(_replayed(replay.replay(store, source, which)))
    else:
        found.append(Claim(REPLAYED, NOTHING, "the record is refuted"))
    if database.head(store.ledger).digest != head:
        found.append(Claim("the store did not change meanwhile", REFUTED, "it did: repeat the command"))
    return {**claims.judged(found), "head": head}


REPLAYED = "the nodes that were asked for come out byte for byte when they are trained once more"


def _record(record: Mapping[str, Any]) -> Claim:
    claim = "ledger, manifest and files are whole, and no node that serves holds a deleted example"
    if record["ok"]:
        return Claim(claim, PROVED, f"{record['nodes']} nodes, {record['deleted']} deleted examples")
    more = f" (and {len(record['problems']) - 1} more)" if len(record["problems"]) > 1 else ""
    return Claim(claim, REFUTED, record["problems"][0] + more)


def _heads(store: Store, heads: Sequence[str]) -> Claim:
    """A copy from before a head lacks it; one from after the newest head that was kept cannot be told."""
    claim = f"the ledger holds the {len(heads)} heads that were given"
    if not heads:
        return Claim(claim, NOTHING, "give --expect-head, the last head that was acknowledged")
    if lacking := audit.lacking_heads(store.ledger, heads):
        return Claim(claim, REFUTED, lacking[0])
    query = "SELECT max(seq) FROM log WHERE digest IN (SELECT value FROM json_each(?))"
    (newest,) = store.ledger.execute(query, (json.dumps(list(heads)),)).fetchone()
    query = "SELECT total(seq <= ?), total(seq > ?) FROM log WHERE kind = 'deactivated'"
    before, after = store.ledger.execute(query, (newest, newest)).fetchone()
    return Claim(
        claim,
        PROVED,
        f"the newest is of row {newest}: {before:.0f} deletions stand up to it, {after:.0f} after it; "
        "a copy from before that row is excluded, one from after it is not",
    )


def _state(store: Store) -> list[Claim]:
    try:
        now = state.status(store)
    except database.Damaged as error:
        return [Claim("the store serves", REFUTED, str(error))]
    open_, left = now["requests"].get("deactivated", 0), now["nodes"]["leftovers"]
    empty = [shard for shard, depth in enumerate(now["depth"]) if not depth]
    purged, serves = "what was trained on deleted examples is gone from the disk", "every shard has a model"
    lies = f"{open_} requests are not purged, {left} files are left: run python -m s3t purge" if open_ or left else ""
    lacks = f"shard {empty[0]} has none: heal the store" if empty else ""
    return [Claim(claim, REFUTED if why else PROVED, why) for claim, why in ((purged, lies), (serves, lacks))]


def _replayed(result: Mapping[str, Any]) -> Claim:
    if result["problems"]:
        return Claim(REPLAYED, REFUTED, result["problems"][0])
    unjudged = len(result[replay.ELSEWHERE])
    if unjudged or not result["proved"]:
        why = "; ".join(result["reasons"])
        return Claim(REPLAYED, NOTHING, f"{unjudged} of {result['asked']} nodes cannot be judged here: {why}")
    return Claim(REPLAYED, PROVED, f"{result['proved']} of {result['serving']} nodes")
