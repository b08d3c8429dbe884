"""Training of nodes: all nodes of one depth, over all shards and sequences, are lanes of one program.

A node of depth d trains one slot and the head on all examples of its d slices, below the frozen slots of its ancestors
and above blocks that are purely pre-trained. Whatever a node draws is keyed by (purpose, shard, slices in order, epoch,
example id), and its number of steps follows from its own examples; so its parameters are a function of the backbone, the
recipe, the root key, the shard, the slices and the examples in them. Neither other slices nor the size of the data set
have a part in it. Bytes are those of one compiled program: a `Shape` and a stack of software and devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s3t.plans.structure import Node
from s3t.training.adapters import Lora, Slot, init_slot, select
from s3t.training.arrangement import HostOrDevice, Slices
from s3t.training.backbone import Backbone, by_block, check_losses, owned, run_blocks
from unlearn.losses import weighted_mean

Array = jax.Array
Tree = Any
Part = tuple[Slot, Tree]  # what a node trains: its slot and the head
Job = tuple[int, Node]  # what is to be trained: a shard and a node of it

INIT, HEAD, ORDER, AUGMENT = range(4)  # purposes that keys fold in


class Recipe(NamedTuple):
    """How every node is trained.

    lora: what a slot is.
    batch_size: examples of a step; the last step of an epoch takes what is left.
    epochs: of each node over its own examples, so that deeper nodes take more steps.
    optimizer: the number of steps of a node, a traced integer -> its optimiser, new for each node.
    """

    lora: Lora
    batch_size: int
    epochs: int
    optimizer: Callable[[Array], optax.GradientTransformation]


class Shape(NamedTuple):
    """What the program of one depth is compiled for. Within one shape bytes are a function of a node's identity.

    depth: of the nodes.  shards: m.  slices: L.  capacity: room for examples in a slice.
    steps: room for steps in an epoch.  lanes: nodes trained at once.
    cached: whether it reads activations below the slot instead of examples.
    """

    depth: int
    shards: int
    slices: int
    capacity: int
    steps: int
    lanes: int
    cached: bool


class Lanes(NamedTuple):
    """The nodes that one call trains.

    shard: [lanes] int32.
    node: [lanes, depth] int32.
    above: the slots of depths 1 to depth - 1, leaves [lanes, ...].
    head: the parents' snapshots, leaves [lanes, ...]; () at depth 1.
    """

    shard: HostOrDevice
    node: HostOrDevice
    above: tuple[Slot, ...]
    head: Tree


class Trained(NamedTuple):
    """What a node owns: its slot and a snapshot of the head, with the mean loss of each epoch [epochs]."""

    slot: Slot
    head: Tree
    losses: Array


class Program(NamedTuple):
    """What the program of one depth is made from, and the blocks that each slot owns."""

    backbone: Backbone
    recipe: Recipe
    shape: Shape
    blocks: tuple[range, ...]


class Stage(NamedTuple):
    """The program of one depth, made by `make_stage`.

    run: (frozen, slices, root key, lanes) -> what the lanes' nodes own; compiled at its first call.
    """

    run: jax.stages.Wrapped
    shape: Shape
    batch_size: int


def shape_for(
    count: np.ndarray, jobs: Sequence[Job], batch_size: int, capacity: int, most_lanes: int, cached: bool
) -> Shape:
    """The shape in which all given nodes, of one depth, can be trained.

    Args:
      count: [shards, slices] examples in each slice.
      jobs: what is to be trained, at least one.
      batch_size: of the recipe.
      capacity: of the slices.
      most_lanes: how many nodes fit into memory at once; they are spread evenly over as few calls as possible.
      cached: whether the activations below the slot will be given.
    """
    largest = max(int(sum(count[shard, s] for s in node)) for shard, node in jobs)
    calls = -(-len(jobs) // most_lanes)
    steps = max(1, -(-largest // batch_size))
    shards, slices = count.shape
    return Shape(len(jobs[0][1]), shards, slices, capacity, steps, -(-len(jobs) // calls), cached)


# --- One node ---------------------------------------------------------------------------------------------------------


def node_key(key: Array, purpose: int, shard: HostOrDevice, node: HostOrDevice) -> Array:
    """The key of a node's draws for one purpose; with the depth in front, no slice is taken for what is folded in later."""
    for part in (purpose, shard, node.shape[0], *node):
        key = jax.random.fold_in(key, part)
    return key


