"""Nodes that a run trains beside its store's: builds of plans and of what they are judged beside, costs, and logits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.configs.s3t import FullLora, NodeTrain
from experiments.core import keys, progress
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import environment, processes
from experiments.data import datasets
from experiments.exact.data import AT_ONCE, Data
from experiments.exact.sources import building
from s3t.plans import planners, structure
from s3t.plans.partition import Places
from s3t.plans.structure import Node, Plan
from s3t.training import arrangement, schedule
from s3t.training.adapters import Lora, init_slot
from s3t.training.arrangement import Slices
from s3t.training.backbone import Backbone, by_block, run_blocks
from s3t.training.schedule import Setup
from s3t.training.source import Source, placed
from s3t.training.stages import Job, Trained

Tree = Any
Nodes = dict[Job, Trained]

NOBODY = np.zeros(0, np.int64)  # who is left out of a training
NOTHING = Lora(1, 1.0, ("nothing",))  # what a slot of `whole_in_head` is made of: it acts on no layer


class Build(NamedTuple):
    """What is to be trained on which examples.

    places: of the source's examples, in the order of their ids.
    flops: of a node per epoch, in the unit of `structure.node_flops`.
    """

    setup: Setup
    places: Places
    flops: Callable[[Node], float]

    def passes(self, node: Node) -> float:
        """The training of a node in one shard, see `passes`."""
        source = self.setup.source
        return passes(self.flops(node) / self.setup.shards, source.recipe.epochs, len(source.ids))


@dataclasses.dataclass(frozen=True)
class Builder:
    """How the nodes of a run are trained.

    source: model, recipe and training examples.
    shards, slices: the parts that these fall into.
    train: of S3T's nodes, as the recipe has it.
    full_lora: what differs where one adapter on all blocks is trained.
    """

    source: Source
    shards: int
    slices: int
    train: NodeTrain
    full_lora: FullLora

    def places(self, seed: int) -> Places:
        """Where a seed's training examples belong."""
        return places(self.source, self.shards, self.slices, seed)

    def of_plan(self, plan: Plan, seed: int, shards: int) -> Build:
        """S3T with any plan."""
        return _build(self.source, plan, seed, shards, lambda node: structure.node_flops(node, plan.slices))

    def of_full_lora(self, seed: int) -> Build:
        """One slot on all blocks, trained on all examples: a plan of one slice in one shard."""
        source = _of_lora(self.source, self.source.recipe.lora, self.train, self.full_lora)
        return _build(source, planners.sisa(1), seed, 1, lambda node: lora_flops())

    def of_sisa(self, seed: int) -> Build:
        """One sequence per shard, in which every stage goes on training the adapters of all blocks."""
        source = sisa_source(self.source, self.slices, self.train, self.full_lora)
        return _build(
            source, planners.sisa(self.slices), seed, self.shards, lambda node: lora_flops(len(node) / self.slices)
        )

    def flops(self, units: float, epochs: int) -> float:
        """FLOPs of a training whose every shard costs so many units (see `structure.node_flops`) per epoch."""
        return units * epochs * len(self.source.ids) * self._forward_flops

    def passes(self, units: float, epochs: int) -> float:
        """The same training, see `passes`."""
        return passes(units, epochs, len(self.source.ids))

    @functools.cached_property
    def _forward_flops(self) -> float:
        """Of one example through all blocks, as XLA counts them."""
        backbone, frozen = self.source.backbone, self.source.frozen
        x, _ = self.source.fetch(self.source.ids[:1])
        h = jax.eval_shape(backbone.embed, frozen, x, None)
        run = jax.jit(lambda frozen, h: run_blocks(backbone, frozen, h, range(backbone.depth)))
        return environment.flops(run.lower(frozen, h).compile())


# --- Examples ---------------------------------------------------------------------------------------------------------


def partition_key(seed: int) -> bytes:
    """The key that places a seed's examples."""
    return f"s3t study {seed}".encode()


def places(source: Source, shards: int, slices: int, seed: int) -> Places:
    """Where a seed's training examples belong, those of a group in one slice."""
    return placed(source, shards, slices, partition_key(seed))


def deletion_order(ids: np.ndarray, seed: int) -> np.ndarray:
    """Positions of the training examples in the order in which a seed's requests name them."""
    return np.argsort(datasets.hash_uniform(ids, Hash.DELETIONS, seed), kind="stable")


# --- Full LoRA and SISA as builds of s3t ------------------------------------------------------------------------------


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
    return backbone._replace(block=lambda frozen, i, h, _: h, head=head, init_head=init_head, layers=layers)


