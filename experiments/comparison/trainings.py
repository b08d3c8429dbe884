"""The ways of training that a comparison holds side by side, each a fleet with one lane per seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.comparison.rehearsals import Prepared, Rehearsal
from experiments.core import sections
from experiments.core.keys import Purpose
from experiments.core.machines import fleet
from experiments.data.problem import Problem
from experiments.scoring import aims
from experiments.scoring.scorer import Scorer
from experiments.training import loop, neftune
from experiments.training.fleets import PER_STEP, PRIVATE, READY, Trainer, proxy_steps

LONGER = 1.4  # steps of equal FLOPs, per step

MATCHING = 2.0  # forget losses within this factor are called equal
Key = tuple[str, str]  # (training, variant)


class Fleet(NamedTuple):
    """One way's trained lanes, one per seed; `facts` are those of `results.Row`.

    lanes: of the program that trained it.  prepared: the request that it has rehearsed, if it has.
    """

    training: str
    variant: str
    trained: loop.Trained
    lanes: int
    cost: dict[str, float]
    facts: dict[str, Any]
    prepared: Prepared | None = None


class Plan(NamedTuple):
    """What a comparison trains.

    names: of the trainings.
    seeds: one lane each.
    told: positions in the training split that re-weighting is told may be forgotten.
    equal_flops: whether vanilla and re-weighting also train for as many FLOPs as readiness used.
    rehearsals: the default readiness, if it is trained, and its variants.
    proxies: whether requests ask proxies of the oracle for levels; rehearsals may, too.
    neftune: of the noise, if NEFTune is trained.
    """

    names: Sequence[str]
    seeds: range
    told: np.ndarray
    reweight: sections.Reweights
    dpsgd: sections.DPSGD
    equal_flops: bool
    rehearsals: Sequence[Rehearsal]
    proxies: bool = False
    neftune: sections.NEFTune = sections.NEFTune()

    @property
    def wants_proxies(self) -> bool:
        """Whether anybody asks a proxy of the oracle."""
        return self.proxies or any(one.proxies for one in self.rehearsals)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of what may be forgotten, by the variant of re-weighting."""
        others = {f"weight={weight:g}": weight for weight in self.reweight.others}
        return {"default": self.reweight.weight, **others} if "reweight" in self.names else {}


def find(fleets: Sequence[Fleet], name: str) -> Fleet:
    """The fleet of a training in its default variant."""
    return next(one for one in fleets if (one.training, one.variant) == (name, "default"))


def _together(plan: Plan) -> int:
    """How many ways differ in membership and weight alone: the oracles, vanilla and re-weightings."""
    return 2 + ("heldout_oracle" in plan.names) + len(plan.weights)


def most_lanes(plan: Plan) -> int:
    """How many models the largest fleet has."""
    return _together(plan) * len(plan.seeds)


def work(plan: Plan, steps: int) -> float:
    """What all trainings are expected to take, in steps of one model."""
    seeds, rehearsals = len(plan.seeds), len(plan.rehearsals)
    made = steps * (_together(plan) * seeds + PER_STEP) + rehearsals * READY * steps * (seeds + PER_STEP)
    if plan.equal_flops and rehearsals:
        made += LONGER * steps * (2 * seeds + PER_STEP)
    made += plan.wants_proxies * proxy_steps(steps) * (seeds + PER_STEP)
    made += (neftune.NAME in plan.names) * steps * (seeds + PER_STEP)
    return made + ("dpsgd" in plan.names) * PRIVATE * steps * (seeds + PER_STEP)


def count(plan: Plan) -> int:
    """How many ways of training there are in all."""
    longer = (1 + ("reweight" in plan.names)) if plan.equal_flops and plan.rehearsals else 0
    alone = ("dpsgd" in plan.names) + (neftune.NAME in plan.names)
    return _together(plan) + longer + alone + len(plan.rehearsals)


