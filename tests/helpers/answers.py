"""Answers of a store by the slow twin: a loop over shards and files."""

import numpy as np

from s3t.plans.planners import lattice
from s3t.store import publishing
from s3t.training.backbone import forward, owned
from s3t.training.source import from_tensors
from tests.helpers import stacks

PLAN = lattice(stacks.SLICES)
BLOCKS = owned(stacks.BLOCKS, stacks.SLICES)


def logits_of(files, node, x):
    """A node's logits from its own file and those of its ancestors, without masks, banks and jit."""
    parts = []
    for depth in range(1, len(node.slices) + 1):
        tensors = files[node.shard, node.slices[:depth]]
        parts.append(from_tensors(stacks.BACKBONE, stacks.LORA, stacks.SLICES, depth, tensors))
    slots = [part.slot for part in parts]
    return np.asarray(forward(stacks.BACKBONE, stacks.frozen(), x, stacks.LORA, BLOCKS, slots, parts[-1].head))


def twin(opened, x, aggregate="mean", lost=()):
    """(logits, depth by shard) by loops, without the (shard, slices) of some nodes and what is below them."""
    out = lambda node: any(shard == node.shard and slices == node.slices[: len(slices)] for shard, slices in lost)  # noqa: E731
    nodes = [node for node in publishing.live(opened) if not out(node)]
    files = {(node.shard, node.slices): publishing.load(opened, node)[1] for node in nodes}
    total, weights, depths = 0.0, 0.0, []
    for shard in range(opened.manifest.shards):
        mine = [node for node in nodes if node.shard == shard]
        depth = max((len(node.slices) for node in mine), default=0)
        depths.append(depth)
        if aggregate == "all":
            chosen = [node for node in mine if not any(other.slices[:-1] == node.slices for other in mine)]
        else:
            chosen = sorted((node for node in mine if len(node.slices) == depth), key=lambda node: node.slices)[:1]
        if chosen:
            weight = depth if aggregate == "depth" else 1
            total = total + weight * np.mean([logits_of(files, node, x) for node in chosen], axis=0)
            weights += weight
    return total / weights, tuple(depths)
