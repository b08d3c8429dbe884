"""What training reads of a store: how its nodes are trained, the examples of its slices, and the nodes already trained."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from s3t.plans.partition import Places
from s3t.plans.structure import Node
from s3t.store import publishing
from s3t.store.certificates import canonical, digest
from s3t.store.disk import Store
from s3t.store.ledger import records
from s3t.store.manifests import Manifest, plan_of
from s3t.training import arrangement, schedule
from s3t.training.arrangement import Slices
from s3t.training.schedule import Setup
from s3t.training.source import Source, from_tensors
from s3t.training.stages import Shape, Trained
from unlearn import tree

Compartments = Mapping[tuple[int, int], Sequence[int]]  # (shard, slice) -> ids, ascending
Serving = dict[tuple[int, Node], records.PublishedNode]


def setup_of(manifest: Manifest, source: Source) -> Setup:
    """How the nodes of a store are trained.

    Raises:
      ValueError: a source that is not the one of the manifest, or a manifest of another version.
    """
    if canonical(source.hyper) != canonical(manifest.hyper["source"]):
        raise ValueError("the factory gives other hyper-parameters than the store was made with: take that factory")
    if tree.digest(source.frozen) != manifest.backbone:
        raise ValueError(
            "the backbone is not the one that the store was made with: give the arguments that lead to it or, if it is a "
            "random one, take the version and flags of JAX by which it was drawn"
        )
    try:
        shapes = tuple(Shape(**shape) for shape in manifest.hyper["shapes"])
    except (KeyError, TypeError):
        raise ValueError("the store was made for programs of another version: take that version") from None
    return Setup(source, plan_of(manifest), manifest.shards, root_key(manifest.root_key), shapes)


def root_key(seed: int) -> jax.Array:
    """The key that every draw of a store's training is folded from.

    Raises:
      ValueError: a seed that would give the key of another one.
    """
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"the seed is {seed}: give a whole number from 0 to {(1 << 32) - 1}")  # a larger one is cut off
    return jax.random.key(seed, impl="threefry2x32")


def serving(store: Store) -> Serving:
    """The nodes that may serve by place, the last one to be published if a place has several."""
    return {(node.shard, node.slices): node for node in publishing.live(store)}


def compartments(setup: Setup, ids_in: Compartments) -> Slices:
    """The examples of some slices in their compartments, fetched from the source; all other compartments are empty.

    Raises:
      ValueError: an id that the source lacks; more examples than a compartment has room for.
    """
    rows = sorted((id_, shard, s) for (shard, s), ids in ids_in.items() for id_ in ids)
    ids, shard, slice_ = np.array(rows, np.int64).reshape(-1, 3).T
    x, y = setup.source.fetch(ids)
    places = Places(shard.astype(np.int32), slice_.astype(np.int32))
    return arrangement.arrange(x, y, ids, places, setup.shards, setup.plan.slices, setup.shapes[0].capacity)


def reader(store: Store, setup: Setup, served: Serving) -> Callable[[int, Node], Trained]:
    """(shard, node) -> what a serving node owns, read once.

    The function raises Outdated if the node serves no more, and ValueError if its file is damaged.
    """
    source = setup.source

    @functools.cache
    def read(shard: int, node: Node) -> Trained:
        try:
            _, tensors = publishing.load(store, served[shard, node])
        except (KeyError, ValueError):
            if served.get((shard, node)) in publishing.live(store):
                raise
            raise records.Outdated(f"node {list(node)} of shard {shard} serves no more") from None
        return from_tensors(source.backbone, source.recipe.lora, setup.plan.slices, len(node), tensors)

    return read


def stack_of(here: Mapping[str, Any], call: schedule.Call, seen: str) -> dict[str, Any]:
    """The stack of a node: of this process, of the program that made it, and the digest of the examples that it saw."""
    return {**here, "shape": call.shape._asdict(), "program": call.program, "inputs": seen}


def digests_of(slices: Slices, count: int) -> Callable[[int, Node], str]:
    """(shard, node) -> digest of its examples as they were read, ids, inputs and labels.

    Another decoder of images gives other bytes for the same ids; who trains a node once more must know.

    Args:
      slices: the examples in their compartments.
      count: L, slices of a shard.
    """

    @functools.cache
    def of_compartment(at: int) -> str:
        sha = hashlib.sha256(b"s3t.inputs\n")
        for leaf in (slices.id, *jax.tree.leaves((slices.x, slices.y))):
            rows = np.ascontiguousarray(leaf[at, : int(np.asarray(slices.used)[at])])
            sha.update(canonical([rows.dtype.name, list(rows.shape)]) + b"\n")
            sha.update(rows.reshape(-1).view(np.uint8).data)  # a buffer of bfloat16 or of dates cannot be had otherwise
        return sha.hexdigest()

    return lambda shard, node: digest("inputs", [of_compartment(shard * count + s) for s in sorted(node)])