class Proxies(NamedTuple):
    """Models that never saw what may be forgotten, trained for a part of the steps, and what they say of levels.

    params: of all lanes.  level, single: [lanes, examples], a class's and each example's own.  flops: of one.
    """

    params: Any
    level: np.ndarray
    single: np.ndarray
    flops: float


def train_proxies(trainer: Trainer, scorer: Scorer, problem: Problem, plan: Plan) -> Proxies:
    """Proxies of the oracle, one for each seed, and the level of each example that may be forgotten."""
    told = plan.told
    member = np.ones(len(problem.dataset.train.id), bool)
    member[told] = False
    way = trainer.way(proxy_steps(trainer.section.steps))
    lanes = loop.make_lanes(plan.seeds, member, np.ones(len(member)), purpose=Purpose.PROXY)
    params = trainer.fleet(way, lanes, "proxy").params
    level, single = (aims.column(scorer.statistics, problem, params, told, alone) for alone in (False, True))
    return Proxies(params, level, single, trainer.cost(way, "proxy")["train_flops"])


def train_all(
    trainer: Trainer, scorer: Scorer, problem: Problem, plan: Plan, proxies: Proxies | None = None
) -> list[Fleet]:
    """Every way of the plan: ordinary ones as lanes of one program; readiness variants, DP-SGD and NEFTune on their own."""
    ways = plain_ways(plan, problem)
    weights = {("reweight", variant): {"weight": weight} for variant, weight in plan.weights.items()}
    plain = train_plain(trainer, "plain", trainer.section.steps, ways, weights)
    lanes, flops = ways["vanilla", "default"], plain[0].cost["step_flops"]
    ready = [train_readiness(trainer, rehearsal, lanes, flops, proxies) for rehearsal in plan.rehearsals]
    if ready:
        plain = _mark_matched(scorer, plain, ready[0])
    longer = _longer(trainer, plan, plain, ready[0], ways) if plan.equal_flops and ready else []
    private = [train_private(trainer, plan.dpsgd, lanes)] if "dpsgd" in plan.names else []
    noisy = [train_noisy(trainer, plan.neftune, lanes)] if neftune.NAME in plan.names else []
    return plain + longer + private + noisy + ready


def _longer(trainer: Trainer, plan: Plan, plain: list[Fleet], ready: Fleet, ways: Mapping[Key, loop.Lane]) -> list[Fleet]:
    """Vanilla and the matched re-weighting (the default one if none is), for as many FLOPs as readiness used."""
    matched = next((one.variant for one in plain if one.facts.get("matched")), "default")
    again = {("vanilla", "equal_flops"): ways["vanilla", "default"]}
    facts: dict[Key, dict[str, Any]] = {("vanilla", "equal_flops"): {"equal_flops": True}}
    if ("reweight", matched) in ways:
        name = "equal_flops" if matched == "default" else f"{matched} equal_flops"
        again["reweight", name] = ways["reweight", matched]
        facts["reweight", name] = {"equal_flops": True, "weight": plan.weights[matched]}
    steps = round(trainer.section.steps * ready.cost["train_flops"] / plain[0].cost["train_flops"])
    return train_plain(trainer, "equal_flops", steps, again, facts)


def plain_ways(plan: Plan, problem: Problem) -> dict[Key, loop.Lane]:
    """(training, variant) -> lanes, oracles first."""
    examples = len(problem.dataset.train.id)
    everyone, ones = np.ones(examples, bool), np.ones(examples)
    kept = everyone.copy()
    kept[problem.forget] = False
    lanes = functools.partial(loop.make_lanes, plan.seeds)

    def weighted(weight: float) -> loop.Lane:
        weights = ones.copy()
        weights[plan.told] = weight
        return lanes(everyone, weights)

    ways = {("oracle", "default"): lanes(kept, ones)}
    if "heldout_oracle" in plan.names:
        ways["heldout_oracle", "default"] = lanes(kept, ones, purpose=Purpose.HELDOUT_TRAINING)
    ways["vanilla", "default"] = lanes(everyone, ones)
    return ways | {("reweight", variant): weighted(weight) for variant, weight in plan.weights.items()}


