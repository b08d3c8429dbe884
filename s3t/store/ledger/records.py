"""The durable record of a store: which examples there are, which are deleted, and which nodes may serve.

One SQLite file (`s3t.store.ledger.database`). The log is its truth, a chain of rows that are only ever appended
(`s3t.store.ledger.hash_chain`); the other tables say the same in a form that is quick to ask, and `audit` compares the
two. Rows about examples and nodes are written and read here, those about deletions in `s3t.store.deletions`. Any number of
processes may have the file open. A reader finds out that something changed by comparing `database.head`.
"""

from __future__ import annotations

import hashlib
import json
import operator
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from s3t.store.certificates import whole
from s3t.store.ledger import hash_chain, marks, registry
from s3t.store.ledger.database import Damaged, Head, Ledger, append, head, reading, writing


class Outdated(ValueError):
    """An id that a node was trained on has been deleted meanwhile: the node must not be published."""


class PublishedNode(NamedTuple):
    """A published node that serves.

    identity: its name.
    shard: number of the shard.
    slices: numbers of the slices in the order of training.
    as_of: the row up to which the ledger was read when its ids were fixed.
    certificate: digest of its certificate.
    """

    identity: str
    shard: int
    slices: tuple[int, ...]
    as_of: int
    certificate: str


# --- Reading ----------------------------------------------------------------------------------------------------------


def manifest_digest(ledger: Ledger) -> str:
    """The digest of the manifest that the ledger was created with; empty if its first row is not whole."""
    (manifest,) = read_rows(hash_chain.start(), ledger, last=1).history.manifest or [""]
    return manifest


def read_rows(chain: hash_chain.Chain, ledger: Ledger, last: int = hash_chain.LAST) -> hash_chain.Chain:
    """Read a ledger's chain on, up to a row or to its end."""
    query = "SELECT seq, at, kind, request, detail, digest FROM log WHERE seq > ? AND seq <= ? ORDER BY seq"
    return hash_chain.read_on(chain, (hash_chain.Row(*row) for row in ledger.execute(query, (chain.rows, last))))


def nodes(ledger: Ledger) -> tuple[PublishedNode, ...]:
    """The nodes that may serve, in the order of their publication."""
    rows = ledger.execute(
        "SELECT identity, shard, slices, as_of, certificate FROM nodes WHERE dropped IS NULL ORDER BY published"
    )
    return tuple(_published(ledger, row) for row in rows)


def _published(ledger: Ledger, row: tuple[Any, ...]) -> PublishedNode:
    """A node from its row of the table, which may be somebody else's."""
    name, shard, slices, as_of, digest = row
    try:
        if [type(value) for value in row] != [str, int, str, int, str]:
            raise ValueError
        return PublishedNode(name, shard, slices_of(slices), as_of, digest)
    except ValueError:
        raise Damaged(f"{ledger.path.parent}'s ledger is damaged (a node {name!r:.80}): restore it from a copy") from None


def live_of(history: hash_chain.History) -> tuple[PublishedNode, ...]:
    """The nodes that may serve by the rows of the chain, in the order of their publication."""
    serving = [(name, node) for name, node in history.nodes.items() if node.dropped is None]
    return tuple(PublishedNode(name, *node.place, node.as_of, node.certificate) for name, node in serving)


def certificate_of(ledger: Ledger, identity: str) -> str:
    """The digest of a published node's certificate.

    Raises:
      ValueError: no such node was published.
    """
    row = ledger.execute("SELECT certificate FROM nodes WHERE identity = ?", (identity,)).fetchone()
    if row is None:
        raise ValueError(f"node {identity} was never published: publish parents first")
    return str(row[0])


def purged_identities(ledger: Ledger) -> tuple[str, ...]:
    """The identities of all nodes whose files must be gone."""
    return tuple(name for (name,) in ledger.execute("SELECT identity FROM nodes WHERE purged IS NOT NULL"))


def members(ledger: Ledger, shard: int, slices: Sequence[int]) -> tuple[Head, tuple[int, ...]]:
    """The ids that a node of these slices would be trained on now, ascending, and the head at which that is so."""
    with reading(ledger):  # one snapshot for both
        marks = ", ".join("?" * len(slices))
        rows = ledger.execute(
            f"SELECT id FROM examples WHERE shard = ? AND slice IN ({marks}) AND deleted IS NULL ORDER BY id",
            (shard, *slices),
        )
        return head(ledger), tuple(id_ for (id_,) in rows)


