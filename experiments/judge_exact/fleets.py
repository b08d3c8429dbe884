"""Fleets of exact models: every model is a shard of one build, with a membership, a partition and keys of its own.

A person has asked for a group of examples, which a partition puts into one slice. Models have one of four roles:

* shadows: trained on a half of its own of the group each, and asked to delete it (U-LiRA);
* repeats: trained on everything, and all asked to delete the whole group, or one example of it (KLoM, the pair of
  checkpoints);
* oracle, heldout_oracle: trained without the group, under other keys.

Exactness rests on s3t's own code: nodes are trained by `s3t.training.schedule`, and a healed node is one that it trains
again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.configs.judge_exact import JudgeExact
from experiments.core import keys
from experiments.core.errors import UserError
from experiments.core.keys import Hash, Purpose
from experiments.data import datasets
from experiments.exact import building, context
from experiments.exact.context import Nodes
from experiments.judge.ulira import memberships
from experiments.judge_exact.attacks import Worlds
from s3t.plans import partition, planners, structure
from s3t.plans.partition import Places
from s3t.plans.structure import Node
from s3t.training import arrangement, schedule
from s3t.training.arrangement import Slices
from s3t.training.schedule import Setup
from s3t.training.stages import Job
from unlearn.metrics import scores
from unlearn.tree import bits_equal

Bench = context.Bench[JudgeExact]
SHADOWS, REPEATS, ORACLE, HELDOUT = ROLES = ("shadows", "repeats", "oracle", "heldout_oracle")
KEYS = {
    SHADOWS: Purpose.EXACT_SHADOWS,
    REPEATS: Purpose.EXACT_REPEATS,
    ORACLE: Purpose.EXACT_ORACLE,
    HELDOUT: Purpose.EXACT_HELDOUT,
}


class Cast(NamedTuple):
    """Positions of training examples: the group is `asked` and `same`, and is never in the slice of `apart`."""

    asked: np.ndarray
    same: np.ndarray
    apart: np.ndarray


class Case(NamedTuple):
    """One kind of exact unlearning.

    x, y: training examples, then those for validation and for test.
    included: [models, asked] bool, what each shadow is trained on of the group.
    setup: of the fleets' builds, without their keys.
    """

    name: str
    bench: Bench
    cast: Cast
    x: np.ndarray
    y: np.ndarray
    included: np.ndarray
    setup: Setup


class Fleet(NamedTuple):
    """The models of one role.

    setup: one shard per model.
    slice_of: [models, training examples] int, where each model's partition puts them.
    member: [models, training examples] bool.
    """

    setup: Setup
    slice_of: np.ndarray
    member: np.ndarray


# --- Who is who -------------------------------------------------------------------------------------------------------


def make_cast(bench: Bench) -> Cast:
    """The examples that the run is about, by a hash of their ids."""
    config, ids = bench.config.exact, bench.source.ids
    order = np.argsort(datasets.hash_uniform(ids, Hash.CAST, bench.config.seed), kind="stable")
    parts = np.split(order, np.cumsum([config.asked, config.same, config.apart]))
    return Cast(*(np.sort(part) for part in parts[:3]))


def make_case(name: str, bench: Bench) -> Case:
    """S3T or SISA, with programs that have room for every fleet of it."""
    config, cast = bench.config, make_cast(bench)
    if name == "s3t":
        source, plan = bench.source, planners.PLANNERS[config.planner](config.slices, None, None)
    else:
        source, plan = context.sisa_source(bench), planners.sisa(config.slices)
    source, models = dataclasses.replace(source, most_lanes=config.lanes), config.exact.models
    held = [counts(where, config.slices) for role in ROLES for where in slices_of(bench, cast, role)]
    shapes = tuple(shape._replace(shards=models) for shape in schedule.make_shapes(source, plan, np.stack(held)))
    x, y = source.fetch(source.ids)
    included = memberships(source.ids[cast.asked], models, config.seed, Hash.EXACT_SHADOW)
    setup = Setup(source, plan, models, keys.key(config.seed, Purpose.NODES), shapes)
    return Case(name, bench, cast, np.concatenate([x, bench.x]), np.concatenate([y, bench.y]), included, setup)


def slices_of(bench: Bench, cast: Cast, role: str) -> np.ndarray:
    """[models, training examples] slice of each example under each model's own partition key.

    Of a model's keys the first that puts `apart` into another slice than the group.
    """
    ids, groups = bench.source.ids, np.full(len(bench.source.ids), None)
    groups[np.concatenate([cast.asked, cast.same])], groups[cast.apart] = 0, 1
    found = []
    for model in range(bench.config.exact.models):
        for attempt in itertools.count():
            key = f"exact {bench.config.seed} {role} {model} {attempt}".encode()
            where = partition.assign(ids, 1, bench.config.slices, key, groups=groups).slice
            if where[cast.asked[0]] != where[cast.apart[0]]:
                break
        found.append(where)
    return np.stack(found)


def counts(slice_of: np.ndarray, slices: int) -> np.ndarray:
    """[slices] how many examples each holds."""
    return np.bincount(slice_of, minlength=slices)


def make_fleet(case: Case, role: str) -> Fleet:
    """The models of a role, before they are trained: roles share neither partitions nor keys."""
    slice_of = slices_of(case.bench, case.cast, role)
    member = np.ones(slice_of.shape, bool)
    if role != REPEATS:
        member[:, case.cast.asked] = case.included & (role == SHADOWS)
    key = keys.fold(case.setup.key, KEYS[role])
    return Fleet(case.setup._replace(key=key), slice_of, member)


def single(case: Case) -> np.ndarray:
    """[models] position of the one example of the group that each repeat deletes, by a hash of the ids."""
    ids, config = case.setup.source.ids[case.cast.asked], case.bench.config
    models = range(config.exact.models)
    drawn = [datasets.hash_uniform(ids, f"{Hash.DELETED_BY}{model}", config.seed).argmin() for model in models]
    return case.cast.asked[drawn]


# --- Training and healing ---------------------------------------------------------------------------------------------


def train_fleet(case: Case, fleet: Fleet, jobs: Sequence[Job] | None = None, kept: Nodes | None = None) -> Nodes:
    """Train what is not kept of all nodes, or of the given ones, which come parents first."""
    nodes = dict(kept or {})
    if jobs is None:
        jobs = [(model, node) for node in fleet.setup.plan.nodes for model in range(len(fleet.member))]
    jobs = [job for job in jobs if job not in nodes]
    for call in schedule.build(fleet.setup, arranged(case, fleet), jobs, lambda model, node: nodes[model, node]):
        nodes.update(call.nodes)
    return nodes


def arranged(case: Case, fleet: Fleet) -> Slices:
    """Every model's own examples in the compartments of its slices."""
    ids, (shape, *_) = case.setup.source.ids, fleet.setup.shapes
    parts = []
    for member, slice_of in zip(fleet.member, fleet.slice_of, strict=True):
        rows = np.flatnonzero(member)
        where = Places(np.zeros(len(rows), np.int32), slice_of[rows])
        parts.append(arrangement.arrange(case.x[rows], case.y[rows], ids[rows], where, 1, shape.slices, shape.capacity))
    return Slices(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def heal(case: Case, fleet: Fleet, nodes: Nodes, gone: np.ndarray) -> Nodes:
    """The nodes after examples are deleted and the nodes that held one are trained again.

    Args:
      gone: [models, training examples] bool, whom each model is asked to delete.
    """
    hit = hits(fleet, gone)
    kept = {(model, node): owns for (model, node), owns in nodes.items() if hit[model].isdisjoint(node)}
    return train_fleet(case, without(fleet, gone), kept=kept)


def without(fleet: Fleet, gone: np.ndarray) -> Fleet:
    """The fleet that never held some examples."""
    return fleet._replace(member=fleet.member & ~gone)


def hits(fleet: Fleet, gone: np.ndarray) -> list[set[int]]:
    """For each model the slices of the members that are gone."""
    return [set(where[out].tolist()) for where, out in zip(fleet.slice_of, gone & fleet.member, strict=True)]


def audit(case: Case, fleet: Fleet, gone: np.ndarray, healed: Nodes, models: int) -> dict[str, int]:
    """How many nodes of the first models come out, bit for bit, of a training that never held the deleted."""
    jobs = [(model, node) for node in fleet.setup.plan.nodes for model in range(models)]
    fresh = train_fleet(case, without(fleet, gone), jobs)
    return {"nodes": len(jobs), "equal": sum(bits_equal(fresh[job], healed[job]) for job in jobs)}


# --- What is served ---------------------------------------------------------------------------------------------------


def switched_off(fleet: Fleet, hit: Sequence[set[int]]) -> list[Node]:
    """The node that each model serves while the hit slices are off; () where there is none."""
    return [structure.served(fleet.setup.plan, gone) for gone in hit]


def logits(case: Case, fleet: Fleet, nodes: Nodes, chosen: Sequence[Node]) -> np.ndarray:
    """[models, examples, classes] logits of one node of each model; a model without a node says nothing, all zeros.

    Raises:
      UserError: logits that are not finite.
    """
    rows = [
        building.node_logits(fleet.setup, nodes, model, node, case.x) if node else None for model, node in enumerate(chosen)
    ]
    shape = next((row.shape for row in rows if row is not None), (len(case.x), int(case.y.max()) + 1))
    found = np.stack([np.zeros(shape, np.float32) if row is None else np.asarray(row) for row in rows])
    if failed := int((~np.isfinite(found).all(axis=(1, 2))).sum()):
        part = "train" if case.name == "s3t" else "full_lora"
        raise UserError(
            f"{failed} of {len(found)} {case.name} models have logits that are not finite: lower "
            f"--config.{part}.learning_rate and use an empty --workdir"
        )
    return found


def states(case: Case, fleet: Fleet, nodes: Nodes) -> np.ndarray:
    """[2^L, models, examples, classes] logits of what is served, by the bit mask of the slices that are off."""
    slices, by_node = fleet.setup.plan.slices, dict[Node, np.ndarray]()
    served = [
        structure.served(fleet.setup.plan, [s for s in range(slices) if mask >> s & 1]) for mask in range(1 << slices)
    ]
    for node in dict.fromkeys(served):
        by_node[node] = logits(case, fleet, nodes, [node] * len(fleet.member))
    return np.stack([by_node[node] for node in served])


def worlds(case: Case, fleet: Fleet, states: np.ndarray) -> Worlds:
    """A fleet and what it serves, from `states`, as streams see it."""
    margins = np.stack([scores.margin(state, case.y) for state in states])
    return Worlds(margins, structure.depth_table(fleet.setup.plan), fleet.slice_of)
