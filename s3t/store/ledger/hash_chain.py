"""The rows of a ledger, each bound to all before it, and what they say when read from the first to the last.

A row's digest covers the digest before it, so that a changed, removed, inserted or moved row shows. A chain that was
rewritten as a whole, or whose end was cut off with everything that followed from it, shows only against an earlier head
that was kept: the `head` of an acknowledged deletion is such a receipt.

Kinds of rows, with what their detail holds:

    created      manifest, the digest of the store's manifest
    registered   count and digest of the examples that came in; groups and names, digests, if they had some;
                 retrain, true, if nodes of their slices are to be trained anew
    published    identity, shard, slices, as_of, certificate: a node and what it was trained on
    replaced     nodes that no longer serve because more examples came; by, the node in the place of the first
    restored     identity of a node whose file was lost and is there again, byte for byte
    received     ids and groups as asked for
    deactivated  ids deleted by this request, already and unknown ones, unknown groups, and the nodes that no longer serve
    purged       nodes of the request whose files are gone
    healed       nothing; what the request took away has been trained anew
    redacted     rows, those of the deactivations whose ids were forgotten; count and digest of what was

The ids of a request are under a salt: the digest of its rows covers what `sealed` makes of them, so that a redaction can
put that in their place. Rows before 0.2 have no salt; their digest covers the ids themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from s3t.store.certificates import canonical, digest

START = "0" * 64  # what the first row follows

LAST = (1 << 63) - 1  # no row has a larger number

LABELS = ("groups", "names")  # kinds of labels of examples, see `s3t.store.ledger.registry`
SALTED = ("received", "deactivated")  # kinds of rows that name ids
NAMING = ("ids", "already", "unknown", "groups", "unknown_groups")  # fields of theirs that do, and that name people

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
    replaced: whether it was dropped because more examples came: if they are deleted, it may come back.
    """

    place: tuple[int, tuple[int, ...]]
    as_of: int
    certificate: str
    published: int
    dropped: int | None = None
    purged: int | None = None
    replaced: bool = False


class History(NamedTuple):
    """What the rows of a ledger add up to.

    manifest: digest of the store's manifest, one entry.
    registered: row -> (count, digest) of the examples it brought.
    deleted: id -> row of its deletion, of ids that are not forgotten.
    requests: request -> (state, row of its deactivation).
    nodes: identity -> what the rows say of it.
    labels: (row, kind) -> digest of the labels that a registration brought, see `s3t.store.ledger.registry`.
    leaved: rows of registrations whose digest is one of leaves (`s3t.store.ledger.marks`).
    sealed: rows of deactivations that no longer name their ids.
    redacted: row -> (count, digest) of what a redaction forgot.
    """

    manifest: list[str]
    registered: dict[int, tuple[int, str]]
    deleted: dict[int, int]
    requests: dict[str, tuple[str, int]]
    nodes: dict[str, NodeHistory]
    labels: dict[tuple[int, str], str]
    leaved: set[int]
    sealed: set[int]
    redacted: dict[int, tuple[int, str]]


def sealed(kind: str, detail: str) -> str:
    """A row's detail without its salt, each id in it hidden; one without a salt as it is.

    Example:
      >>> sealed("received", '{"ids":[12],"salt":"00"}')[:20], sealed("received", '{"ids":[12]}')
      ('{"ids":["57aeafd3cd9', '{"ids":[12]}')
    """
    if kind not in SALTED or not isinstance(detail, str) or '"salt"' not in detail:
        return detail
    try:
        fields = json.loads(detail)
        salt = fields.pop("salt")
        hidden = {name: [_hidden(salt, id_) for id_ in fields[name]] for name in NAMING if name in fields}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):  # no row that was ever written
        return detail
    return canonical({**fields, **hidden}).decode()


def _hidden(salt: str, id_: Any) -> str:
    return hashlib.sha256(f"s3t.id\n{salt}\n{id_!r}".encode()).hexdigest()


def link(before: str, seq: int, at: str, kind: str, request: str, detail: str) -> str:
    """The digest of a row that follows the digest `before`."""
    return digest("ledger", [before, seq, at, kind, request, sealed(kind, detail)])


class Chain(NamedTuple):
    """A chain as far as it was read.

    rows: how many.
    digest: of the last.
    history: what they add up to; reading on adds to it in place.
    problem: what is wrong with the next row, at which reading stopped; empty if nothing is.
    """

    rows: int
    digest: str
    history: History
    problem: str = ""


def start() -> Chain:
    """A chain of which nothing was read."""
    return Chain(0, START, History([], {}, {}, {}, {}, {}, set(), set(), {}))


def read_on(chain: Chain, rows: Iterable[Row]) -> Chain:
    """Read the rows that follow what was read of a chain, in order of seq, up to the first that does not fit."""
    count, before, history = chain.rows, chain.digest, chain.history
    for row in rows:
        if row.seq != count + 1:
            return Chain(count, before, history, f"the ledger's row {count + 1} is missing")
        if not follows(before, row):
            problem = f"the ledger's row {count + 1} was changed or moved, or the one before it"
            return Chain(count, before, history, problem)
        if (wrong := _read(history, row)) is not None:
            return Chain(count, before, history, f"the ledger's row {count + 1} cannot be: {wrong}")
        count, before = row.seq, row.digest
    return Chain(count, before, history, "" if count else "the ledger has no rows")


