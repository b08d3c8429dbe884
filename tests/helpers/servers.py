"""Stores of untrained nodes for the tests of serving, and a process that answers from one in a loop.

    python -m tests.helpers.servers DIR

prints one JSON object per answer: when it was asked for, the logits of its first example, and the head.
"""

import json
import sys
import time

import jax
import numpy as np

from s3t.plans.partition import assign
from s3t.plans.planners import lattice
from s3t.service import ensemble, serving
from s3t.store import disk, publishing
from s3t.store.ledger import records
from s3t.store.manifests import Manifest
from s3t.training.source import Source, to_tensors
from s3t.training.stages import Trained
from tests.helpers import stacks
from unlearn import tree

KEY = b"a key for tests"
EXAMPLES = 80
SHAPES = ensemble.part_shapes(stacks.BACKBONE, stacks.LORA, lattice(stacks.SLICES))


def make(root, plan=None, shards=stacks.SHARDS):
    """A store with examples and no nodes."""
    plan = plan or lattice(stacks.SLICES)
    backbone = tree.digest(stacks.frozen())
    hyper = {"source": {"kind": "toy"}, "shapes": []}
    made = Manifest(
        factory="tests.helpers.servers:source",
        arguments={},
        backbone=backbone,
        hyper=hyper,
        root_key=7,
        shards=shards,
        slices=plan.slices,
        nodes=plan.nodes,
        partition_key=KEY.hex(),
    )
    opened = disk.create(root, made)
    disk.register(opened, range(EXAMPLES), *assign(range(EXAMPLES), shards, plan.slices, KEY))
    return opened


def drawn(drafted):
    """Parameters as large as the activations, a function of the node's identity."""
    rng = np.random.default_rng(int(drafted.identity[:8], 16))
    shape = SHAPES[len(drafted.slices) - 1]
    part = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shape)
    return Trained(*part, np.ones(2, np.float32))


def fill(opened, part_of=drawn):
    """Publish a part for every missing node that has examples left."""
    names = {(node.shard, node.slices): node.identity for node in publishing.live(opened)}
    for shard, slices in publishing.missing(opened):
        drafted = publishing.draft_node(opened, shard, slices)
        if drafted.ids:
            publishing.publish(opened, drafted, to_tensors(part_of(drafted)), {}, names.get((shard, slices[:-1])))
            names[shard, slices] = drafted.identity
    return opened


def ids_at(opened, shard, slice_):
    return records.members(opened.ledger, shard, (slice_,))[1]


def inputs(examples=6):
    return np.random.default_rng(9).normal(size=(examples, stacks.FEATURES)).astype(np.float32)


def server(opened, **more):
    more = {"batch_size": 4, **more}
    return serving.Server(opened, stacks.BACKBONE, stacks.frozen(), stacks.LORA, **more)


def source(hyper, seed=0):
    """The factory: example i is row i of `inputs`, the test split its last two."""

    def fetch(ids):
        if lacking := [one for one in ids if not 0 <= one < EXAMPLES]:
            raise ValueError(f"there is no example {lacking[0]}")
        return inputs(EXAMPLES)[ids], np.zeros(len(ids), np.int32)

    def split(name):
        if name != "test":
            raise ValueError(f"there is no split {name!r}")
        return np.array([EXAMPLES - 2, EXAMPLES - 1]), fetch

    ids = np.arange(EXAMPLES)
    return Source(
        backbone=stacks.BACKBONE,
        frozen=stacks.frozen(seed),
        recipe=stacks.RECIPE,
        ids=ids,
        fetch=fetch,
        hyper={**hyper, "kind": "toy"},
        most_lanes=1,
        cache_bytes=0,
        split=split,
    )


def full(root):
    """The folder of a full store: 2 shards of the lattice's 15 nodes."""
    disk.close(fill(make(root)))
    return root


def main(root):
    serving_ = server(disk.open(root), aggregate="all")
    while True:
        asked = time.monotonic()
        try:
            answer = serving_.predict(inputs(2))
        except ValueError as error:
            print(json.dumps({"asked": asked, "error": str(error)}), flush=True)
            return
        print(json.dumps({"asked": asked, "logits": answer.logits[0].tolist(), "head": answer.head}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