def sisa_source(source: Source, slices: int, train: NodeTrain, full_lora: FullLora) -> Source:
    """The source with the adapters of all blocks where every stage goes on training them."""
    whole = whole_in_head(source.backbone, source.recipe.lora, slices)
    return dataclasses.replace(_of_lora(source, NOTHING, train, full_lora), backbone=whole)


def _of_lora(source: Source, lora: Lora, train: NodeTrain, full_lora: FullLora) -> Source:
    """The source with the recipe of adapters on all blocks."""
    optimizer = building.cosine_adamw(full_lora.learning_rate, train.weight_decay, train.clip)
    recipe = source.recipe._replace(lora=lora, epochs=full_lora.epochs, optimizer=optimizer)
    return dataclasses.replace(source, recipe=recipe)


def lora_flops(share: float = 1.0) -> float:
    """Forward and backward through all blocks, over a share of the shard's examples, per epoch.

    The unit is that of `structure.node_flops`: one forward pass of all blocks over a shard's examples.
    """
    return 2 * share


# --- Training ---------------------------------------------------------------------------------------------------------


def _build(source: Source, plan: Plan, seed: int, shards: int, flops: Callable[[Node], float]) -> Build:
    where = places(source, shards, plan.slices, seed)
    count = arrangement.counts(where, shards, plan.slices)
    shapes = processes.first(lambda: schedule.make_shapes(source, plan, count))  # a compiler may have a say in them
    return Build(Setup(source, plan, shards, keys.key(seed, Purpose.NODES), shapes), where, flops)


def examples(build: Build, gone: np.ndarray) -> Slices:
    """The training examples in their slices, without those at the positions `gone`."""
    setup, keep = build.setup, np.setdiff1d(np.arange(len(build.setup.source.ids)), gone)
    ids = setup.source.ids[keep]
    where = Places(build.places.shard[keep], build.places.slice[keep])
    x, y = setup.source.fetch(ids)
    return arrangement.arrange(x, y, ids, where, setup.shards, setup.plan.slices, setup.shapes[0].capacity)


def train(
    build: Build,
    gone: np.ndarray,
    kept: Nodes | None = None,
    done: Callable[[Job, Trained, float], None] = lambda job, trained, seconds: None,
) -> tuple[Nodes, dict[Job, float]]:
    """Train what is not kept, without the examples at the positions `gone`.

    Args:
      done: told of each node that was trained, with its share of the seconds; in process 0 alone.

    Returns:
      every node; and of those that were trained the seconds, without compilation.
    """
    nodes, setup = dict(kept or {}), build.setup
    jobs = [(shard, node) for node in setup.plan.nodes for shard in range(setup.shards) if (shard, node) not in nodes]
    spent: dict[Job, float] = {}
    with environment.stopwatch() as clock:
        began = clock()
        for call in schedule.build(setup, examples(build, gone), jobs, lambda shard, node: nodes[shard, node]):
            seconds = max(clock() - began, 0.0) / len(call.nodes)
            for job, trained in call.nodes:
                nodes[job], spent[job] = trained, seconds
                if processes.is_first():
                    done(job, trained, seconds)
                progress.advance(build.passes(job[1]))
            began = clock()
    return nodes, spent


def passes(units: float, epochs: int, examples: int) -> float:
    """Training that costs so many units per epoch in every shard, as examples forward and backward through all blocks.

    It is what the progress of a run is counted in.
    """
    return units / 2 * epochs * examples


# --- What was trained -------------------------------------------------------------------------------------------------


def at_once(data: Data) -> int:
    """How many examples are looked at together: of text to predict few, for attention takes the square of their length."""
    return min(512 if data.source.backbone.classifies else AT_ONCE, data.examples)


def logits_of(data: Data, build: Build, nodes: Nodes, job: Job) -> np.ndarray:
    """[validation and test examples, classes (of text to predict, tokens)] answers of one node, in parts of one size."""
    size = at_once(data)
    pad = -data.examples % size
    x = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[:1], pad, axis=0)]), data.x)

    def answers(first: int) -> np.ndarray:
        part = jax.tree.map(lambda leaf: leaf[first : first + size], x)
        return np.asarray(building.node_logits(build.setup, nodes, *job, part))

    return np.concatenate([answers(first) for first in range(0, data.examples, size)])[: data.examples]


def every_logits(data: Data, build: Build, nodes: Nodes) -> dict[Job, np.ndarray]:
    """The answers of all nodes, see `logits_of`, each asked by one process; for process 0, the others get none."""
    asked = [functools.partial(logits_of, data, build, nodes, job) for job in nodes]
    return {job: logits for job, logits in zip(nodes, processes.turns(asked), strict=True) if processes.is_first()}


def node_bytes(nodes: Iterable[Trained]) -> list[int]:
    """What the parameters of each node take."""
    return [sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves((n.slot, n.head))) for n in nodes]