def follows(before: str, row: Row) -> bool:
    """Whether a row is bound to the digest before it."""
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
        history.manifest.append(_text(detail["manifest"]))
    elif row.kind == "registered":
        history.registered[row.seq] = (_whole(detail["count"]), _text(detail["digest"]))
        history.labels.update({(row.seq, kind): _text(detail[kind]) for kind in LABELS if kind in detail})
        history.leaved.update([row.seq] if "leaves" in detail else [])
    elif row.kind == "published":
        return _publish(history, row, detail)
    elif row.kind == "replaced":
        return _replace(history, row, detail)
    elif row.kind == "restored":
        if detail["identity"] not in history.nodes or history.nodes[detail["identity"]].dropped is not None:
            return f"node {detail['identity']} is restored but does not serve"
    elif row.kind == "received":
        if row.request in history.requests:
            return f"request {row.request} was received before"
        history.requests[row.request] = ("received", row.seq)
    elif row.kind in BEFORE:
        return _advance(history, row, detail)
    elif row.kind == "redacted":
        return _forget(history, row, detail)
    else:
        return f"unknown kind {row.kind}"
    return None


def _publish(history: History, row: Row, detail: dict[str, Any]) -> str | None:
    identity, place = _text(detail["identity"]), (_whole(detail["shard"]), tuple(map(_whole, detail["slices"])))
    earlier = history.nodes.get(identity)
    if earlier is not None and not earlier.replaced:
        return f"node {identity} was published before"
    as_of = _whole(detail["as_of"])
    if as_of >= row.seq or not place[1]:
        return f"node {identity} is of row {as_of} and of slices {list(place[1])}"
    history.nodes.pop(identity, None)  # so that nodes stand in the order of their publication
    history.nodes[identity] = NodeHistory(place, as_of, _text(detail["certificate"]), row.seq)
    return None


def _replace(history: History, row: Row, detail: dict[str, Any]) -> str | None:
    """Nodes of a place and below it are dropped for a node that saw more examples."""
    by, names = history.nodes[_text(detail["by"])], list(map(_text, detail["nodes"]))
    shard, slices = by.place
    for name in names:
        node = history.nodes[name]
        below = node.place[0] == shard and node.place[1][: len(slices)] == slices
        if not below or node.as_of >= by.as_of or by.dropped is not None:
            return f"node {name} is not replaced by node {detail['by']}"
    if (wrong := _mark(history, names, "dropped", row.seq)) is None:
        history.nodes.update({name: history.nodes[name]._replace(replaced=True) for name in names})
    return wrong


def _advance(history: History, row: Row, detail: dict[str, Any]) -> str | None:
    """A request goes from one state to the next, and ids and nodes with it."""
    state, seq = history.requests.get(row.request, (None, 0))
    if state != BEFORE[row.kind]:
        return f"request {row.request} becomes {row.kind} from {state}"
    history.requests[row.request] = (row.kind, row.seq if row.kind == "deactivated" else seq)
    if row.kind == "deactivated" and is_sealed(detail):
        history.sealed.add(row.seq)
        return _mark(history, detail["nodes"], "dropped", row.seq)
    if row.kind == "deactivated":
        ids = list(map(_whole, detail["ids"]))
        if repeated := [id_ for id_ in ids if id_ in history.deleted]:
            return f"id {repeated[0]} was deleted before"
        history.deleted.update(dict.fromkeys(ids, row.seq))
        return _mark(history, detail["nodes"], "dropped", row.seq)
    return _mark(history, detail["nodes"], "purged", row.seq) if row.kind == "purged" else None


def is_sealed(detail: dict[str, Any]) -> bool:
    """Whether a row that named ids was redacted: it names at least one otherwise."""
    return "salt" not in detail and bool(detail["ids"]) and all(isinstance(id_, str) for id_ in detail["ids"])


def _forget(history: History, row: Row, detail: dict[str, Any]) -> str | None:
    """Ids leave the history as they have left the ledger, where it was read before they did."""
    rows = set(map(_whole, detail["rows"]))
    healed = {seq for state, seq in history.requests.values() if state == "healed"}
    if not rows <= healed:
        return f"row {min(rows - healed)} is redacted, but not that of a healed request"
    history.redacted[row.seq] = (_whole(detail["count"]), _text(detail["digest"]))
    for id_ in [id_ for id_, seq in history.deleted.items() if seq in rows]:
        del history.deleted[id_]
    history.sealed.difference_update(rows)
    return None


def _mark(history: History, identities: Iterable[str], field: str, seq: int) -> str | None:
    """Nodes are dropped, or purged."""
    for identity in identities:
        node = history.nodes.get(identity)
        if node is None or getattr(node, field) is not None:
            return f"node {identity} is {field} twice or was never published"
        changed: dict[str, Any] = {field: seq}
        history.nodes[identity] = node._replace(**changed)
    return None


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