def epoch_order(key: Array, ids: Array, real: Array) -> Array:
    """Positions in the order of an epoch, the real ones first; which of two comes first depends on their ids alone.

    Args:
      key: of the epoch.
      ids: [positions] uint32.
      real: [positions] bool.
    """
    drawn = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i)))(ids)
    return jnp.lexsort((ids, drawn, ~real))


def _initial(program: Program, key: Array, lane: Lanes) -> Part:
    """A new slot, and the parent's head or, at depth 1, a new one."""
    backbone, depth = program.backbone, program.shape.depth
    layers = [backbone.layers[i] for i in program.blocks[depth - 1]]
    slot = init_slot(node_key(key, INIT, lane.shard, lane.node), program.recipe.lora, layers)
    if depth > 1:
        return slot, lane.head
    return slot, backbone.init_head(node_key(key, HEAD, lane.shard, lane.node))


def _logits(program: Program, frozen: Tree, lane: Lanes, part: Part, h: Tree, keys: Array | None) -> Array:
    """Logits of a batch; h holds activations if cached, else examples."""
    backbone, shape = program.backbone, program.shape
    slot, head = part
    start = program.blocks[shape.depth - 1].start
    if not shape.cached:
        h = run_blocks(backbone, frozen, backbone.embed(frozen, h, keys), range(start))
    adapters = by_block(program.recipe.lora, program.blocks, (*lane.above, slot))
    return backbone.head(frozen, head, run_blocks(backbone, frozen, h, range(start, backbone.depth), adapters))


