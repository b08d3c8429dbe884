"""The rows of a ledger, each bound to all before it, and what they say when read from the first to the last.

A row's digest covers the digest before it, so that a changed, removed, inserted or moved row shows. A chain that was
rewritten as a whole, or whose end was cut off with everything that followed from it, shows only against an earlier head
that was kept: the `head` of an acknowledged deletion is such a receipt.

Kinds of rows, with what their detail holds:

    created      manifest, the digest of the store's manifest
    registered   count and digest of the examples that came in
    published    identity, shard, slices, as_of, certificate: a node and what it was trained on
    restored     identity of a node whose file was lost and is there again, byte for byte
    received     ids as asked for
    deactivated  ids deleted by this request, already and unknown ones, and the nodes that no longer serve
    purged       nodes of the request whose files are gone
    healed       nothing; what the request took away has been trained anew
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from s3t.store.certificates import digest

START = "0" * 64  # what the first row follows

BEFORE = {"deactivated": "received", "purged": "deactivated", "healed": "purged"}  # a request's states, in order


class Row(NamedTuple):
    """One row.

    seq: 1, 2, ... without a gap.
    at: time in UTC, for people; nothing depends on it.
    kind: see above.
    request: the request's id; empty if the row is not about a request.
    detail: JSON text.
    digest: `link` of the digest before and all of the above.
    """

    seq: int
    at: str
    kind: str
    request: str
    detail: str
    digest: str


class NodeHistory(NamedTuple):
    """What the rows say of a published node.

    place: (shard, slices).
    as_of: the row up to which the ledger was read when its ids were fixed.
    certificate: digest of its certificate.
    published, dropped, purged: rows; None if not so far.
    """

    place: tuple[int, tuple[int, ...]]
    as_of: int
    certificate: str
    published: int
    dropped: int | None = None
    purged: int | None = None


class History(NamedTuple):
    """What the rows of a ledger add up to.

    manifest: digest of the store's manifest, one entry.
    registered: row -> (count, digest) of the examples it brought.
    deleted: id -> row of its deletion.
    requests: request -> (state, row of its deactivation).
    nodes: identity -> what the rows say of it.
    """

    manifest: list[str]
    registered: dict[int, tuple[int, str]]
    deleted: dict[int, int]
    requests: dict[str, tuple[str, int]]
    nodes: dict[str, NodeHistory]


def link(before: str, seq: int, at: str, kind: str, request: str, detail: str) -> str:
    """The digest of a row that follows the digest `before`."""
    return digest("ledger", [before, seq, at, kind, request, detail])


def read_chain(rows: Iterable[Row]) -> tuple[History, str | None]:
    """Read a chain from its first row on, in order of seq, up to the first row that does not fit.

    Returns:
      what the rows add up to, and what is wrong with the row at which reading stopped, None if nothing is.
    """
    history = History([], {}, {}, {}, {})
    before = START
    for expected, row in enumerate(rows, 1):
        if row.seq != expected:
            return history, f"the ledger's row {expected} is missing"
        if not _follows(before, row):
            return history, f"the ledger's row {expected} was changed or moved, or the one before it"
        if problem := _read(history, row):
            return history, f"the ledger's row {expected} cannot be: {problem}"
        before = row.digest
    return history, "the ledger has no rows" if before == START else None


def _follows(before: str, row: Row) -> bool:
    try:
        return row.digest == link(before, *row[:5])
    except ValueError:  # a field of a type that no row was written with
        return False


def _read(history: History, row: Row) -> str | None:
    """Add one row to a history; what is wrong with it, if anything."""
    try:
        return _apply(history, row, json.loads(row.detail))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        return f"its detail is malformed ({error!r})"


def _apply(history: History, row: Row, detail: dict[str, Any]) -> str | None:
    if (row.kind == "created") != (row.seq == 1):
        return f"{row.kind}, but a ledger is created once and first"
    if row.kind == "created":
        history.manifest.append(detail["manifest"])
    elif row.kind == "registered":
        history.registered[row.seq] = (detail["count"], detail["digest"])
    elif row.kind == "published":
        place = (detail["shard"], tuple(detail["slices"]))
        history.nodes[detail["identity"]] = NodeHistory(place, detail["as_of"], detail["certificate"], row.seq)
    elif row.kind == "restored":
        if detail["identity"] not in history.nodes or history.nodes[detail["identity"]].dropped is not None:
            return f"node {detail['identity']} is restored but does not serve"
    elif row.kind == "received":
        if row.request in history.requests:
            return f"request {row.request} was received before"
        history.requests[row.request] = ("received", row.seq)
    elif row.kind in BEFORE:
        return _advance(history, row, detail)
    else:
        return f"unknown kind {row.kind}"
    return None


def _advance(history: History, row: Row, detail: dict[str, Any]) -> str | None:
    """A request goes from one state to the next, and ids and nodes with it."""
    state, seq = history.requests.get(row.request, (None, 0))
    if state != BEFORE[row.kind]:
        return f"request {row.request} becomes {row.kind} from {state}"
    history.requests[row.request] = (row.kind, row.seq if row.kind == "deactivated" else seq)
    if row.kind == "deactivated":
        if repeated := [id_ for id_ in detail["ids"] if id_ in history.deleted]:
            return f"id {repeated[0]} was deleted before"
        history.deleted.update(dict.fromkeys(detail["ids"], row.seq))
        return _mark(history, detail["nodes"], "dropped", row.seq)
    return _mark(history, detail["nodes"], "purged", row.seq) if row.kind == "purged" else None


def _mark(history: History, identities: Iterable[str], field: str, seq: int) -> str | None:
    """Nodes are dropped, or purged."""
    for identity in identities:
        node = history.nodes.get(identity)
        if node is None or getattr(node, field) is not None:
            return f"node {identity} is {field} twice or was never published"
        changed: dict[str, Any] = {field: seq}
        history.nodes[identity] = node._replace(**changed)
    return None