def shard_ids(ledger: Ledger, shard: int) -> list[tuple[int, int, int, int | None]]:
    """(id, slice, registered, deleted) of a shard's examples, ascending; the last two are rows of the log."""
    return ledger.execute(
        "SELECT id, slice, registered, deleted FROM examples WHERE shard = ? ORDER BY id", (shard,)
    ).fetchall()


def held_by(
    examples: Iterable[tuple[int, int, int, int | None]], node: PublishedNode, slices: Iterable[int] | None = None
) -> list[int]:
    """The ids that a node was trained on in all of its slices or in some, from its shard's rows (`shard_ids`)."""
    among, as_of = set(node.slices if slices is None else slices), node.as_of
    return [
        id_
        for id_, slice_, registered, deleted in examples
        if slice_ in among and registered <= as_of and (deleted is None or deleted > as_of)
    ]


def check_row(ledger: Ledger, seq: int, *kinds: str) -> dict[str, Any]:
    """The detail of one row of the log, whose bonds to its neighbours are looked at; `audit` looks at all.

    Raises:
      Damaged: no such row, or an altered one, or one without what its kind holds.
    """
    if type(seq) is not int or not 0 < seq < hash_chain.LAST:
        raise altered(ledger, f"a row is called {seq!r:.40}")
    rows = ledger.execute(
        "SELECT seq, at, kind, request, detail, digest FROM log WHERE seq BETWEEN ? AND ? ORDER BY seq", (seq - 1, seq + 1)
    ).fetchall()
    chain = [hash_chain.Row(*row) for row in rows]
    at = [row.seq for row in chain].index(seq) if seq in [row.seq for row in chain] else 0
    bound = all(hash_chain.follows(before.digest, row) for before, row in pairwise(chain))
    if not at or chain[at].kind not in kinds or not bound:
        raise altered(ledger, f"row {seq} is not what it was")
    try:
        detail: dict[str, Any] = json.loads(chain[at].detail)
        lists = [detail[name] for name in ("ids", "nodes") if name in detail]
        whole_names = all(
            isinstance(named, list) and not any(isinstance(name, dict | list) for name in named) for named in lists
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        whole_names = False
    if not whole_names or (chain[at].kind != "received" and "nodes" not in detail):
        raise altered(ledger, f"row {seq} does not say what it should")
    return detail


def altered(ledger: Ledger, what: str) -> Damaged:
    """An error that names what was altered."""
    return Damaged(
        f"{ledger.path.parent}'s ledger was altered ({what}): nothing was changed; run python -m s3t verify and restore it"
    )


def check_gone(ledger: Ledger, identity: str) -> None:
    """Make sure by the chain, and not by the table alone, that a node serves no more or never did.

    Raises:
      Damaged: the chain has it serving.
    """
    row = ledger.execute("SELECT dropped FROM nodes WHERE identity = ?", (identity,)).fetchone()
    if row is None:  # of a process that was killed before its node was published
        query = "SELECT 1 FROM log WHERE kind = 'published' AND instr(detail, ?)"
        gone = ledger.execute(query, (identity,)).fetchone() is None
    else:
        gone = type(row[0]) is int and identity in check_row(ledger, row[0], "deactivated", "replaced")["nodes"]
    if not gone:
        raise altered(ledger, f"no row says why node {identity} serves no more")


def counts(ledger: Ledger) -> dict[str, Any]:
    """Numbers of examples, deleted ones, and requests by state; forgotten examples count, too."""
    (examples,) = ledger.execute("SELECT count(*) FROM examples").fetchone()
    (deleted,) = ledger.execute("SELECT count(*) FROM examples WHERE deleted IS NOT NULL").fetchone()
    requests = dict(ledger.execute("SELECT state, count(*) FROM requests GROUP BY state"))
    if odd := [state for state in requests if not isinstance(state, str)]:
        raise altered(ledger, f"a request's state is {odd[0]!r:.40}")
    (forgotten,) = ledger.execute("SELECT count(*) FROM forgotten").fetchone() if marks.are_kept(ledger) else (0,)
    return {"examples": examples + forgotten, "deleted": deleted + forgotten, "requests": requests}


def count_published(ledger: Ledger) -> int:
    """The number of nodes that were ever published, those that serve no more among them."""
    return int(ledger.execute("SELECT count(*) FROM nodes").fetchone()[0])


# --- Examples ---------------------------------------------------------------------------------------------------------


def record_examples(
    ledger: Ledger,
    ids: Iterable[int],
    shards: Iterable[int],
    slices: Iterable[int],
    labels: registry.Labels | None = None,
    retrain: bool = False,
    key: bytes | None = None,
) -> Head:
    """Take in examples, all or none.

    Args:
      ids: distinct whole numbers of 64 bits, never registered before, deleted ones included.
      shards, slices: the place of each.
      labels: what some of them, or of those registered before, are called, by kind.
      retrain: whether nodes of their slices are to be trained anew, see `s3t.store.newcomers`.
      key: the store's secret; without it these ids can never be forgotten (`s3t.store.ledger.redaction`).

    Raises:
      ValueError: a malformed id, an id twice, or one that is or was registered.
    """
    columns = whole(ids), list(map(operator.index, shards)), list(map(operator.index, slices))
    if len(set(map(len, columns))) > 1:
        raise ValueError("a registration needs one shard and one slice for each id")
    rows = sorted(zip(*columns, strict=True))
    if repeated := [low[0] for low, high in pairwise(rows) if low[0] == high[0]]:
        raise ValueError(f"id {repeated[0]} is given twice: nothing was registered")
    with writing(ledger):
        seq = head(ledger).rows + 1
        if key is not None and (known := marks.forgotten(ledger, key, columns[0])):
            raise ValueError(f"id {min(known)} was registered before: nothing was registered")
        try:
            ledger.executemany("INSERT INTO examples VALUES (?, ?, ?, ?, NULL)", ((*row, seq) for row in rows))
        except sqlite3.IntegrityError:
            raise ValueError(f"id {_taken(ledger, rows, seq)} was registered before: nothing was registered") from None
        brought: dict[str, Any] = registry.record(ledger, seq, labels or {})
        brought |= {"retrain": True} if retrain else {}
        how = {"digest": examples_digest(rows)} if key is None else {"digest": keyed_digest(key, rows), "leaves": 1}
        return append(ledger, "registered", "", {"count": len(rows), **how, **brought})


def _taken(ledger: Ledger, rows: list[tuple[int, int, int]], seq: int) -> int:
    """The first id of a registration that an earlier row of the log registered."""
    query = "SELECT 1 FROM examples WHERE id = ? AND registered < ?"
    return next(id_ for id_, _, _ in rows if ledger.execute(query, (id_, seq)).fetchone())


def examples_digest(rows: Iterable[tuple[int, int, int]]) -> str:
    """SHA-256 over (id, shard, slice) of examples in ascending order."""
    sha = hashlib.sha256(b"s3t.examples\n")
    for id_, shard, slice_ in rows:
        sha.update(f"{id_!r},{shard!r},{slice_!r}\n".encode())
    return sha.hexdigest()


def keyed_digest(key: bytes, rows: Iterable[tuple[int, int, int]], forgotten: Iterable[tuple[str, int, int]] = ()) -> str:
    """The digest of a registration that stays the same when some of its examples are forgotten.

    Args:
      key: the store's secret.
      rows: (id, shard, slice) of examples.
      forgotten: (mark, shard, slice) of those that are forgotten.
    """
    places = [*((marks.mark(key, id_), shard, slice_) for id_, shard, slice_ in rows), *forgotten]
    return marks.leaves_digest(marks.leaf(*place) for place in places)


# --- Nodes ------------------------------------------------------------------------------------------------------------


def record_node(
    ledger: Ledger, node: PublishedNode, parent: str | None, write_file: Callable[[], None], replace: bool = False
) -> bool:
    """Let a node serve, unless an id that it was trained on has been deleted since.

    Args:
      node: the node.
      parent: identity of its parent, None at depth 1.
      write_file: puts the node's file where it belongs; called while no other process can write, or not at all.
      replace: whether older nodes of its place serve no more from then on, nor what was trained below them.

    Returns:
      whether it is new; False if the very same node serves already.

    Raises:
      Outdated: an id of the node was deleted, its parent serves no more, or a later node takes its place: train it again.
      ValueError: a node of this identity was published with another certificate, or dropped before; a parent that is not
        one.
    """
    with writing(ledger):
        earlier = ledger.execute("SELECT certificate, dropped FROM nodes WHERE identity = ?", node[:1]).fetchone()
        if earlier == (node.certificate, None):
            return False
        if _deleted_since(ledger, node):
            raise Outdated(f"an id that node {node.identity} was trained on has been deleted: it is not published")
        replaced = bool(earlier) and earlier[1] is not None and _was_replaced(ledger, node.identity, earlier[1])
        if earlier and earlier[1] and not replaced:  # its name covers an id that is gone for ever: nothing should draft it
            raise ValueError(f"the ledger was altered: node {node.identity} was dropped before; run python -m s3t verify")
        if earlier and not replaced:
            raise ValueError(f"node {node.identity} serves already, with other bytes: training was not reproducible")
        _check_parent(ledger, node, parent)
        older = _older(ledger, node) if replace else []
        write_file()
        detail = {**node._asdict(), "slices": list(node.slices)}
        seq = append(ledger, "published", "", detail).rows
        row = (node.identity, node.shard, text_of(node.slices), node.as_of, node.certificate, seq)
        ledger.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)", row)
        if older:
            seq = append(ledger, "replaced", "", {"by": node.identity, "nodes": older}).rows
            ledger.executemany("UPDATE nodes SET dropped = ? WHERE identity = ?", ((seq, name) for name in older))
        return True


