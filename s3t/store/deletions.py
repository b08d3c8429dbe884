"""A request to delete, from its record to its healing.

It is received and deactivated in one transaction: when `record_deletion` returns, its rows are on disk and no reader that
asks the ledger serves an affected node any more. Later it is purged (its nodes' files are gone) and healed (what it took
away was trained anew).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from s3t.store.ledger import hash_chain, marks, registry
from s3t.store.ledger.database import Ledger, append, head, writing
from s3t.store.ledger.records import altered, check_row, nodes

REQUEST_LENGTH = 200
DEACTIVATED, UNKNOWN = "deactivated", "unknown"  # states that are acknowledged
HEALED = "healed"  # the state of a request whose ids were forgotten, all that is known of it
SALT_BYTES = 16


class Asked(NamedTuple):
    """What a request asks to delete: examples by their ids (names that are nobody's among them), and all of some groups."""

    ids: tuple[int | str, ...]
    groups: tuple[str, ...]


class Deletion(NamedTuple):
    """The answer to a request to delete.

    request: its id.
    state: "deactivated", the state that was acknowledged; "unknown" if no id and no group is one of the store's; "healed"
      of a request that was redacted since: then no ids are told.
    ids: deleted by this request, in the order asked for.
    already: deleted before it.
    unknown: never registered.
    dropped: identities of the nodes that serve no more.
    head: the ledger's head that holds the deletion; keep it as a receipt.
    groups, unknown_groups: that were asked for, known and never registered.
    """

    request: str
    state: str
    ids: tuple[int, ...]
    already: tuple[int, ...]
    unknown: tuple[int | str, ...]
    dropped: tuple[str, ...]
    head: str
    groups: tuple[str, ...] = ()
    unknown_groups: tuple[str, ...] = ()


def record_deletion(
    ledger: Ledger, ids: Iterable[int | str], request: str, groups: Iterable[str] = (), key: bytes | None = None
) -> Deletion:
    """Delete examples in one transaction that is on disk when this returns.

    A request that was carried out before is answered as it was then. Unknown and already deleted ids are named and change
    nothing; a request of nothing else leaves no trace.

    Args:
      ids: whole numbers, or names where the store has them; repeated ones count once.
      request: 1 to 200 characters of the caller's choice.
      groups: whose examples are deleted as well, all that are registered now.
      key: the store's secret; without it the ids of this request can never be forgotten (`s3t.store.ledger.redaction`).

    Raises:
      ValueError: no id and no group, a malformed id, groups in a store without, a malformed request, or a request that was
        made for others; nothing is changed.
    """
    named = dict.fromkeys(map(registry.spelled, groups))
    asked = Asked(tuple(dict.fromkeys(registry.resolve(ledger, ids))), tuple(named))
    if not any(asked):
        raise ValueError("a deletion needs at least one id")
    if not isinstance(request, str) or not 1 <= len(request) <= REQUEST_LENGTH or not request.isprintable():
        raise ValueError(f"a request's id is 1 to {REQUEST_LENGTH} printable characters, got {request!r:.80}")
    with writing(ledger):
        earlier = answer(ledger, request)
        if earlier is None:
            return _delete(ledger, asked, request, key)
        if earlier.state != HEALED and _earlier(ledger, request) != tuple(map(set, asked)):
            raise ValueError(f"request {request} was made before, for other ids: choose another request id")
        return earlier


def _earlier(ledger: Ledger, request: str) -> tuple[set[Any], ...]:
    """The ids and groups that a request was made for when it was carried out."""
    query = (
        "SELECT detail FROM log WHERE seq = (SELECT deactivated - 1 FROM requests WHERE request = ?) AND kind = 'received'"
    )
    try:
        detail = json.loads(ledger.execute(query, (request,)).fetchone()[0])
        return set(registry.resolve(ledger, detail["ids"])), set(detail.get("groups", ()))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise altered(ledger, f"what request {request:.80} was made for is not what it was") from None


def answer(ledger: Ledger, request: str) -> Deletion | None:
    """What was acknowledged to a request; None if it was never made or changed nothing."""
    row = ledger.execute(
        "SELECT detail, digest FROM log WHERE seq = (SELECT deactivated FROM requests WHERE request = ?)", (request,)
    ).fetchone()
    try:
        return row and _deletion(request, json.loads(row[0]), row[1])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise altered(ledger, f"the answer to request {request:.80} is not what it was") from None


def _deletion(request: str, detail: dict[str, Any], digest: str) -> Deletion:
    if hash_chain.is_sealed(detail):
        return Deletion(request, HEALED, (), (), (), tuple(detail["nodes"]), digest)
    ids, already, unknown, dropped = (tuple(detail[field]) for field in ("ids", "already", "unknown", "nodes"))
    groups = tuple(detail.get("groups", ())), tuple(detail.get("unknown_groups", ()))
    named = (*ids, *already, *unknown, *dropped, *groups[0], *groups[1])
    if any(type(name) not in (int, str) for name in named):
        raise TypeError("what a deletion names are numbers and texts")
    return Deletion(request, DEACTIVATED if ids or already else UNKNOWN, ids, already, unknown, dropped, digest, *groups)


def _delete(ledger: Ledger, request_for: Asked, request: str, key: bytes | None) -> Deletion:
    """Carry out a new request inside a transaction."""
    if request_for.groups and not registry.has(ledger, registry.GROUPS):
        raise ValueError("the store has no groups: ask for ids, or make a store of a source that gives groups")
    of_group = {group: registry.ids_with(ledger, registry.GROUPS, group) for group in request_for.groups}
    asked = list(dict.fromkeys(itertools.chain(request_for.ids, *of_group.values())))
    rows = ledger.execute(
        "SELECT id, shard, slice, registered, deleted FROM examples WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps([id_ for id_ in asked if isinstance(id_, int)]),),
    )
    registered = {row[0]: row[1:] for row in rows}
    if any(type(value) is not int for row in registered.values() for value in row if value is not None):
        raise altered(ledger, "an example's place is no number")
    present = [id_ for id_ in asked if id_ in registered and registered[id_][-1] is None]
    _check_gone(ledger, {id_: row[-1] for id_, row in registered.items() if row[-1] is not None})
    strange = [id_ for id_ in asked if id_ not in registered]
    already = (set(asked) - set(present) - set(strange)) | (_forgotten(ledger, key, strange) if key else set())
    detail: dict[str, Any] = {
        "ids": present,
        "already": [id_ for id_ in asked if id_ in already],
        "unknown": [id_ for id_ in strange if id_ not in already],
        "nodes": _nodes_with(ledger, [registered[id_][:-1] for id_ in present]),
    }
    received: dict[str, list[Any]] = {"ids": list(request_for.ids)}
    if of_group:
        detail["groups"] = [group for group, ids in of_group.items() if ids]
        detail["unknown_groups"] = [group for group, ids in of_group.items() if not ids]
        received["groups"] = list(of_group)
    if not present:
        return _deletion(request, detail, head(ledger).digest)
    salt = {} if key is None else {"salt": os.urandom(SALT_BYTES).hex()}
    append(ledger, "received", request, {**received, **salt})
    seq, digest = append(ledger, "deactivated", request, {**detail, **salt})
    ledger.executemany("UPDATE examples SET deleted = ? WHERE id = ?", ((seq, id_) for id_ in present))
    ledger.executemany("UPDATE nodes SET dropped = ? WHERE identity = ?", ((seq, identity) for identity in detail["nodes"]))
    ledger.execute("INSERT INTO requests VALUES (?, 'deactivated', ?)", (request, seq))
    return _deletion(request, detail, digest)


def _check_gone(ledger: Ledger, deleted: dict[int, int]) -> None:
    """Make sure by the chain that ids were deleted by the rows that the table names, before anybody is told so."""
    for seq in set(deleted.values()):
        names = check_row(ledger, seq, "deactivated")["ids"]
        if wrong := [id_ for id_, row in deleted.items() if row == seq and id_ not in names]:
            raise altered(ledger, f"no row says that id {wrong[0]} was deleted")


def _forgotten(ledger: Ledger, key: bytes, asked: Iterable[int | str]) -> set[int | str]:
    """Those that were deleted before and forgotten since; names are forgotten for good."""
    return {*marks.forgotten(ledger, key, (id_ for id_ in asked if isinstance(id_, int)))}


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


# --- After a deletion -------------------------------------------------------------------------------------------------


def record_purge(ledger: Ledger, remove: Callable[[set[str]], None]) -> tuple[str, ...]:
    """Remove what no longer serves and say so: requests go from deactivated to purged.

    Args:
      remove: is given the identities of all serving nodes and must make sure, durably, that no file of any other is left;
        called while no other process can write.

    Returns:
      the requests that became purged.
    """
    with writing(ledger):
        serving = {node.identity for node in nodes(ledger)}
        remove(serving)
        waiting = ledger.execute(
            "SELECT request, deactivated FROM requests WHERE state = 'deactivated' ORDER BY deactivated"
        ).fetchall()
        for request, deactivated in waiting:
            names = check_row(ledger, deactivated, "deactivated")["nodes"]
            _check_new(ledger, "purged", request)
            if served := serving.intersection(names):
                raise altered(ledger, f"node {min(served)} serves, which request {request:.80} dropped")
            seq = append(ledger, "purged", request, {"nodes": names}).rows
            ledger.execute("UPDATE nodes SET purged = ? WHERE dropped = ?", (seq, deactivated))
            ledger.execute("UPDATE requests SET state = 'purged' WHERE request = ?", (request,))
        return tuple(request for request, _ in waiting)


def record_healed(ledger: Ledger, request: str) -> bool:
    """Note that what a request took away has been trained anew.

    Returns:
      whether it is a new fact; False if the request is healed already.

    Raises:
      ValueError: there is no such request, or it is not purged yet.
    """
    with writing(ledger):
        row = ledger.execute("SELECT state FROM requests WHERE request = ?", (request,)).fetchone()
        if row not in (("purged",), ("healed",)):
            raise ValueError(f"request {request} is {row[0] if row else 'unknown'}: only a purged one can be healed")
        if row == ("healed",):
            return False
        _check_new(ledger, "healed", request)
        ledger.execute("UPDATE requests SET state = 'healed' WHERE request = ?", (request,))
        append(ledger, "healed", request, {})
        return True


def _check_new(ledger: Ledger, kind: str, request: str) -> None:
    """A request comes into a state once; a table that says otherwise than the chain must not spoil the chain."""
    if ledger.execute("SELECT 1 FROM log WHERE kind = ? AND request = ?", (kind, request)).fetchone():
        raise altered(ledger, f"request {request:.80} is {kind} already")


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
