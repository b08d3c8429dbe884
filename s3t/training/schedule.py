"""Building nodes of a plan, depth by depth: which programs there are, what they read, and what each call of them made."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s3t.plans.structure import Node, Plan, at_depth
from s3t.store.certificates import digest
from s3t.training import arrangement, caching, stages
from s3t.training.adapters import init_slot
from s3t.training.arrangement import Slices
from s3t.training.backbone import Backbone, owned, run_blocks
from s3t.training.source import Source
from s3t.training.stages import Job, Lanes, Shape, Trained

Tree = Any


class Setup(NamedTuple):
    """All that decides the bytes of nodes, save the examples.

    source: model, recipe and devices.
    plan: of every shard.
    shards: m.
    key: the root key.
    shapes: of the program of each depth, 1 first.
    """

    source: Source
    plan: Plan
    shards: int
    key: jax.Array
    shapes: tuple[Shape, ...]


class Call(NamedTuple):
    """What one call of a program made.

    shape: of the program.
    program: digest of the program's text, and of that which filled its cache: model, recipe, code and libraries together.
    nodes: [(job, trained)].
    """

    shape: Shape
    program: str
    nodes: list[tuple[Job, Trained]]


def make_shapes(source: Source, plan: Plan, count: np.ndarray) -> tuple[Shape, ...]:
    """Choose the shapes of a build for the examples it starts with.

    Lanes are a multiple of the devices, and as many as fit `lane_bytes` and `most_lanes`. A depth is cached if its
    activations fit `cache_bytes`.

    Args:
      source: model, recipe and limits.
      plan: of every shard.
      count: [shards, slices] examples in each slice.

    Raises:
      ValueError: more slices than blocks.
    """
    shards = len(count)
    owned(source.backbone.depth, plan.slices)
    size = source.recipe.batch_size
    capacity = arrangement.capacity_for(count, size)
    x, y = source.fetch(source.ids[:1])
    room = source.cache_bytes / (count.size * capacity)
    cached = not source.backbone.random and activation_bytes(source.backbone, source.frozen, x) <= room
    shapes = []
    for depth in range(1, 1 + max(len(node) for node in plan.nodes)):
        jobs = [(shard, node) for shard in range(shards) for node in at_depth(plan, depth)]
        most = source.most_lanes
        if source.lane_bytes:
            single = stages.shape_for(count, jobs, size, capacity, 1, cached)._replace(lanes=1)
            most = max(1, min(most, source.devices * (source.lane_bytes // program_bytes(source, single, x, y))))
        shape = stages.shape_for(count, jobs, size, capacity, most, cached)
        shapes.append(shape._replace(lanes=shape.lanes + -shape.lanes % source.devices))
    return tuple(shapes)


def program_bytes(source: Source, shape: Shape, x: Tree, y: Tree) -> int:
    """Device memory that the lanes of a program take beside the data and the backbone, as its compiler tells.

    Args:
      source: model and recipe.
      shape: of the program.
      x, y: one example, [1, ...].

    Raises:
      ValueError: the compiler does not tell.
    """
    backbone = source.backbone
    start = caching.boundary(backbone, shape.slices, shape.depth)
    if shape.cached:
        x = jax.eval_shape(lambda frozen, x: _below(backbone, frozen, x, start), source.frozen, x)
    key = jax.random.key(0, impl="threefry2x32")
    run = stage_for(backbone, source.recipe, shape).run
    abstract = source.frozen, _abstract_slices(shape, x, y), key, _abstract_lanes(source, shape)
    memory = run.lower(*abstract).compile().memory_analysis()
    if memory is None:
        raise ValueError("the compiler for this device tells of no memory: set lane_bytes to 0 and most_lanes by hand")
    return max(1, int(memory.temp_size_in_bytes + memory.output_size_in_bytes))


def _abstract_slices(shape: Shape, x: Tree, y: Tree) -> Slices:
    """Shapes and types of a program's slices, for examples like x and y."""
    groups = shape.shards * shape.slices

    def room(leaf: Any, dtype: Any) -> Any:
        return abstract((groups, shape.capacity, *leaf.shape[1:]), dtype)

    abstract: Callable[..., Any] = jax.ShapeDtypeStruct
    return Slices(
        jax.tree.map(lambda leaf: room(leaf, leaf.dtype), x),
        jax.tree.map(lambda leaf: room(leaf, arrangement.label_dtype(leaf.dtype)), y),
        abstract((groups, shape.capacity), np.uint32),
        abstract((groups,), np.int32),
    )


def _abstract_lanes(source: Source, shape: Shape) -> Lanes:
    """Shapes and types of a program's lanes."""
    backbone, lora = source.backbone, source.recipe.lora
    above_blocks = owned(backbone.depth, shape.slices)[: shape.depth - 1]

    def ancestors(key: jax.Array) -> tuple[Any, Any]:
        above = tuple(init_slot(key, lora, [backbone.layers[i] for i in blocks]) for blocks in above_blocks)
        lane = above, backbone.init_head(key) if above_blocks else ()
        above, head = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (shape.lanes, *leaf.shape)), lane)
        return above, head

    abstract: Callable[..., Any] = jax.ShapeDtypeStruct
    above, head = jax.eval_shape(ancestors, jax.random.key(0, impl="threefry2x32"))
    return Lanes(abstract((shape.lanes,), np.int32), abstract((shape.lanes, shape.depth), np.int32), above, head)