def _was_replaced(ledger: Ledger, identity: str, dropped: int) -> bool:
    """Whether a node was dropped because more examples came: if they are gone, what it was trained on is right again."""
    (kind,) = ledger.execute("SELECT kind FROM log WHERE seq = ?", (dropped,)).fetchone() or ("",)
    return bool(kind == "replaced") and identity in check_row(ledger, dropped, "replaced")["nodes"]


def _older(ledger: Ledger, node: PublishedNode) -> list[str]:
    """Serving nodes of a node's place that saw an earlier ledger, and those trained below them."""
    depth = len(node.slices)
    family = [one for one in nodes(ledger) if one.shard == node.shard and one.slices[:depth] == node.slices]
    if any(one.as_of > node.as_of and one.slices == node.slices for one in family):
        raise Outdated(f"a later node than {node.identity} serves in its place: it is not published")
    return sorted(one.identity for one in family if one.as_of < node.as_of)


def record_restored(ledger: Ledger, node: PublishedNode, write_file: Callable[[], None]) -> None:
    """Note that a serving node's lost file is there again, byte for byte, so that servers look for it.

    Args:
      node: the node, with the certificate of what takes the file's place.
      write_file: as in `record_node`.

    Raises:
      Outdated: the node serves no more.
      ValueError: it was published with another certificate.
    """
    with writing(ledger):
        row = ledger.execute("SELECT certificate, dropped FROM nodes WHERE identity = ?", node[:1]).fetchone()
        if row is None or row[1] is not None:
            raise Outdated(f"node {node.identity} serves no more: it is not restored")
        if row[0] != node.certificate:
            raise ValueError("what is trained here in its place is not, byte for byte, what was published")
        write_file()
        append(ledger, "restored", "", {"identity": node.identity})


