"""What S3T is judged beside: one adapter on all blocks, its retraining, and SISA, all trained by the code of s3t.

Full LoRA is a plan of one slice: one slot owns all blocks and sees all examples. SISA trains one such model per shard slice
after slice and keeps a checkpoint after each. To s3t that is a model whose only trainable part is the head, since a node's
head starts where its parent's ended: `whole_in_head` puts the adapters of all blocks there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from s3t.plans.partition import Places
from s3t.plans.structure import Node, node_flops
from s3t.training.adapters import Lora, init_slot
from s3t.training.backbone import Backbone, by_block, run_blocks

Tree = Any

NOTHING = Lora(1, 1.0, ("nothing",))  # what a slot of `whole_in_head` is made of: it acts on no layer


@functools.lru_cache
def whole_in_head(backbone: Backbone, lora: Lora, slices: int) -> Backbone:
    """The backbone with the adapters of all its blocks in its head, so that every stage goes on training the same ones.

    Its own blocks, one per slice, do nothing. Train it with the slots `NOTHING`.
    """
    every = (range(backbone.depth),)

    def init_head(key: jax.Array) -> Tree:
        slot_key, head_key = jax.random.split(key)
        return {"slot": init_slot(slot_key, lora, backbone.layers), "head": backbone.init_head(head_key)}

    def head(frozen: Tree, trained: Tree, h: Tree) -> jax.Array:
        h = run_blocks(backbone, frozen, h, every[0], by_block(lora, every, [trained["slot"]]))
        return backbone.head(frozen, trained["head"], h)

    layers = ((("nothing", 1, 1),),) * slices
    return Backbone(backbone.embed, lambda frozen, i, h, _: h, head, init_head, layers, loss=backbone.loss)


# --- FLOPs, in the unit of `plan.node_flops`: one forward pass of all blocks over a shard's examples, per epoch --------


def lora_flops(share: float = 1.0) -> float:
    """Forward and backward through all blocks, over a share of the shard's examples."""
    return 2 * share


def sisa_flops(slices: int, first: int = 0) -> float:
    """The stages of SISA from slice `first` on: stage d passes through all blocks with the examples of d + 1 slices."""
    return sum(lora_flops((d + 1) / slices) for d in range(first, slices))


def s3t_flops_to_heal(nodes: Iterable[Node], slices: int, hit: set[int]) -> float:
    """What retraining the nodes of a shard that hold a hit slice costs, without cached prefixes."""
    return sum(node_flops(node, slices) for node in nodes if hit & set(node))


def hit_slices(places: Places, order: np.ndarray, shards: int) -> list[set[int]]:
    """For each shard the slices of the examples at some positions."""
    return [set(places.slice[order][places.shard[order] == shard].tolist()) for shard in range(shards)]


def sisa_flops_per_deletion(places: Places, order: np.ndarray, shards: int, slices: int) -> float:
    """What the retraining of the hit shard's suffix costs on average, as a share of `sisa_flops` of all shards."""
    if not len(order):
        return 0.0
    return float(np.mean([sisa_flops(slices, int(first)) for first in places.slice[order]])) / shards
