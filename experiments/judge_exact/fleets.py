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

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.judge_exact import ExactJudgement
from experiments.configs.s3t import FullLora, NodeTrain
from experiments.core import keys, progress
from experiments.core.errors import UserError
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import processes
from experiments.data import datasets
from experiments.exact import nodes
from experiments.exact.data import Data
from experiments.exact.nodes import Nodes
from experiments.exact.sources import building
from experiments.judge.ulira import memberships
from experiments.judge_exact.attacks import Worlds
from s3t.plans import partition, planners, structure
from s3t.plans.partition import Places
from s3t.plans.structure import Node, Plan
from s3t.training import arrangement, schedule
from s3t.training.arrangement import Slices
from s3t.training.schedule import Setup
from s3t.training.source import Source
from s3t.training.stages import Job
from unlearn import losses
from unlearn.tree import bits_equal

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


class Kind(NamedTuple):
    """How exact unlearning is done.

    name: s3t or sisa.
    source: model, recipe and training examples of this kind.
    plan: of every model.
    """

    name: str
    source: Source
    plan: Plan

    def passes(self, node: Node) -> float:
        """The training of a node of one model, see `nodes.passes`."""
        slices = self.plan.slices
        units = nodes.lora_flops(len(node) / slices) if self.name == "sisa" else structure.node_flops(node, slices)
        return nodes.passes(units, self.source.recipe.epochs, len(self.source.ids))


class Case(NamedTuple):
    """One kind of exact unlearning, and who is deleted.

    dataset: the name of the data set.
    exact: the size of the judgement.
    seed: of every choice.
    x, y: training examples, then `held` for validation, then those for test.
    included: [models, asked] bool, what each shadow is trained on of the group.
    setup: of the fleets' builds, without their keys.
    """

    kind: Kind
    dataset: str
    exact: ExactJudgement
    seed: int
    cast: Cast
    x: np.ndarray
    y: np.ndarray
    held: int
    included: np.ndarray
    setup: Setup

    @property
    def name(self) -> str:
        return self.kind.name


class Answers(NamedTuple):
    """What is served of each example, [..., models, examples] float32, reduced on the device.

    margin: log p_y - log(1 - p_y).
    correct: 1 where the largest logit is the label's, else 0.
    silent: [..., models] 1 where a model has nothing to serve: all its logits count as zero, and none as correct.
    """

    margin: np.ndarray
    correct: np.ndarray
    silent: np.ndarray


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


def make_cast(ids: np.ndarray, exact: ExactJudgement, seed: int) -> Cast:
    """The examples that the run is about, by a hash of their ids."""
    order = np.argsort(datasets.hash_uniform(ids, Hash.CAST, seed), kind="stable")
    parts = np.split(order, np.cumsum([exact.asked, exact.same, exact.apart]))
    return Cast(*(np.sort(part) for part in parts[:3]))


def make_kind(name: str, source: Source, *, planner: str, slices: int, train: NodeTrain, full_lora: FullLora) -> Kind:
    """S3T or SISA with a source of S3T's.

    Args:
      planner: of S3T's plan.
      train, full_lora: how SISA is trained.
    """
    if name == "s3t":
        return Kind(name, source, planners.PLANNERS[planner](slices, None, None))
    return Kind(name, nodes.sisa_source(source, slices, train, full_lora), planners.sisa(slices))


def make_case(kind: Kind, data: Data, exact: ExactJudgement, seed: int) -> Case:
    """A kind of exact unlearning, with programs that have room for every fleet of it.

    Args:
      data: with the examples that are held out.
    """
    _, source, plan = kind
    cast, models = make_cast(source.ids, exact, seed), exact.models
    drawn = [where for role in ROLES for where in slices_of(source.ids, cast, role, plan.slices, models, seed)]
    held = np.stack([counts(where, plan.slices) for where in drawn])
    made = processes.first(lambda: schedule.make_shapes(source, plan, held))  # a compiler may have a say in them
    shapes = tuple(shape._replace(shards=models) for shape in made)
    x, y = source.fetch(source.ids)
    included = memberships(source.ids[cast.asked], models, seed, Hash.EXACT_SHADOW)
    setup = Setup(source, plan, models, keys.key(seed, Purpose.NODES), shapes)
    x, y = np.concatenate([x, data.x]), np.concatenate([y, data.y])
    return Case(kind, data.name, exact, seed, cast, x, y, data.held, included, setup)


def slices_of(ids: np.ndarray, cast: Cast, role: str, slices: int, models: int, seed: int) -> np.ndarray:
    """[models, training examples] slice of each example under each model's own partition key.

    Of a model's keys the first that puts `apart` into another slice than the group.
    """
    groups: list[int | None] = [None] * len(ids)
    for group, members in enumerate((np.concatenate([cast.asked, cast.same]), cast.apart)):
        for member in members:
            groups[member] = group
    found = []
    for model in range(models):
        for attempt in itertools.count():
            key = f"exact {seed} {role} {model} {attempt}".encode()
            where = partition.assign(ids, 1, slices, key, groups=groups).slice
            if where[cast.asked[0]] != where[cast.apart[0]]:
                break
        found.append(where)
    return np.stack(found)