def _deleted_since(ledger: Ledger, node: PublishedNode) -> bool:
    """Whether an example of the node was deleted after the node's ids were fixed; by time, as there are few since."""
    since = "WHERE deleted > ? AND shard = ? AND registered <= ?"
    query = f"SELECT slice FROM examples INDEXED BY deletions {since}"
    rows = ledger.execute(query, (node.as_of, node.shard, node.as_of)).fetchall()
    if marks.are_kept(ledger):  # healed and forgotten while the node was trained
        rows += ledger.execute(f"SELECT slice FROM forgotten {since}", (node.as_of, node.shard, node.as_of)).fetchall()
    return any(slice_ in node.slices for (slice_,) in rows)


def _check_parent(ledger: Ledger, node: PublishedNode, parent: str | None) -> None:
    """A parent serves, is the node without its last slice, and saw no later ledger: then its ids are among the node's."""
    if parent is None and len(node.slices) == 1:
        return
    row = ledger.execute("SELECT shard, slices, as_of, dropped FROM nodes WHERE identity = ?", (parent,)).fetchone()
    if row is None or (row[0], slices_of(row[1])) != (node.shard, node.slices[:-1]) or row[2] > node.as_of:
        raise ValueError(f"{parent} is no parent of {list(node.slices)} of shard {node.shard}: publish parents first")
    if row[3] is not None:
        raise Outdated(f"the parent of node {node.identity} serves no more: it is not published")


def text_of(slices: Iterable[int]) -> str:
    """Slices between commas, so that SQL finds one of them by its commas."""
    return f",{','.join(map(str, slices))},"


def slices_of(text: str) -> tuple[int, ...]:
    """Slices from such a text."""
    return tuple(int(part) for part in text.strip(",").split(","))
