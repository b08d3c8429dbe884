"""Building the nodes of plans, depth by depth: what is trained in which program, and what is skipped because it exists."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments import fleet
from s3t import train
from s3t.backbone import Backbone, forward, owned
from s3t.plan import Node, Plan, at_depth
from s3t.train import Job, Lanes, Recipe, Shape, Slices, Trained

CPU_LANES = 2  # per node a tenth quicker than one; eight lanes are slower than one (ViTs "digits" and "small")

Tree = Any
Existing = Callable[[int, Node], Trained | None]


class Setup(NamedTuple):
    """All that decides the bytes of a build's nodes, save the examples.

    plan: of every shard.  key: the root key.  shapes: of the program of each depth, 1 first.
    """

    backbone: Backbone
    frozen: Tree
    recipe: Recipe
    plan: Plan
    shards: int
    key: jax.Array
    shapes: tuple[Shape, ...]


def make_setup(
    backbone: Backbone,
    frozen: Tree,
    recipe: Recipe,
    plan: Plan,
    key: jax.Array,
    slices: Slices,
    *,
    most_lanes: int,
    cache_bytes: int,
) -> Setup:
    """Choose the shapes of a build for the slices it starts with.

    Args:
      most_lanes: nodes that one program trains at once, save that each device has as many; see `lanes_for`.
      cache_bytes: device memory for the activations of one depth. A depth that needs more is trained from the examples.

    Raises:
      ValueError: slices that do not divide into shards, or more slices than blocks.
    """
    shards = len(slices.used) // plan.slices
    count = np.asarray(slices.used).reshape(shards, plan.slices)
    owned(backbone.depth, plan.slices)
    cached = not backbone.random and activation_bytes(backbone, frozen, slices) <= cache_bytes
    shapes = []
    for depth in range(1, 1 + max(len(node) for node in plan.nodes)):
        jobs = [(shard, node) for shard in range(shards) for node in at_depth(plan, depth)]
        shape = train.shape_for(count, jobs, recipe.batch_size, slices.y.shape[1], most_lanes, cached)
        shapes.append(shape._replace(lanes=shape.lanes + -shape.lanes % jax.device_count()))
    return Setup(backbone, frozen, recipe, plan, shards, key, tuple(shapes))


def activation_bytes(backbone: Backbone, frozen: Tree, slices: Slices) -> int:
    """What the activations of all examples at one boundary take; the widest of all boundaries."""
    x = jax.ShapeDtypeStruct((1, *slices.x.shape[2:]), slices.x.dtype)

    def all_h(frozen: Tree, x: jax.Array) -> list[Tree]:
        h = [backbone.embed(frozen, x, None)]
        for i in range(backbone.depth - 1):
            h.append(backbone.block(frozen, i, h[-1], {}))
        return h

    size = lambda h: sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(h))  # noqa: E731
    return math.prod(slices.y.shape) * max(size(h) for h in jax.eval_shape(all_h, frozen, x))


def build(
    setup: Setup, slices: Slices, existing: Existing = lambda shard, node: None
) -> Iterator[tuple[int, Node, Trained]]:
    """Train what does not exist yet, shallow before deep, and give each node as soon as it is done.

    Whoever resumes a build, or heals after a deletion, passes what it still has: neither which nodes are missing nor when
    they were trained changes a byte of any.

    Args:
      setup: the build.
      slices: its examples, of the capacity that the setup was made for.
      existing: (shard, node) -> what is kept of an earlier build, or None; asked once for each node.

    Raises:
      ValueError: more examples than the shapes have room for: a build with a new setup is needed.
    """
    have = {job: existing(*job) for job in ((s, node) for s in range(setup.shards) for node in setup.plan.nodes)}
    missing = [[job for job, node in have.items() if node is None and len(job[1]) == s.depth] for s in setup.shapes]
    todo = [(shape, jobs) for shape, jobs in zip(setup.shapes, missing, strict=True) if jobs]
    frozen = jax.device_put(setup.frozen)
    inputs = activations(setup, frozen, slices, todo)
    finished = lambda shard, node: have[shard, node]  # noqa: E731
    for shape, jobs in todo:
        stage = stage_for(setup.backbone, setup.recipe, shape)
        held = jax.device_put(slices._replace(x=inputs.get(shape.depth, slices.x)))
        for job, trained in train.train_nodes(stage, frozen, held, setup.key, jobs, finished, spread):
            have[job] = trained
            yield *job, trained


stage_for = functools.lru_cache(maxsize=64)(train.make_stage)
prefixes_for = functools.lru_cache(maxsize=8)(train.make_prefixes)


def activations(setup: Setup, frozen: Tree, slices: Slices, todo: list[tuple[Shape, list[Job]]]) -> dict[int, Tree]:
    """The frozen activations that each cached depth reads, on the host, from one pass over the slices of its nodes."""
    starts = {shape.depth: train.boundary(setup.backbone, shape) for shape, _ in todo if shape.cached}
    if not starts:
        return {}
    # All boundaries of the setup, whichever are needed: one program, so that a resumed build sees the same bytes.
    ascending = tuple(sorted({train.boundary(setup.backbone, shape) for shape in setup.shapes}))
    prefixes = prefixes_for(setup.backbone, ascending, setup.recipe.batch_size)
    groups = sorted({shard * setup.plan.slices + s for _, jobs in todo for shard, node in jobs for s in node})
    filled = train.fill(prefixes, frozen, slices.x, groups)
    return {depth: filled[ascending.index(start)] for depth, start in starts.items()}


def spread(lanes: Lanes) -> Lanes:
    """Lanes divided among all devices."""
    if jax.device_count() == 1:
        return lanes
    mesh = jax.make_mesh((jax.device_count(),), ("lanes",), axis_types=(AxisType.Auto,))
    return jax.device_put(lanes, NamedSharding(mesh, PartitionSpec("lanes")))


def node_logits(setup: Setup, nodes: dict[tuple[int, Node], Trained], shard: int, node: Node, x: jax.Array) -> jax.Array:
    """Logits [examples, classes] of one node, its ancestors' slots above its own."""
    slots = [nodes[shard, node[:depth]].slot for depth in range(1, len(node) + 1)]
    blocks = owned(setup.backbone.depth, setup.plan.slices)
    return _forward(setup.backbone, setup.recipe.lora, blocks, setup.frozen, slots, nodes[shard, node].head, x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _forward(backbone: Any, lora: Any, blocks: Any, frozen: Tree, slots: Any, head: Tree, x: jax.Array) -> jax.Array:
    return forward(backbone, frozen, x, lora, blocks, slots, head)


def lanes_for(model: str, most: int) -> int:
    """How many nodes to train at once: `most` on an accelerator, two on a CPU, one where lanes cost more than they save."""
    if fleet.in_loops(model):
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
