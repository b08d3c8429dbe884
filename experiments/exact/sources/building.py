"""What a build of s3t needs of this machine and of its user: lanes on devices, an optimiser, the logits of a node."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.core.machines import fleet
from experiments.models import CONVOLUTIONAL
from s3t.plans.structure import Node
from s3t.training.backbone import forward, owned
from s3t.training.schedule import Setup
from s3t.training.stages import Lanes, Trained

CPU_LANES = 2  # per node a tenth quicker than one; eight lanes are slower than one (ViTs "digits" and "small")

Array = jax.Array | np.ndarray
Tree = Any


def spread(lanes: Lanes) -> Lanes:
    """Lanes divided among as many devices, of this process, as divide them: a store may be healed on another machine."""
    count = math.gcd(len(lanes.shard), jax.local_device_count())
    if count == 1:
        return lanes
    mesh = jax.make_mesh((count,), ("lanes",), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:count])
    return jax.device_put(lanes, NamedSharding(mesh, PartitionSpec("lanes")))


def node_logits(setup: Setup, nodes: dict[tuple[int, Node], Trained], shard: int, node: Node, x: Array) -> jax.Array:
    """Logits [examples, classes] of one node, its ancestors' slots above its own."""
    source = setup.source
    slots = [nodes[shard, node[:depth]].slot for depth in range(1, len(node) + 1)]
    blocks = owned(source.backbone.depth, setup.plan.slices)
    return _forward(source.backbone, source.recipe.lora, blocks, source.frozen, slots, nodes[shard, node].head, x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _forward(backbone: Any, lora: Any, blocks: Any, frozen: Tree, slots: Any, head: Tree, x: Array) -> jax.Array:
    return forward(backbone, frozen, x, lora, blocks, slots, head)


def lanes_for(model: str, most: int) -> int:
    """How many nodes to train at once: `most` on an accelerator, two on a CPU, one where lanes cost more than they save."""
    if fleet.in_loops(model in CONVOLUTIONAL):
        return 1
    return min(most, CPU_LANES) if jax.default_backend() == "cpu" else most


@functools.lru_cache
def cosine_adamw(
    learning_rate: float, weight_decay: float, clip: float
) -> Callable[[jax.Array], optax.GradientTransformation]:
    """A recipe's optimiser: AdamW on a cosine schedule to 0 over a node's own steps, after clipping by the global norm.

    Equal settings give one function, so that programs compiled for it are found again.
    """

    def optimizer(steps: jax.Array) -> optax.GradientTransformation:
        rate = lambda step: learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * step / jnp.maximum(steps, 1)))  # noqa: E731
        return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay))

    return optimizer
