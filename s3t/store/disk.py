"""A trained ensemble on disk: its manifest, its ledger, and one file for each node that serves.

    DIR/manifest.json                  what was built, and with what; never changes; for its owner's eyes alone
    DIR/ledger.sqlite                  examples, deletions, and which nodes serve (`s3t.store.records`)
    DIR/nodes/<identity>.safetensors   a node's slot and head, its certificate in the metadata

The ledger alone says what serves. A file that it does not name as serving is left over from a killed process or waiting to
be purged; `open` and `purge` remove it. Files are unlinked, not overwritten: journals, copy on write and the wear levelling
of flash memory keep what overwriting is meant to destroy, so keep a store on an encrypted disk if that matters. Copies
elsewhere (backups, what a serving process holds in memory) are not in reach of a purge.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from s3t.plans.structure import Node
from s3t.store import certificates, database, deletions, files, manifests, records
from s3t.store.certificates import Certificate
from s3t.store.database import Ledger
from s3t.store.manifests import Manifest
from s3t.store.records import Outdated

__all__ = ["Draft", "Outdated", "Store", "create", "open"]

MANIFEST, LEDGER, NODES, SUFFIX = "manifest.json", "ledger.sqlite", "nodes", ".safetensors"
REBUILD = "needs rebuild"


class Store(NamedTuple):
    """An open store, of one process and one thread."""

    root: Path
    manifest: Manifest
    ledger: Ledger


class Draft(NamedTuple):
    """What a node would be trained on now.

    identity: the name it would have.
    shard, slices: its place in the plan.
    ids: the examples, ascending.
    as_of: the row up to which the ledger was read.
    ids_root: Merkle root of the ids.
    """

    identity: str
    shard: int
    slices: Node
    ids: tuple[int, ...]
    as_of: int
    ids_root: str


# --- Making and opening -----------------------------------------------------------------------------------------------


def create(root: Path | str, manifest: Manifest) -> Store:
    """A new store without examples and nodes, in a new or empty directory, or one in which a creation was killed.

    Raises:
      ValueError: a directory that holds something else, or in which another process is making a store; a manifest that
        cannot be.
    """
    root = Path(root)
    text = certificates.canonical(manifests.checked(manifest)._asdict())
    root.mkdir(parents=True, exist_ok=True)
    with files.alone(root):
        begun = (root / MANIFEST).with_suffix(".tmp")
        found = sorted(root.iterdir())
        ours = [path for path in found if path in (begun, root / NODES) or path.name.startswith(LEDGER)]
        if found and (begun not in found or ours != found):
            raise ValueError(f"{root} is not empty: choose another directory for the store")
        begun.touch(0o600)  # the partition's key is in it
        files.flush(begun, text)  # first: what stands beside it is not a store yet
        for path in root.glob(f"{LEDGER}*"):
            path.unlink()
        (root / NODES).mkdir(exist_ok=True)
        database.create(root / LEDGER, manifests.digest_of(text)).close()
        begun.replace(root / MANIFEST)  # last: a directory without it is no store
        files.sync(root)
    files.sync(root.parent)
    return look(root)  # the manifest as JSON has it, as every other process will see it


def open(root: Path | str) -> Store:
    """An existing store, after finishing what a killed process began: what serves no more is removed.

    Raises:
      ValueError: there is no store.
    """
    store = look(root)
    purge(store)
    return store


def exists(root: Path | str) -> bool:
    """Whether there is a store."""
    return (Path(root) / MANIFEST).is_file()


def look(root: Path | str, *, still: bool = False) -> Store:
    """An existing store as it is; nothing is changed.

    Args:
      root: its directory.
      still: it may be a copy on a read-only disk, as in `database.open`; not for who serves.

    Raises:
      ValueError: there is no store; its manifest is not the one that its ledger was created with; a ledger that cannot be
        read.
    """
    root = Path(root)
    text = manifest_text(root)
    manifest = manifests.parse(text, root / MANIFEST)
    ledger = database.open(root / LEDGER, still=still)
    if records.manifest(ledger) != manifests.digest_of(text):
        ledger.close()
        raise ValueError(f"the manifest of {root} is not the one that its ledger was created with: restore it from a copy")
    return Store(root, manifest, ledger)


def manifest_text(root: Path) -> bytes:
    """The manifest's file as it is.

    Raises:
      ValueError: there is no store.
    """
    if not exists(root):
        raise ValueError(f"there is no store at {root}: it has no {MANIFEST}")
    return (root / MANIFEST).read_bytes()


def close(store: Store) -> None:
    """Let go of the ledger's file."""
    store.ledger.close()


# --- Files ------------------------------------------------------------------------------------------------------------


def file_of(store: Store, identity: str) -> Path:
    """Where a node's file is, or would be."""
    return store.root / NODES / (identity + SUFFIX)


def leftovers(store: Store, live: Iterable[str]) -> list[Path]:
    """Everything among the files of nodes that is not the file of one of these."""
    names, folder = {identity + SUFFIX for identity in live}, store.root / NODES
    return sorted(path for path in folder.iterdir() if path.name not in names) if folder.is_dir() else []


