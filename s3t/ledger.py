"""The durable record of a store: which examples there are, which are deleted, and which nodes may serve.

One SQLite file. The log is its truth, a chain of rows that are only ever appended (`s3t.chain`); the other tables say the
same in a form that is quick to ask, and `audit` compares the two. A request is received and deactivated in one transaction:
when `delete` returns, its rows are on disk and no reader that asks the ledger serves an affected node any more. Later it is
purged (its nodes' files are gone) and healed (what it took away was trained anew).

Any number of processes may have the file open. A writer waits for another for up to half a minute. A reader finds out that
something changed by comparing `head`.
"""

from __future__ import annotations

import hashlib
import json
import operator
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from s3t import chain
from s3t.certificate import INT64, canonical

Ledger = sqlite3.Connection

WAIT_SECONDS = 30.0
REQUEST_LENGTH = 200
SHOWN = 20  # problems of one kind that an audit names
BROKEN = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}  # a file that is not whole
UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}  # one that may be read only
DELETED = "SELECT id, deleted FROM examples WHERE deleted IS NOT NULL"

SCHEMA = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, request TEXT NOT NULL,
                  detail TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE examples (id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, slice INTEGER NOT NULL,
                       registered INTEGER NOT NULL, deleted INTEGER);
CREATE INDEX places ON examples (shard, slice);
CREATE INDEX deletions ON examples (deleted) WHERE deleted IS NOT NULL;
CREATE TABLE requests (request TEXT PRIMARY KEY, state TEXT NOT NULL, deactivated INTEGER NOT NULL);
CREATE INDEX states ON requests (state);
CREATE TABLE nodes (identity TEXT PRIMARY KEY, shard INTEGER NOT NULL, slices TEXT NOT NULL, as_of INTEGER NOT NULL,
                    certificate TEXT NOT NULL, published INTEGER NOT NULL, dropped INTEGER, purged INTEGER);