def train_plain(
    trainer: Trainer, name: str, steps: int, ways: Mapping[Key, loop.Lane], facts: Mapping[Key, dict[str, Any]]
) -> list[Fleet]:
    """Train all lanes of all ways as one fleet, and give each way its own back, with its facts if it has any."""
    way, together = trainer.way(steps), fleet.concatenate(list(ways.values()))
    trained = trainer.fleet(way, together, name)
    spent = trainer.cost(way, name)
    fleets, start, total = [], 0, fleet.lane_count(together)
    for key, lanes in ways.items():
        part = slice(start, start := start + fleet.lane_count(lanes))
        own = loop.Trained(fleet.lane(trained.params, part), trained.seconds, trained.losses[:, part])
        fleets.append(Fleet(*key, own, total, spent, facts.get(key, {})))
    return fleets


def train_private(trainer: Trainer, dpsgd: sections.DPSGD, lanes: loop.Lane) -> Fleet:
    """DP-SGD, at the same steps."""
    way, name = trainer.private_way(dpsgd), trainer.private_name(dpsgd)
    trained = trainer.fleet(way, lanes, name)
    facts = trainer.guarantee(dpsgd, int(lanes.member.sum(axis=1).min()))
    return Fleet("dpsgd", "default", trained, fleet.lane_count(lanes), trainer.cost(way, name), facts)


def train_noisy(trainer: Trainer, section: sections.NEFTune, lanes: loop.Lane) -> Fleet:
    """NEFTune, at the same steps."""
    way, name = trainer.noisy_way(section.alpha), neftune.NAME
    trained, facts = trainer.fleet(way, lanes, name), {"alpha": section.alpha}
    return Fleet(name, "default", trained, fleet.lane_count(lanes), trainer.cost(way, name), facts)


def train_readiness(
    trainer: Trainer, rehearsal: Rehearsal, lanes: loop.Lane, step_flops: float, proxies: Proxies | None = None
) -> Fleet:
    """One variant of readiness; `step_flops` is what its ordinary steps cost. Proxies that it asks are part of its cost."""
    name = f"readiness-{rehearsal.variant}"
    asked = proxies if rehearsal.proxies else None
    if asked:
        lanes = lanes._replace(level=jnp.asarray(asked.single if rehearsal.single else asked.level))
    trained = trainer.fleet(rehearsal.way, lanes, name, rehearsal.pools)
    spent = trainer.rehearsing_cost(rehearsal.counted, rehearsal.pools, step_flops, name, rehearsal.proxies)
    if asked:
        spent = {**spent, "train_flops": spent["train_flops"] + asked.flops}
    return Fleet("readiness", rehearsal.variant, trained, fleet.lane_count(lanes), spent, {}, rehearsal.prepared)


def _mark_matched(scorer: Scorer, plain: list[Fleet], ready: Fleet) -> list[Fleet]:
    """Mark the re-weighting whose forget loss before the request is nearest to readiness's, on a log scale.

    None is marked if the nearest is more than a factor `MATCHING` off, or not finite: that would be no match.
    """

    def forget_loss(one: Fleet) -> float:
        """The mean over lanes that did not diverge."""
        _, losses = scorer.measure(one.trained.params, scorer.sets.forget)
        finite = np.isfinite(losses).all(axis=1)
        return float(losses[finite].mean()) if finite.any() else math.nan

    wanted = forget_loss(ready)

    def distance(one: Fleet) -> float:
        loss = forget_loss(one)
        apart = abs(math.log(loss / wanted)) if min(loss, wanted) > 0 else math.inf
        return math.inf if math.isnan(apart) else apart

    distances = {one.variant: distance(one) for one in plain if one.training == "reweight"}
    nearest = min(distances, key=distances.__getitem__, default=None)
    if nearest is None or distances[nearest] > math.log(MATCHING):
        return plain
    matched = ("reweight", nearest)
    return [
        one._replace(facts={**one.facts, "matched": True}) if (one.training, one.variant) == matched else one
        for one in plain
    ]