def _below(backbone: Backbone, frozen: Tree, x: Tree, start: int) -> Tree:
    """The activations before block `start`."""
    return run_blocks(backbone, frozen, backbone.embed(frozen, x, None), range(start))


def activation_bytes(backbone: Backbone, frozen: Tree, example: Tree) -> int:
    """What the activations of one example [1, ...] at one boundary take, at the widest of all."""

    def all_h(frozen: Tree, x: Tree) -> list[Tree]:
        h = [backbone.embed(frozen, x, None)]
        for i in range(backbone.depth - 1):
            h.append(backbone.block(frozen, i, h[-1], {}))
        return h

    def size(h: Tree) -> int:
        return sum(math.prod(leaf.shape) * int(leaf.dtype.itemsize) for leaf in jax.tree.leaves(h))

    return max(size(h) for h in jax.eval_shape(all_h, frozen, example))


def build(setup: Setup, slices: Slices, jobs: Sequence[Job], finished: Callable[[int, Node], Trained]) -> Iterator[Call]:
    """Train nodes, shallow before deep, and give those of each call as soon as it is done.

    Neither which other nodes are asked for, nor when, nor which process makes a call (`Source.turns`) changes a byte of
    any: a resumed build and a heal make what a build in one go makes.

    Args:
      setup: the build.
      slices: the examples at least of the slices of the jobs, in compartments of the shapes' capacity.
      jobs: what to train; may hold nodes and their ancestors.
      finished: (shard, node) -> what an ancestor that is not among the jobs owns.

    Raises:
      ValueError: more examples than the shapes have room for: a build with new shapes is needed.
    """
    source, have = setup.source, dict[Job, Trained]()

    def ancestor(shard: int, node: Node) -> Trained:
        return have.get((shard, node)) or finished(shard, node)

    by_depth = [(shape, [job for job in jobs if len(job[1]) == shape.depth]) for shape in setup.shapes]
    todo = [(shape, of_depth) for shape, of_depth in by_depth if of_depth]
    frozen = jax.device_put(source.frozen)
    inputs, filling = activations(setup, frozen, slices, todo)
    for shape, of_depth in todo:
        held = jax.device_put(slices._replace(x=inputs.get(shape.depth, slices.x)))
        for call in source.turns(_calls(setup, shape, frozen, held, of_depth, ancestor, filling)):
            have.update(call.nodes)
            yield call


def _calls(
    setup: Setup,
    shape: Shape,
    frozen: Tree,
    held: Slices,
    jobs: Sequence[Job],
    finished: Callable[[int, Node], Trained],
    filling: str,
) -> list[Callable[[], Call]]:
    """The calls of one depth's program, none of which needs another."""
    source = setup.source
    stage = stage_for(source.backbone, source.recipe, shape)

    @functools.cache
    def program() -> str:
        lanes = source.place(stages.make_lanes([jobs[0]] * shape.lanes, finished))
        text = stage.run.lower(frozen, held, setup.key, lanes).as_text()
        return digest("program", [text, filling if shape.cached else ""])

    def train(group: Sequence[Job]) -> Call:
        nodes = list(stages.train_nodes(stage, frozen, held, setup.key, group, finished, source.place))
        return Call(shape, program(), nodes)  # asked after a call, which has checked what it was given

    return [functools.partial(train, jobs[first : first + shape.lanes]) for first in range(0, len(jobs), shape.lanes)]


Build = Callable[[Setup, Slices, Sequence[Job], Callable[[int, Node], Trained]], Iterator[Call]]  # as `build` is
stage_for = functools.lru_cache(maxsize=64)(stages.make_stage)
prefixes_for = functools.lru_cache(maxsize=8)(caching.make_prefixes)


def activations(
    setup: Setup, frozen: Tree, slices: Slices, todo: Sequence[tuple[Shape, Sequence[Job]]]
) -> tuple[dict[int, Tree], str]:
    """The frozen activations that each cached depth reads, on the host, from one pass over the slices of its nodes.

    Returns:
      depth -> what takes the place of `Slices.x`, and the text of the program that made them.
    """
    source, slots = setup.source, setup.plan.slices
    boundary_of = {shape.depth: caching.boundary(source.backbone, slots, shape.depth) for shape in setup.shapes}
    cached = [shape.depth for shape, _ in todo if shape.cached]
    if not cached:
        return {}, ""
    # All boundaries of the setup, whichever are needed: one program, so that a resumed build sees the same bytes.
    ascending = tuple(sorted(set(boundary_of.values())))
    prefixes = prefixes_for(source.backbone, ascending, source.recipe.batch_size)
    groups = sorted({shard * slots + s for _, jobs in todo for shard, node in jobs for s in node})
    cache = caching.fill_cache(prefixes, frozen, slices.x, groups)
    text = prefixes.lower(frozen, caching.compartment(slices.x, 0)).as_text()
    return {depth: cache[ascending.index(boundary_of[depth])] for depth in cached}, text