CREATE INDEX live ON nodes (shard) WHERE dropped IS NULL;
CREATE INDEX unpurged ON nodes (dropped) WHERE dropped IS NOT NULL AND purged IS NULL;
"""


class Outdated(ValueError):
    """An id that a node was trained on has been deleted meanwhile: the node must not be published."""


class Damaged(ValueError):
    """A file that is no ledger, or no longer a whole one."""


class Head(NamedTuple):
    """Where a ledger stands: the number of its rows and the digest of the last."""

    rows: int
    digest: str


class Deletion(NamedTuple):
    """The answer to a request to delete.

    request: its id.
    state: "deactivated", the state that was acknowledged.
    ids: deleted by this request, in the order asked for.
    already: deleted before it.
    unknown: never registered.
    dropped: identities of the nodes that serve no more.
    head: the ledger's head that holds the deletion; keep it as a receipt.
    """

    request: str
    state: str
    ids: tuple[int, ...]
    already: tuple[int, ...]
    unknown: tuple[int, ...]
    dropped: tuple[str, ...]
    head: str


class Node(NamedTuple):
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


# --- Opening ----------------------------------------------------------------------------------------------------------


def create(path: Path, manifest: str) -> Ledger:
    """A new ledger with its first row.

    Args:
      path: of a file that does not exist.
      manifest: digest of the store's manifest.

    Raises:
      ValueError: the file exists.
    """
    if path.exists():
        raise ValueError(f"there is a ledger at {path} already: open it or choose another place")
    ledger = _connect(path, "rwc")
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.executescript(SCHEMA)
    ledger.close()
    ledger = open(path)
    with ledger:
        _begin(ledger)
        _append(ledger, "created", "", {"manifest": manifest})
    return ledger


def open(path: Path, *, still: bool = False) -> Ledger:
    """An existing ledger.

    Args:
      path: of its file.
      still: the ledger may be one that this process has no permission to write and nobody else writes meanwhile, a copy on
        a read-only disk. It is then read without locks and would not show what others append: not for who serves.

    Raises:
      Damaged: it is not whole.
      ValueError: there is none, or it cannot be read here or now.
    """
    if not path.is_file():
        raise ValueError(f"there is no ledger at {path}")
    try:
        return _probed(path, "rw")
    except sqlite3.DatabaseError as error:
        ahead = path.with_name(path.name + "-wal")  # rows that are not in the file yet
        if not still or _code(error) not in UNWRITABLE or ahead.exists():
            raise _explanation(path, error) from None
    with explained(path):
        return _probed(path, "ro&immutable=1")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a ledger that cannot be read whether it is damaged, or out of this process's reach.

    Raises:
      Damaged, ValueError: as `open`.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from None


def _explanation(path: Path, error: sqlite3.DatabaseError) -> ValueError:
    if _code(error) in BROKEN:
        return Damaged(f"{path.parent}'s ledger is damaged ({error}): restore it from a copy")
    return ValueError(
        f"{path.parent}'s ledger cannot be read ({error}): check who may write there, and that no other process holds it"
    )


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code; what the sqlite3 module itself finds wrong counts as SQLITE_ERROR."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _probed(path: Path, mode: str) -> Ledger:
    """A connection to a file that has all tables."""
    ledger = _connect(path, mode)
    try:
        ledger.execute("PRAGMA synchronous = FULL")  # a commit returns when it is on disk, not when it is consistent
        ledger.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves it in the drive's cache
        ledger.execute("SELECT 1 FROM log, examples, requests, nodes LIMIT 0").fetchone()
    except sqlite3.DatabaseError:
        ledger.close()
        raise
    return ledger


def _connect(path: Path, mode: str) -> Ledger:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, timeout=WAIT_SECONDS, isolation_level=None, uri=True)


def _begin(ledger: Ledger) -> None:
    """Take the one write lock; leaving `with ledger` commits, or takes everything back after an exception."""
    ledger.execute("BEGIN IMMEDIATE")


def _append(ledger: Ledger, kind: str, request: str, detail: dict[str, Any]) -> Head:
    """The next row of the chain."""
    before = head(ledger)
    seq, text = before.rows + 1, canonical(detail).decode()
    (at,) = ledger.execute("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").fetchone()
    digest = chain.link(before.digest, seq, at, kind, request, text)
    ledger.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", (seq, at, kind, request, text, digest))
    return Head(seq, digest)


# --- Reading ----------------------------------------------------------------------------------------------------------


def head(ledger: Ledger) -> Head:
    """The ledger's head as committed by any process: a few microseconds, to be asked before every batch served."""
    row = ledger.execute("SELECT seq, digest FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, chain.START)


def manifest(ledger: Ledger) -> str:
    """The digest of the manifest that the ledger was created with; empty if its first row is not whole."""
    rows = ledger.execute("SELECT seq, at, kind, request, detail, digest FROM log WHERE seq = 1")
    history, _ = chain.replay(chain.Row(*row) for row in rows)
    return history.manifest[0] if history.manifest else ""


def nodes(ledger: Ledger) -> tuple[Node, ...]:
    """The nodes that may serve, in the order of their publication."""
    rows = ledger.execute(
        "SELECT identity, shard, slices, as_of, certificate FROM nodes WHERE dropped IS NULL ORDER BY published"
    )
    return tuple(Node(name, shard, _slices(text), as_of, digest) for name, shard, text, as_of, digest in rows)


def certificate_of(ledger: Ledger, identity: str) -> str:
    """The digest of a published node's certificate.

    Raises:
      ValueError: no such node was published.
    """
    row = ledger.execute("SELECT certificate FROM nodes WHERE identity = ?", (identity,)).fetchone()
    if row is None:
        raise ValueError(f"node {identity} was never published: publish parents first")
    return str(row[0])


def purged(ledger: Ledger) -> tuple[str, ...]:
    """The identities of all nodes whose files must be gone."""
    return tuple(name for (name,) in ledger.execute("SELECT identity FROM nodes WHERE purged IS NOT NULL"))


def members(ledger: Ledger, shard: int, slices: Sequence[int]) -> tuple[Head, tuple[int, ...]]:
    """The ids that a node of these slices would be trained on now, ascending, and the head at which that is so."""
    with ledger:
        ledger.execute("BEGIN")  # one snapshot for both
        marks = ", ".join("?" * len(slices))
        rows = ledger.execute(
            f"SELECT id FROM examples WHERE shard = ? AND slice IN ({marks}) AND deleted IS NULL ORDER BY id",
            (shard, *slices),
        )
        return head(ledger), tuple(one for (one,) in rows)


def shard_ids(ledger: Ledger, shard: int) -> list[tuple[int, int, int, int | None]]:
    """(id, slice, registered, deleted) of a shard's examples, ascending; the last two are rows of the log."""
    return ledger.execute(
        "SELECT id, slice, registered, deleted FROM examples WHERE shard = ? ORDER BY id", (shard,)
    ).fetchall()


def held_by(
    examples: Iterable[tuple[int, int, int, int | None]], node: Node, slices: Iterable[int] | None = None
) -> list[int]:
    """The ids that a node was trained on in all of its slices or in some, from its shard's rows (`shard_ids`)."""
    among, as_of = set(node.slices if slices is None else slices), node.as_of
    return [
        one
        for one, slice_, registered, gone in examples
        if slice_ in among and registered <= as_of and (gone is None or gone > as_of)
    ]


def counts(ledger: Ledger) -> dict[str, Any]:
    """Numbers of examples, deleted ones, and requests by state."""
    (examples,) = ledger.execute("SELECT count(*) FROM examples").fetchone()
    (deleted,) = ledger.execute("SELECT count(*) FROM examples WHERE deleted IS NOT NULL").fetchone()
    requests = dict(ledger.execute("SELECT state, count(*) FROM requests GROUP BY state"))
    return {"examples": examples, "deleted": deleted, "requests": requests}


def requests(ledger: Ledger, state: str) -> tuple[str, ...]:
    """The requests in a state, oldest first."""
    rows = ledger.execute("SELECT request FROM requests WHERE state = ? ORDER BY deactivated", (state,))
    return tuple(request for (request,) in rows)


def places_hit(ledger: Ledger, request: str) -> set[tuple[int, int]]:
    """The (shard, slice) that a request deleted examples of."""
    rows = ledger.execute(
        "SELECT DISTINCT shard, slice FROM examples WHERE deleted = (SELECT deactivated FROM requests WHERE request = ?)",
        (request,),
    )
    return set(rows)


# --- Examples ---------------------------------------------------------------------------------------------------------


def register(ledger: Ledger, ids: Iterable[int], shards: Iterable[int], slices: Iterable[int]) -> Head:
    """Take in examples, all or none.

    Args:
      ids: distinct whole numbers of 64 bits, never registered before, deleted ones included.
      shards, slices: the place of each.

    Raises:
      ValueError: a malformed id, an id twice, or one that is or was registered.
    """
    columns = _whole(ids), list(map(operator.index, shards)), list(map(operator.index, slices))
    if len(set(map(len, columns))) > 1:
        raise ValueError("a registration needs one shard and one slice for each id")
    rows = sorted(zip(*columns, strict=True))
    if twice := [low[0] for low, high in pairwise(rows) if low[0] == high[0]]:
        raise ValueError(f"id {twice[0]} is given twice: nothing was registered")
    with ledger:
        _begin(ledger)
        seq = head(ledger).rows + 1
        try:
            ledger.executemany("INSERT INTO examples VALUES (?, ?, ?, ?, NULL)", ((*row, seq) for row in rows))
        except sqlite3.IntegrityError:
            raise ValueError(f"id {_taken(ledger, rows, seq)} was registered before: nothing was registered") from None
        return _append(ledger, "registered", "", {"count": len(rows), "digest": _examples_digest(rows)})


def _taken(ledger: Ledger, rows: list[tuple[int, int, int]], seq: int) -> int:
    """The first id of a registration that an earlier row of the log registered."""
    query = "SELECT 1 FROM examples WHERE id = ? AND registered < ?"
    return next(one for one, _, _ in rows if ledger.execute(query, (one, seq)).fetchone())


def _examples_digest(rows: Iterable[tuple[int, int, int]]) -> str:
    """SHA-256 over (id, shard, slice) of examples in ascending order."""
    sha = hashlib.sha256(b"s3t.examples\n")
    for one, shard, slice_ in rows:
        sha.update(f"{one!r},{shard!r},{slice_!r}\n".encode())
    return sha.hexdigest()


def _whole(values: Iterable[int]) -> list[int]:
    """Whole numbers of 64 bits, numpy's among them.

    Raises:
      ValueError: anything else.
    """
    return [_one(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]


def _one(value: Any) -> int:
    whole = operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else None
    if whole is None or whole not in INT64:
        raise ValueError(f"an id is a whole number of 64 bits, got {value!r:.80}: nothing was changed")
    return whole


# --- Deletion ---------------------------------------------------------------------------------------------------------


def delete(ledger: Ledger, ids: Iterable[int], request: str) -> Deletion:
    """Delete examples in one transaction that is on disk when this returns.

    A request that was carried out before is answered as it was then. Unknown and already deleted ids are named and change
    nothing; a request of nothing else leaves no trace.

    Args:
      ids: whole numbers; repeated ones count once.
      request: 1 to 200 characters of the caller's choice.

    Raises:
      ValueError: no id, a malformed id, a malformed request, or a request that was made for other ids; nothing is changed.
    """
    asked = list(dict.fromkeys(_whole(ids)))
    if not asked:
        raise ValueError("a deletion needs at least one id")
    if not isinstance(request, str) or not 1 <= len(request) <= REQUEST_LENGTH or not request.isprintable():
        raise ValueError(f"a request's id is 1 to {REQUEST_LENGTH} printable characters, got {request!r:.80}")
    with ledger:
        _begin(ledger)
        earlier = answer(ledger, request)
        if earlier is None:
            return _delete(ledger, asked, request)
    if set(asked) != {*earlier.ids, *earlier.already, *earlier.unknown}:
        raise ValueError(f"request {request} was made before, for other ids: choose another request id")
    return earlier


def answer(ledger: Ledger, request: str) -> Deletion | None:
    """What was acknowledged to a request; None if it was never made or changed nothing."""
    row = ledger.execute(
        "SELECT detail, digest FROM log WHERE seq = (SELECT deactivated FROM requests WHERE request = ?)", (request,)
    ).fetchone()
    return row and _deletion(request, json.loads(row[0]), row[1])


def _deletion(request: str, detail: dict[str, list[Any]], digest: str) -> Deletion:
    ids, already, unknown, dropped = (tuple(detail[field]) for field in ("ids", "already", "unknown", "nodes"))
    return Deletion(request, "deactivated", ids, already, unknown, dropped, digest)


def _delete(ledger: Ledger, asked: list[int], request: str) -> Deletion:
    """Carry out a new request inside a transaction."""
    rows = ledger.execute(
        "SELECT id, shard, slice, registered, deleted FROM examples WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(asked),),
    )
    found = {row[0]: row[1:] for row in rows}
    fresh = [one for one in asked if one in found and found[one][-1] is None]
    detail: dict[str, list[Any]] = {
        "ids": fresh,
        "already": [one for one in asked if one in found and found[one][-1] is not None],
        "unknown": [one for one in asked if one not in found],
        "nodes": _nodes_with(ledger, [found[one][:-1] for one in fresh]),
    }
    if not fresh:
        return _deletion(request, detail, head(ledger).digest)
    _append(ledger, "received", request, {"ids": asked})
    seq, digest = _append(ledger, "deactivated", request, detail)
    ledger.executemany("UPDATE examples SET deleted = ? WHERE id = ?", ((seq, one) for one in fresh))
    ledger.executemany("UPDATE nodes SET dropped = ? WHERE identity = ?", ((seq, name) for name in detail["nodes"]))
    ledger.execute("INSERT INTO requests VALUES (?, 'deactivated', ?)", (request, seq))
    return _deletion(request, detail, digest)


def _nodes_with(ledger: Ledger, hits: list[tuple[int, int, int]]) -> list[str]:
    """Serving nodes that hold one of the examples (shard, slice, registered): those that have its slice and saw it."""
    earliest: dict[tuple[int, int], int] = {}
    for shard, slice_, registered in hits:
        earliest[shard, slice_] = min(registered, earliest.get((shard, slice_), registered))
    names: set[str] = set()
    for (shard, slice_), registered in earliest.items():
        rows = ledger.execute(
            "SELECT identity FROM nodes WHERE shard = ? AND dropped IS NULL AND instr(slices, ?) AND as_of >= ?",
            (shard, f",{slice_},", registered),
        )
        names.update(name for (name,) in rows)
    return sorted(names)


# --- Nodes ------------------------------------------------------------------------------------------------------------


def publish(ledger: Ledger, node: Node, parent: str | None, place: Callable[[], None]) -> bool:
    """Let a node serve, unless an id that it was trained on has been deleted since.

    Args:
      node: the node.
      parent: identity of its parent, None at depth 1.
      place: puts the node's file where it belongs; called while no other process can write, or not at all.

    Returns:
      whether it is new; False if the very same node serves already.

    Raises:
      Outdated: an id of the node was deleted, or its parent serves no more: train it anew.
      ValueError: a node of this identity was published with another certificate, or dropped before; a parent that is not
        one.
    """
    with ledger:
        _begin(ledger)
        earlier = ledger.execute("SELECT certificate, dropped FROM nodes WHERE identity = ?", node[:1]).fetchone()
        if earlier == (node.certificate, None):
            return False
        if _deleted_since(ledger, node):
            raise Outdated(f"an id that node {node.identity} was trained on has been deleted: it is not published")
        if earlier and earlier[1]:  # its name covers an id that is gone for ever, so nothing should have drafted it
            raise ValueError(f"the ledger was altered: node {node.identity} was dropped before; run python -m s3t verify")
        if earlier:
            raise ValueError(f"node {node.identity} serves already, with other bytes: training was not reproducible")
        _check_parent(ledger, node, parent)
        place()
        detail = {**node._asdict(), "slices": list(node.slices)}
        seq = _append(ledger, "published", "", detail).rows
        row = (node.identity, node.shard, _text(node.slices), node.as_of, node.certificate, seq)
        ledger.execute("INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)", row)
        return True


def restore(ledger: Ledger, node: Node, place: Callable[[], None]) -> None:
    """Note that a serving node's lost file is there again, byte for byte, so that who serves looks for it.

    Args:
      node: the node, with the certificate of what takes the file's place.
      place: as in `publish`.

    Raises:
      Outdated: the node serves no more.
      ValueError: it was published with another certificate.
    """
    with ledger:
        _begin(ledger)
        row = ledger.execute("SELECT certificate, dropped FROM nodes WHERE identity = ?", node[:1]).fetchone()
        if row is None or row[1] is not None:
            raise Outdated(f"node {node.identity} serves no more: it is not restored")
        if row[0] != node.certificate:
            raise ValueError("what is trained here in its place is not, byte for byte, what was published")
        place()
        _append(ledger, "restored", "", {"identity": node.identity})


def _deleted_since(ledger: Ledger, node: Node) -> bool:
    """Whether an example of the node was deleted after the node's ids were fixed; by time, as there are few since."""
    rows = ledger.execute(
        "SELECT slice FROM examples INDEXED BY deletions WHERE deleted > ? AND shard = ? AND registered <= ?",
        (node.as_of, node.shard, node.as_of),
    )
    return any(slice_ in node.slices for (slice_,) in rows)


def _check_parent(ledger: Ledger, node: Node, parent: str | None) -> None:
    """A parent serves, is the node without its last slice, and saw no later ledger: then its ids are among the node's."""
    if parent is None and len(node.slices) == 1:
        return
    row = ledger.execute("SELECT shard, slices, as_of, dropped FROM nodes WHERE identity = ?", (parent,)).fetchone()
    if row is None or (row[0], _slices(row[1])) != (node.shard, node.slices[:-1]) or row[2] > node.as_of:
        raise ValueError(f"{parent} is no parent of {list(node.slices)} of shard {node.shard}: publish parents first")
    if row[3] is not None:
        raise Outdated(f"the parent of node {node.identity} serves no more: it is not published")


def _text(slices: Iterable[int]) -> str:
    """Slices between commas, so that SQL finds one of them by its commas."""
    return f",{','.join(map(str, slices))},"


def _slices(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip(",").split(","))


# --- After a deletion -------------------------------------------------------------------------------------------------


def purge(ledger: Ledger, remove: Callable[[set[str]], None]) -> tuple[str, ...]:
    """Remove what no longer serves and say so: requests go from deactivated to purged.

    Args:
      remove: is given the identities of all serving nodes and must make sure, durably, that no file of any other is left;
        called while no other process can write.

    Returns:
      the requests that became purged.
    """
    with ledger:
        _begin(ledger)
        remove({node.identity for node in nodes(ledger)})
        waiting = ledger.execute(
            "SELECT request, deactivated FROM requests WHERE state = 'deactivated' ORDER BY deactivated"
        ).fetchall()
        for request, deactivated in waiting:
            names = ledger.execute("SELECT identity FROM nodes WHERE dropped = ? ORDER BY identity", (deactivated,))
            seq = _append(ledger, "purged", request, {"nodes": [name for (name,) in names]}).rows
            ledger.execute("UPDATE nodes SET purged = ? WHERE dropped = ?", (seq, deactivated))
            ledger.execute("UPDATE requests SET state = 'purged' WHERE request = ?", (request,))
        return tuple(request for request, _ in waiting)


def heal(ledger: Ledger, request: str) -> bool:
    """Note that what a request took away has been trained anew.

    Returns:
      whether that is news; False if the request is healed already.

    Raises:
      ValueError: there is no such request, or it is not purged yet.
    """
    with ledger:
        _begin(ledger)
        row = ledger.execute("SELECT state FROM requests WHERE request = ?", (request,)).fetchone()
        if row not in (("purged",), ("healed",)):
            raise ValueError(f"request {request} is {row[0] if row else 'unknown'}: only a purged one can be healed")
        if row == ("healed",):
            return False
        ledger.execute("UPDATE requests SET state = 'healed' WHERE request = ?", (request,))
        _append(ledger, "healed", request, {})
        return True


# --- Audit ------------------------------------------------------------------------------------------------------------


def audit(ledger: Ledger, manifest: str, expect_head: str | None = None) -> list[str]:
    """Whether the chain is whole and the tables say what it says.

    Args:
      ledger: the ledger; inside a transaction, if other questions are to be answered from the same snapshot.
      manifest: digest of the store's manifest.
      expect_head: a head that the ledger had at some time.

    Returns:
      what is wrong, one line each; it stops at the first row that is wrong.
    """
    rows = ledger.execute("SELECT seq, at, kind, request, detail, digest FROM log ORDER BY seq")
    history, broken = chain.replay(chain.Row(*row) for row in rows)
    if broken:
        return [broken]
    problems = []
    if expect_head is not None and not ledger.execute("SELECT 1 FROM log WHERE digest = ?", (expect_head,)).fetchone():
        problems.append(f"the ledger never had the head {expect_head:.80}: its end was cut off or rewritten")
    if history.manifest != [manifest]:
        problems.append("the manifest is not the one that the ledger was created with")
    tables: tuple[tuple[str, dict[Any, Any], dict[Any, Any]], ...] = (
        ("the examples registered by row", _told_registered(ledger), history.registered),
        ("the deletion of id", dict(ledger.execute(DELETED)), history.deleted),
        ("request", {row[0]: row[1:] for row in ledger.execute("SELECT * FROM requests")}, history.requests),
        ("node", {row[0]: row[1:] for row in ledger.execute("SELECT * FROM nodes")}, _node_rows(history)),
    )
    for what, told, expected in tables:
        wrong = [key for key in told.keys() | expected.keys() if told.get(key) != expected.get(key)]
        problems += [f"{what} {key} is not what the ledger's rows say" for key in sorted(wrong, key=str)[:SHOWN]]
    return problems


def _told_registered(ledger: Ledger) -> dict[int, tuple[int, str]]:
    """Row -> count and digest of the examples that the table says it registered."""
    rows = ledger.execute("SELECT registered, id, shard, slice FROM examples ORDER BY registered, id")
    batches = ((seq, [row[1:] for row in batch]) for seq, batch in groupby(rows, key=operator.itemgetter(0)))
    return {seq: (len(batch), _examples_digest(batch)) for seq, batch in batches}


def _node_rows(history: chain.History) -> dict[str, tuple[Any, ...]]:
    """What the table of nodes should hold, by identity."""
    return {name: (node.place[0], _text(node.place[1]), *node[1:]) for name, node in history.nodes.items()}