def _train(program: Program, frozen: Tree, flat: Slices, key: Array, lane: Lanes) -> Trained:
    """Train one node on the examples of its slices, which lie one after another in `flat`."""
    backbone, recipe, shape, _ = program
    size = recipe.batch_size
    group = lane.shard * shape.slices + lane.node
    place = jnp.arange(shape.capacity)
    rows = (group[:, None] * shape.capacity + place).reshape(-1)
    real = (place < flat.used[group][:, None]).reshape(-1)
    examples = jnp.sum(real)
    steps = -(-examples // size)
    optimizer = recipe.optimizer(steps * recipe.epochs)
    order_key = node_key(key, ORDER, lane.shard, lane.node)
    augment_key = jax.random.fold_in(key, AUGMENT)

    def step(state: tuple[Any, Any], batch: tuple[Any, ...]) -> tuple[tuple[Any, Any], Array]:
        row, weight, keys, active = batch
        h = jax.tree.map(lambda leaf: leaf[row], flat.x)

        def loss(part: Part) -> Array:
            logits = _logits(program, frozen, lane, part, h, keys)
            y = jax.tree.map(lambda leaf: leaf[row], flat.y)  # here: certificates hold the program's text, order and all
            return weighted_mean(check_losses(backbone.loss(logits, y), size), weight)

        part, opt_state = state
        value, gradient = jax.value_and_grad(loss)(part)
        updates, opt_new = optimizer.update(gradient, opt_state, part)
        return select(active, (optax.apply_updates(part, updates), opt_new), state), value * jnp.sum(weight)

    def epoch(state: tuple[Any, Any], number: Array) -> tuple[tuple[Any, Any], Array]:
        order = rows[epoch_order(jax.random.fold_in(order_key, number), flat.id[rows], real)]
        at = jnp.arange(shape.steps * size).reshape(shape.steps, size)
        row = order[at % jnp.maximum(examples, 1)]  # beyond the last example: real ones again, of weight 0
        keys = None
        if backbone.random:
            in_epoch = jax.random.fold_in(augment_key, number)
            keys = jax.vmap(jax.vmap(lambda i: jax.random.fold_in(in_epoch, i)))(flat.id[row])
        batches = row, (at < examples).astype(jnp.float32), keys, jnp.arange(shape.steps) < steps
        state, totals = jax.lax.scan(step, state, batches)
        return state, jnp.sum(totals) / jnp.maximum(examples, 1)

    part = _initial(program, key, lane)
    state, losses = jax.lax.scan(epoch, (part, optimizer.init(part)), jnp.arange(recipe.epochs))
    slot, head = state[0]
    return Trained(slot, head, losses)


def make_stage(backbone: Backbone, recipe: Recipe, shape: Shape) -> Stage:
    """The program of one depth.

    The gradient is taken with respect to a node's slot and head alone. Lanes of fewer steps than the shape has room for
    select their old state, that of the optimiser included.

    Args:
      backbone: the model.
      recipe: how to train.
      shape: what to compile for. If cached, the slices hold the activations before the slot's lowest block.
    """
    program = Program(backbone, recipe, shape, owned(backbone.depth, shape.slices))

    def merge(leaf: Array) -> Array:
        return leaf.reshape(-1, *leaf.shape[2:])

    def run(frozen: Tree, slices: Slices, key: Array, lanes: Lanes) -> Trained:
        flat = Slices(
            jax.tree.map(merge, slices.x), jax.tree.map(merge, slices.y), merge(jnp.asarray(slices.id)), slices.used
        )
        trained: Trained = jax.vmap(lambda lane: _train(program, frozen, flat, key, lane))(lanes)
        return trained

    return Stage(jax.jit(run), shape, recipe.batch_size)


# --- Many nodes -------------------------------------------------------------------------------------------------------


def train_nodes(
    stage: Stage,
    frozen: Tree,
    slices: Slices,
    key: Array,
    jobs: Sequence[Job],
    finished: Callable[[int, Node], Trained],
    place: Callable[[Lanes], Lanes] = lambda lanes: lanes,
) -> Iterator[tuple[Job, Trained]]:
    """Train nodes of one depth in calls of `shape.lanes`, and give each as it is done, its arrays on the host.

    A call that is not full repeats its last node. How nodes are grouped changes no byte of any of them.

    Args:
      stage: the program.
      frozen: the backbone's parameters.
      slices: examples or, if cached, activations.
      key: the root key.
      jobs: what to train.
      finished: (shard, node) -> what that node, an ancestor of a job, owns.
      place: puts lanes on devices.

    Raises:
      ValueError: slices of another number or capacity, or a node with more examples than the shape has steps for.
    """
    shape, room = stage.shape, stage.shape.steps * stage.batch_size
    count = np.asarray(slices.used).reshape(-1, shape.slices)
    if slices.id.shape != (form := (shape.shards * shape.slices, shape.capacity)):
        raise ValueError(f"slices are of the form {slices.id.shape}, the program's of {form}: rebuild")
    for shard, node in jobs:
        if (examples := int(count[shard, list(node)].sum())) > room:
            raise ValueError(f"node {list(node)} of shard {shard} has {examples} examples, room is for {room}: rebuild")
    for first in range(0, len(jobs), shape.lanes):
        group = jobs[first : first + shape.lanes]
        lanes = make_lanes([*group, *[group[-1]] * (shape.lanes - len(group))], finished)
        done = jax.device_get(stage.run(frozen, slices, key, place(lanes)))
        for at, job in enumerate(group):
            yield job, jax.tree.map(lambda leaf, at=at: leaf[at].copy(), done)


def make_lanes(jobs: Sequence[Job], finished: Callable[[int, Node], Trained]) -> Lanes:
    """Nodes of one depth side by side, with the slots of their ancestors and the heads of their parents."""
    above = [tuple(finished(shard, node[:d]).slot for d in range(1, len(node))) for shard, node in jobs]
    head = [finished(shard, node[:-1]).head if len(node) > 1 else () for shard, node in jobs]

    def stacked(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    return Lanes(
        np.array([shard for shard, _ in jobs], np.int32),
        np.array([node for _, node in jobs], np.int32),
        stacked(above),
        stacked(head),
    )