def counts(slice_of: np.ndarray, slices: int) -> np.ndarray:
    """[slices] how many examples each holds."""
    return np.bincount(slice_of, minlength=slices)


def make_fleet(case: Case, role: str) -> Fleet:
    """The models of a role, before they are trained: roles share neither partitions nor keys."""
    setup, cast = case.setup, case.cast
    slice_of = slices_of(setup.source.ids, cast, role, setup.plan.slices, case.exact.models, case.seed)
    member = np.ones(slice_of.shape, bool)
    if role != REPEATS:
        member[:, cast.asked] = case.included & (role == SHADOWS)
    return Fleet(setup._replace(key=keys.fold(setup.key, KEYS[role])), slice_of, member)


def single(case: Case) -> np.ndarray:
    """[models] position of the one example of the group that each repeat deletes, by a hash of the ids."""
    ids = case.setup.source.ids[case.cast.asked]
    models = range(case.exact.models)
    drawn = [datasets.hash_uniform(ids, f"{Hash.DELETED_BY}{model}", case.seed).argmin() for model in models]
    return case.cast.asked[drawn]


# --- Training and healing ---------------------------------------------------------------------------------------------


def train_fleet(case: Case, fleet: Fleet, jobs: Sequence[Job] | None = None, kept: Nodes | None = None) -> Nodes:
    """Train what is not kept of all nodes, or of the given ones, which come parents first."""
    trained = dict(kept or {})
    if jobs is None:
        jobs = [(model, node) for node in fleet.setup.plan.nodes for model in range(len(fleet.member))]
    jobs = [job for job in jobs if job not in trained]
    for call in schedule.build(fleet.setup, arranged(case, fleet), jobs, lambda model, node: trained[model, node]):
        trained.update(call.nodes)
        progress.advance(sum(case.kind.passes(node) for (_, node), _ in call.nodes))
    return trained


def arranged(case: Case, fleet: Fleet) -> Slices:
    """Every model's own examples in the compartments of its slices."""
    ids, (shape, *_) = case.setup.source.ids, fleet.setup.shapes
    parts = []
    for member, slice_of in zip(fleet.member, fleet.slice_of, strict=True):
        rows = np.flatnonzero(member)
        where = Places(np.zeros(len(rows), np.int32), slice_of[rows])
        parts.append(arrangement.arrange(case.x[rows], case.y[rows], ids[rows], where, 1, shape.slices, shape.capacity))
    return Slices(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def heal(case: Case, fleet: Fleet, trained: Nodes, gone: np.ndarray) -> Nodes:
    """The nodes after examples are deleted and the nodes that held one are trained again.

    Args:
      gone: [models, training examples] bool, whom each model is asked to delete.
    """
    hit = hits(fleet, gone)
    kept = {(model, node): owns for (model, node), owns in trained.items() if hit[model].isdisjoint(node)}
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


def answers(case: Case, fleet: Fleet, trained: Nodes, chosen: Sequence[Node]) -> Answers:
    """Of one node of each model; a model without a node says nothing.

    Raises:
      UserError: logits that are not finite.
    """
    silence = Answers(np.full(len(case.x), -np.log(case.y.max())), np.zeros(len(case.x)), np.array(True))

    def ask(model: int, node: Node) -> Answers:
        return _answers(case, building.node_logits(fleet.setup, trained, model, node, case.x)) if node else silence

    found = list(processes.turns([functools.partial(ask, model, node) for model, node in enumerate(chosen)]))
    if failed := sum(not np.isfinite(one.margin).all() for one in found):
        part = "train" if case.name == "s3t" else "full_lora"
        raise UserError(
            f"{failed} of {len(found)} {case.name} models have logits that are not finite: lower "
            f"--config.{part}.learning_rate and use an empty --workdir"
        )
    return stacked(found)


def _answers(case: Case, logits: jax.Array) -> Answers:
    margin, correct = _reduced(logits, case.y)
    return Answers(np.asarray(margin), np.asarray(correct), np.array(False))


@jax.jit
def _reduced(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Margins, NaN where a logit is not finite, and who is right."""
    finite = jnp.isfinite(logits).all(axis=-1)
    return jnp.where(finite, losses.margin(logits, labels), jnp.nan), losses.correct(logits, labels)


def stacked(every: Sequence[Answers]) -> Answers:
    """On a new first axis; as float32, which is how they are kept."""
    return Answers(*(np.stack(leaves).astype(np.float32) for leaves in zip(*every, strict=True)))


def states(case: Case, fleet: Fleet, trained: Nodes) -> Answers:
    """[2^L, models, ...] what is served, by the bit mask of the slices that are off."""
    slices, by_node = fleet.setup.plan.slices, dict[Node, Answers]()
    served = [
        structure.served(fleet.setup.plan, [s for s in range(slices) if mask >> s & 1]) for mask in range(1 << slices)
    ]
    for node in dict.fromkeys(served):
        by_node[node] = answers(case, fleet, trained, [node] * len(fleet.member))
    return stacked([by_node[node] for node in served])


def worlds(fleet: Fleet, states: Answers) -> Worlds:
    """A fleet and what it serves, from `states`, as streams see it."""
    return Worlds(states.margin.astype(np.float64), structure.depth_table(fleet.setup.plan), fleet.slice_of)
