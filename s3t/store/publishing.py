"""Nodes of a store: draft from the ledger, published with their certificate, read back, and which of them are missing.

A node's file is `DIR/nodes/<identity>.safetensors`. It serves from the moment that the ledger names it
(`s3t.store.ledger.records`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from s3t.plans.structure import Node
from s3t.store import certificates, disk, files
from s3t.store.certificates import Certificate
from s3t.store.disk import Store
from s3t.store.ledger import records

SINCE = ("bytes", "inputs")  # entries of a stack that versions before 0.2 did not write


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


def draft_node(store: Store, shard: int, slices: Iterable[int]) -> Draft:
    """What the node of these slices would be trained on now; hand it to `publish` with what came out.

    Raises:
      ValueError: a node that the plan does not hold.
    """
    slices = tuple(slices)
    if slices not in store.manifest.nodes or not 0 <= shard < store.manifest.shards:
        raise ValueError(f"the plan has no node {list(slices)} of shard {shard}")
    head, ids = records.members(store.ledger, shard, slices)
    root = certificates.merkle_root(ids)
    manifest = store.manifest
    identity = certificates.identity(manifest.backbone, manifest.hyper, manifest.root_key, shard, slices, root)
    return Draft(identity, shard, slices, ids, head.rows, root)


def publish(
    store: Store,
    draft: Draft,
    tensors: Mapping[str, np.ndarray],
    stack: Mapping[str, Any],
    parent: str | None,
    *,
    replace: bool = False,
) -> Certificate:
    """Write a trained node's file and let the node serve, at once and durably; publishing it again changes nothing.

    The file is written while the ledger is locked, so that a temporary file seen under the lock belongs to no process.

    Args:
      store: the store.
      draft: what it was trained on.
      tensors: its slot and head, by name.
      stack: what its bytes depend on beside its identity, as in `Certificate`.
      parent: identity of its parent, None at depth 1.
      replace: whether older nodes of its place, and what was trained below them, serve no more from then on.

    Raises:
      Outdated: one of its ids was deleted since the draft, its parent serves no more, or a later node takes its place.
      ValueError: no such parent; a node of this identity that serves with other bytes.
    """
    certificate, data = _sealed(store, draft, tensors, stack, parent)
    node = _node(draft, certificate)
    path = disk.file_of(store, node.identity)
    records.record_node(store.ledger, node, parent, lambda: files.write(path, data), replace)
    return certificate


def restore(
    store: Store, draft: Draft, tensors: Mapping[str, np.ndarray], stack: Mapping[str, Any], parent: str | None
) -> None:
    """Put a serving node's file back after training it once more, if not a bit of it is other than what was published.

    Args:
      store, tensors, stack, parent: as in `publish`.
      draft: what the node was trained on then.

    Raises:
      Outdated: the node serves no more.
      ValueError: another certificate than was published, be it for parameters or for the stack.
    """
    published = records.certificate_of(store.ledger, draft.identity)
    for unknown in ((), SINCE):  # what certificates of older versions do not state
        certificate, data = _sealed(store, draft, tensors, stack, parent, unknown)
        if certificates.certificate_digest(certificate) == published:
            break
    node = _node(draft, certificate)
    records.record_restored(store.ledger, node, lambda: files.write(disk.file_of(store, node.identity), data))


def _sealed(
    store: Store,
    draft: Draft,
    tensors: Mapping[str, np.ndarray],
    stack: Mapping[str, Any],
    parent: str | None,
    unstated: Iterable[str] = (),
) -> tuple[Certificate, bytes]:
    """The certificate of a trained node, and its file."""
    manifest = store.manifest
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}  # save disregards strides
    stated = {**stack, "bytes": sum(array.nbytes for array in arrays.values())}
    certificate = Certificate(
        backbone=manifest.backbone,
        hyper=manifest.hyper,
        root_key=manifest.root_key,
        shard=draft.shard,
        slices=draft.slices,
        examples=len(draft.ids),
        ids_root=draft.ids_root,
        parent=None if parent is None else records.certificate_of(store.ledger, parent),
        stack={name: value for name, value in stated.items() if name not in unstated},
        output=certificates.parameters_digest(arrays),
    )
    return certificate, save(arrays, {"certificate": certificates.to_json(certificate)})


def _node(draft: Draft, certificate: Certificate) -> records.PublishedNode:
    digest = certificates.certificate_digest(certificate)
    return records.PublishedNode(draft.identity, draft.shard, draft.slices, draft.as_of, digest)


def live(store: Store) -> tuple[records.PublishedNode, ...]:
    """The nodes that may serve, in the order of their publication; ask again when `database.head` has changed."""
    return records.nodes(store.ledger)


def load(store: Store, node: records.PublishedNode) -> tuple[Certificate, dict[str, np.ndarray]]:
    """A serving node's certificate, slot and head.

    Raises:
      ValueError: a file that is missing or is not what was published.
    """
    certificate, tensors = files.read(disk.file_of(store, node.identity), node.certificate)
    _check_output(node, certificate, certificates.parameters_digest(tensors))
    return certificate, tensors


def check(store: Store, node: records.PublishedNode) -> Certificate:
    """A serving node's certificate, once its parameters were held against it; they are never in memory as a whole.

    Raises:
      ValueError: as `load`.
    """
    certificate, output = files.digest(disk.file_of(store, node.identity), node.certificate)
    _check_output(node, certificate, output)
    return certificate


def _check_output(node: records.PublishedNode, certificate: Certificate, output: str) -> None:
    if output != certificate.output:
        raise ValueError(f"the parameters of node {node.identity} are not those that were published")


def damaged(store: Store) -> dict[records.PublishedNode, str]:
    """The serving nodes whose files are missing or not what was published, and why."""
    problems = {}
    for node in live(store):
        try:
            check(store, node)
        except ValueError as error:
            problems[node] = str(error)
    serving = set(identities(live(store)))  # a node that was dropped meanwhile may have lost its file
    return {node: problem for node, problem in problems.items() if node.identity in serving}


def missing(store: Store) -> tuple[tuple[int, Node], ...]:
    """(shard, slices) of the plan that no node serves, parents first: what to train, as far as it is `trainable`."""
    serving = {(node.shard, node.slices) for node in live(store)}
    places = ((shard, slices) for slices in store.manifest.nodes for shard in range(store.manifest.shards))
    return tuple(place for place in places if place not in serving)


def trainable(store: Store, shard: int, slices: Node) -> bool:
    """Whether a node and all its ancestors have examples: those of its first slice, which all of them hold."""
    return bool(records.members(store.ledger, shard, slices[:1])[1])


def identities(nodes: Iterable[records.PublishedNode]) -> list[str]:
    """The nodes' identities."""
    return [node.identity for node in nodes]
