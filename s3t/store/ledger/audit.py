"""Whether a ledger is whole: its chain of rows, and the tables that say the same in a form that is quick to ask."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from itertools import groupby
from typing import Any

from s3t.store import manifests
from s3t.store.disk import Store
from s3t.store.ledger import hash_chain, marks, records, registry
from s3t.store.ledger.database import Damaged, Ledger, reading
from s3t.store.manifests import Manifest

SHOWN = 20  # problems of one kind that are named
DELETED = "SELECT id, deleted FROM examples WHERE deleted IS NOT NULL"


def check(store: Store) -> None:
    """Refuse a store whose ledger was altered, before anything is trained from it.

    Raises:
      Damaged: it was.
    """
    with reading(store.ledger):
        made_with = records.manifest_digest(store.ledger)
        problems = audit(store.ledger, made_with, key=manifests.key_of(store.manifest))
        problems = problems or misplaced(store.ledger, store.manifest)
    if problems:
        raise Damaged(
            f"{store.root} cannot be trusted, {problems[0]}: restore it from a copy (python -m s3t verify tells more)"
        )


def audit(ledger: Ledger, manifest: str, *expect_heads: str, key: bytes = b"") -> list[str]:
    """Whether the chain is whole and the tables say what it says.

    Args:
      ledger: the ledger; inside a transaction, if other questions are to be answered from the same snapshot.
      manifest: digest of the store's manifest.
      expect_heads: heads that the ledger had at some time.
      key: the secret of that manifest.

    Returns:
      what is wrong, one line each; it stops at the first row that is wrong.
    """
    if damage := [text for (text,) in ledger.execute("PRAGMA integrity_check(1)") if text != "ok"]:
        return [f"the ledger's file is damaged ({' '.join(str(damage[0]).split())})"]
    chain = records.read_rows(hash_chain.start(), ledger)
    history = chain.history
    if chain.problem:
        return [chain.problem]
    problems = lacking_heads(ledger, expect_heads)
    if history.manifest != [manifest]:
        return [*problems, "the manifest is not the one that the ledger was created with"]
    if history.sealed:
        problems.append(f"the ids of row {min(history.sealed)} are gone, but no row says that they were redacted")
    registered = {seq: found for seq, found in history.registered.items() if found[0]}  # others brought labels alone
    (held,) = ledger.execute("SELECT count(*) FROM examples").fetchone()
    if registry.most_forgotten(ledger) > sum(count for count, _ in history.registered.values()) - held:
        problems.append("labels of examples are gone that the ledger has not forgotten")
    tables: tuple[tuple[str, dict[Any, Any], dict[Any, Any]], ...] = (
        ("the examples registered by row", _registered_rows(ledger, history.leaved, key), registered),
        ("the labels registered by row", registry.digests(ledger), history.labels),
        ("what was forgotten by row", _forgotten_rows(ledger), history.redacted),
        ("the deletion of id", dict(ledger.execute(DELETED)), history.deleted),
        ("request", {row[0]: row[1:] for row in ledger.execute("SELECT * FROM requests")}, history.requests),
        ("node", {row[0]: row[1:] for row in ledger.execute("SELECT * FROM nodes")}, _node_rows(history)),
    )
    for what, rows_of_table, expected in tables:
        keys = rows_of_table.keys() | expected.keys()
        wrong = [key for key in keys if rows_of_table.get(key) != expected.get(key)]
        problems += [f"{what} {key} is not what the ledger's rows say" for key in sorted(wrong, key=str)[:SHOWN]]
    return problems


def lacking_heads(ledger: Ledger, heads: Iterable[str]) -> list[str]:
    """Heads that a ledger never had, one line each: its end was cut off, or it is a copy from before."""
    return [
        f"the ledger never had the head {head:.80}: its end was cut off or rewritten"
        for head in heads
        if not ledger.execute("SELECT 1 FROM log WHERE digest = ?", (head,)).fetchone()
    ]


def misplaced(ledger: Ledger, manifest: Manifest) -> list[str]:
    """Examples and nodes that lie where the manifest has no place, one line each."""
    placed = "typeof(id) = 'integer' AND typeof(shard) = 'integer' AND typeof(slice) = 'integer' "
    placed += "AND shard >= 0 AND shard < ? AND slice >= 0 AND slice < ?"
    lost = ledger.execute(
        f"SELECT id FROM examples WHERE NOT ({placed}) LIMIT ?", (manifest.shards, manifest.slices, SHOWN)
    )
    examples = [f"example {id_} lies where the store has no place" for (id_,) in lost]
    return examples + misplaced_nodes(records.nodes(ledger), manifest)


def misplaced_nodes(nodes: Iterable[records.PublishedNode], manifest: Manifest) -> list[str]:
    """Nodes that lie where the manifest has no place, one line each."""
    places, shards = set(manifest.nodes), range(manifest.shards)
    strange = [node.identity for node in nodes if node.shard not in shards or node.slices not in places]
    return [f"node {name} lies where the store has no place" for name in strange[:SHOWN]]


def _registered_rows(ledger: Ledger, leaved: Collection[int], key: bytes) -> dict[int, tuple[int, str]]:
    """Row -> count and digest of the examples that the tables say it registered."""
    held = _grouped(ledger.execute("SELECT registered, id, shard, slice FROM examples ORDER BY registered, id"))
    query = "SELECT registered, mark, shard, slice FROM forgotten ORDER BY registered"
    forgotten = _grouped(ledger.execute(query)) if marks.are_kept(ledger) else {}
    found = {}
    for seq in held.keys() | forgotten.keys():
        rows, gone = held.get(seq, []), forgotten.get(seq, [])
        digest = records.keyed_digest(key, rows, gone) if seq in leaved else records.examples_digest(rows)
        found[seq] = (len(rows) + len(gone), digest)
    return found


def _forgotten_rows(ledger: Ledger) -> dict[int, tuple[int, str]]:
    """Row -> count and digest of what the table says that it forgot."""
    if not marks.are_kept(ledger):
        return {}
    query = "SELECT redacted, mark, shard, slice, registered, deleted FROM forgotten ORDER BY redacted"
    return {seq: (len(rows), marks.forgotten_digest(rows)) for seq, rows in _grouped(ledger.execute(query)).items()}


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[Any]]:
    """Rows in order of their first column, by that column, without it."""
    return {seq: [row[1:] for row in batch] for seq, batch in groupby(rows, key=operator.itemgetter(0))}


def _node_rows(history: hash_chain.History) -> dict[str, tuple[Any, ...]]:
    """What the table of nodes should hold, by identity."""
    return {name: (node.place[0], records.text_of(node.place[1]), *node[1:6]) for name, node in history.nodes.items()}