# --- Examples and nodes -----------------------------------------------------------------------------------------------


def register(store: Store, ids: Iterable[int], shards: Iterable[int], slices: Iterable[int]) -> str:
    """Take in examples at the places that `s3t.partition.assign` gave them, all or none.

    Returns:
      the ledger's new head.

    Raises:
      ValueError: a place that does not exist; an id that is malformed, given twice, or was registered before.
    """
    shards, slices = [int(shard) for shard in shards], [int(slice_) for slice_ in slices]
    for what, values, end in (("shard", shards, store.manifest.shards), ("slice", slices, store.manifest.slices)):
        if wrong := [value for value in values if not 0 <= value < end]:
            raise ValueError(f"a {what} of this store lies between 0 and {end - 1}, got {wrong[0]}")
    return records.register(store.ledger, ids, shards, slices).digest


def draft(store: Store, shard: int, slices: Iterable[int]) -> Draft:
    """What the node of these slices would be trained on now; hand it to `publish` with what came out.

    Raises:
      ValueError: a node that the plan does not hold.
    """
    slices = tuple(slices)
    if slices not in store.manifest.nodes or not 0 <= shard < store.manifest.shards:
        raise ValueError(f"the plan has no node {list(slices)} of shard {shard}")
    head, ids = records.members(store.ledger, shard, slices)
    root = certificates.merkle_root(ids)
    made = store.manifest
    name = certificates.identity(made.backbone, made.hyper, made.root_key, shard, slices, root)
    return Draft(name, shard, slices, ids, head.rows, root)


def publish(
    store: Store, drafted: Draft, tensors: Mapping[str, np.ndarray], stack: Mapping[str, Any], parent: str | None
) -> Certificate:
    """Write a trained node's file and let the node serve, at once and durably; publishing it again changes nothing.

    The file is written while the ledger is locked, so that a temporary file seen under the lock is nobody's.

    Args:
      store: the store.
      drafted: what it was trained on.
      tensors: its slot and head, by name.
      stack: what its bytes depend on beside its identity, as in `Certificate`.
      parent: identity of its parent, None at depth 1.

    Raises:
      Outdated: one of its ids was deleted since the draft, or its parent serves no more.
      ValueError: no such parent; a node of this identity that serves with other bytes.
    """
    certificate, data = _sealed(store, drafted, tensors, stack, parent)
    node = _node(drafted, certificate)
    records.publish(store.ledger, node, parent, lambda: files.write(file_of(store, node.identity), data))
    return certificate


def restore(
    store: Store, drafted: Draft, tensors: Mapping[str, np.ndarray], stack: Mapping[str, Any], parent: str | None
) -> None:
    """Put a serving node's file back after training it once more, if not a bit of it is other than what was published.

    Args:
      store, tensors, stack, parent: as in `publish`.
      drafted: what the node was trained on then.

    Raises:
      Outdated: the node serves no more.
      ValueError: another certificate than was published, be it for parameters or for the stack.
    """
    certificate, data = _sealed(store, drafted, tensors, stack, parent)
    node = _node(drafted, certificate)
    records.restore(store.ledger, node, lambda: files.write(file_of(store, node.identity), data))


def _sealed(
    store: Store, drafted: Draft, tensors: Mapping[str, np.ndarray], stack: Mapping[str, Any], parent: str | None
) -> tuple[Certificate, bytes]:
    """The certificate of a trained node, and its file."""
    made = store.manifest
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}  # save disregards strides
    certificate = Certificate(
        made.backbone,
        made.hyper,
        made.root_key,
        drafted.shard,
        drafted.slices,
        len(drafted.ids),
        drafted.ids_root,
        None if parent is None else records.certificate_of(store.ledger, parent),
        dict(stack),
        certificates.parameters_digest(arrays),
    )
    return certificate, save(arrays, {"certificate": certificates.to_json(certificate)})


def _node(drafted: Draft, certificate: Certificate) -> records.Node:
    digest = certificates.certificate_digest(certificate)
    return records.Node(drafted.identity, drafted.shard, drafted.slices, drafted.as_of, digest)


def live(store: Store) -> tuple[records.Node, ...]:
    """The nodes that may serve, in the order of their publication; ask again when `database.head` has changed."""
    return records.nodes(store.ledger)


def load(store: Store, node: records.Node) -> tuple[Certificate, dict[str, np.ndarray]]:
    """A serving node's certificate, slot and head.

    Raises:
      ValueError: a file that is missing or is not what was published.
    """
    certificate, tensors = files.read(file_of(store, node.identity))
    if certificates.certificate_digest(certificate) != node.certificate:
        raise ValueError(f"the certificate of node {node.identity} is not the one that was published")
    if certificates.parameters_digest(tensors) != certificate.output:
        raise ValueError(f"the parameters of node {node.identity} are not those that were published")
    return certificate, tensors


def damaged(store: Store) -> dict[records.Node, str]:
    """The serving nodes whose files are missing or not what was published, and why."""
    found = {}
    for node in live(store):
        try:
            load(store, node)
        except ValueError as error:
            found[node] = str(error)
    serving = set(names(live(store)))  # what was dropped while we looked may have lost its file
    return {node: why for node, why in found.items() if node.identity in serving}


def missing(store: Store) -> tuple[tuple[int, Node], ...]:
    """(shard, slices) of the plan that no node serves, parents first: what to train, as far as it is `trainable`."""
    have = {(node.shard, node.slices) for node in live(store)}
    places = ((shard, slices) for slices in store.manifest.nodes for shard in range(store.manifest.shards))
    return tuple(place for place in places if place not in have)


def trainable(store: Store, shard: int, slices: Node) -> bool:
    """Whether a node and all its ancestors have examples: those of its first slice, which all of them hold."""
    return bool(records.members(store.ledger, shard, slices[:1])[1])


def make_room(store: Store) -> None:
    """Make the directory of the nodes' files again if it was lost."""
    (store.root / NODES).mkdir(exist_ok=True)
    files.sync(store.root)


# --- Deletion ---------------------------------------------------------------------------------------------------------


def delete(store: Store, ids: Iterable[int], request_id: str | None = None) -> dict[str, Any]:
    """Delete examples: durable when this returns, and in force for every process that asks the ledger. Purge next.

    Args:
      store: the store.
      ids: whole numbers.
      request_id: of the caller's choice; a request that is repeated is answered as it was; a random one if None.

    Returns:
      request, state, ids, already, unknown, nodes_dropped, head (a receipt: `s3t.service.verify` finds it in the chain),
      and acknowledged_ms, milliseconds from the call to the durable record.

    Raises:
      ValueError: as `deletion.delete`; nothing is changed.
    """
    began = perf_counter()
    done = deletions.delete(store.ledger, ids, os.urandom(8).hex() if request_id is None else request_id)
    return {
        "request": done.request,
        "state": done.state,
        "ids": list(done.ids),
        "already": list(done.already),
        "unknown": list(done.unknown),
        "nodes_dropped": len(done.dropped),
        "head": done.head,
        "acknowledged_ms": 1e3 * (perf_counter() - began),
    }


def purge(store: Store) -> tuple[str, ...]:
    """Remove every file of a node that does not serve, whole or half-written; may be repeated and interrupted.

    Returns:
      the requests that became purged.

    Raises:
      ValueError: a directory among the files, which is nobody's to remove; all files are gone, but no request is purged. No
        directory of files, which may be out of reach with all that is in it.
    """

    def remove(serving: set[str]) -> None:
        if not (store.root / NODES).is_dir():
            raise ValueError(f"{store.root / NODES} is missing: put it back, or heal the store, which makes it anew")
        left = leftovers(store, serving)
        directories = [path for path in left if path.is_dir() and not path.is_symlink()]
        for path in left:
            if path not in directories:
                path.unlink()
        files.sync(store.root / NODES)
        if directories:
            raise ValueError(f"{directories[0]} is a directory, perhaps of copies: remove it, then purge again")

    return deletions.purge(store.ledger, remove)


def heal(store: Store) -> tuple[str, ...]:
    """Note which requests are healed: purged ones for which every node of the plan that they hit serves again.

    What cannot be trained is not waited for, see `missing`.
    """
    waiting = [(shard, slices) for shard, slices in missing(store) if trainable(store, shard, slices)]
    done: list[str] = []
    for request in deletions.requests(store.ledger, "purged"):
        hit = deletions.places_hit(store.ledger, request)
        if not any((shard, slice_) in hit for shard, slices in waiting for slice_ in slices):
            done += [request] * deletions.heal(store.ledger, request)
    return tuple(done)


# --- What can be said of a store --------------------------------------------------------------------------------------


def status(store: Store) -> dict[str, Any]:
    """What is served, deleted and still to be done; ok unless no shard has a model or a serving node's file is missing."""
    with store.ledger:
        store.ledger.execute("BEGIN")  # one snapshot
        result, lost = _status(store)
    serving = set(names(live(store)))  # what was dropped while we looked may have lost its file
    missing_files = [f"the file of node {name} is missing" for name in lost if name in serving]
    problems = [*missing_files, *([] if any(result["depth"]) else [f"{REBUILD}: no shard has a model"])]
    return {"ok": not problems, "problems": problems, **result}


def _status(store: Store) -> tuple[dict[str, Any], list[str]]:
    """What is to be said of one snapshot, and the serving nodes whose files are missing."""
    nodes = live(store)
    depth = [max((len(node.slices) for node in nodes if node.shard == s), default=0) for s in range(store.manifest.shards)]
    lost = [node.identity for node in nodes if not file_of(store, node.identity).is_file()]
    rows, head = database.head(store.ledger)
    return {
        "state": REBUILD if not any(depth) else "partial" if missing(store) else "complete",
        "depth": depth,
        "nodes": {"live": len(nodes), "missing": len(missing(store)), "leftovers": len(leftovers(store, names(nodes)))},
        **records.counts(store.ledger),
        "rows": rows,
        "head": head,
    }, lost


def names(nodes: Iterable[records.Node]) -> list[str]:
    """The nodes' identities."""
    return [node.identity for node in nodes]
