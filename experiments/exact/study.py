"""Accuracy against the number of deletions, from the logits of nodes that were trained once.

A shard's answer after deletions depends on the set of slices that were hit, so there are 2^L of them. With those tabled, a
stream is a path of bit masks and an ensemble's accuracy a look-up: thousands of streams cost less than training one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.configs.s3t import MOST_SLICES
from experiments.exact.scores import Target, Truth
from s3t.plans import planners, simulate, structure
from s3t.plans.simulate import Estimate
from s3t.plans.structure import Node, Plan
from s3t.service import ensemble

Logits = Mapping[tuple[int, Node], np.ndarray]  # (shard, node) -> [examples, classes]

AT_ONCE = 1 << 26  # logits that an ensemble of states holds at once
SIZED = ("cyclic", "bms", "conditional", "random")  # planners whose budget is a number of sequences


class Answers(NamedTuple):
    """What each shard says after every set of deleted slices.

    logits: [shards, 2^L, examples, classes (of text to predict, tokens)] float32; 0 where nothing survives.
    weight: [2^L] float, what the shard counts for in the ensemble; 0 where nothing survives.
    """

    logits: np.ndarray
    weight: np.ndarray


# --- Planners at equal FLOPs ------------------------------------------------------------------------------------------


def at_equal_flops(names: Sequence[str], slices: int, target: float) -> dict[str, Plan]:
    """The plan of each planner whose FLOPs (plain) come nearest to `target`; of those with one size, that one.

    Args:
      names: of `planners.PLANNERS`.
      slices: L.
      target: FLOPs per epoch, in the unit of `plan.node_flops`.

    Raises:
      ValueError: an unknown planner.
    """
    if unknown := sorted(set(names) - planners.PLANNERS.keys()):
        raise ValueError(f"planner {unknown[0]!r} is unknown; choose from {', '.join(planners.PLANNERS)}")
    return {name: _nearest(name, slices, target) for name in names}


def _nearest(name: str, slices: int, target: float) -> Plan:
    make = planners.PLANNERS[name]
    if name not in SIZED:
        return make(slices, max(target, structure.node_flops((0,), slices)), None)
    best = make(slices, 1, None)
    budget = 2
    while True:
        try:
            larger = make(slices, budget, None)
        except ValueError:  # there are no more sequences than that
            return best
        if abs(structure.flops(larger) - target) > abs(structure.flops(best) - target):
            return best
        best, budget = larger, budget + 1


def union(some: Sequence[Plan]) -> Plan:
    """The smallest plan that holds all given ones."""
    return structure.make_plan(some[0].slices, [node for plan in some for node in plan.nodes])


# --- What is served ---------------------------------------------------------------------------------------------------


def answers(plan: Plan, logits: Logits, shards: int, aggregate: str) -> Answers:
    """The table of what every shard says after every set of deleted slices.

    Args:
      plan: of every shard.
      logits: of all its nodes.
      shards: m.
      aggregate: one of `ensemble.AGGREGATES`, which see; the shard's logits are the mean of those of the nodes that answer.

    Raises:
      ValueError: more slices than can be tabled.
    """
    if plan.slices > MOST_SLICES:
        raise ValueError(f"a study tables all sets of deleted slices: at most {MOST_SLICES} slices, got {plan.slices}")
    shape = next(iter(logits.values())).shape
    table = Answers(np.zeros((shards, 1 << plan.slices, *shape), np.float32), np.zeros(1 << plan.slices))
    for mask in range(1 << plan.slices):
        alive = structure.survivors(plan, [s for s in range(plan.slices) if mask >> s & 1])
        if not alive:
            continue
        speaking = ensemble.answering(plan, alive, aggregate)
        table.weight[mask] = len(speaking[0]) if aggregate == "depth" else 1
        for shard in range(shards):
            table.logits[shard, mask] = np.mean([logits[shard, node] for node in speaking], axis=0)
    return table


def scores(table: Answers, states: np.ndarray, target: Target | Truth) -> np.ndarray:
    """The ensemble's mean score in each state: of the shards' weighted mean of answers.

    Args:
      table: from `answers`.
      states: [..., shards] int, bit masks of the deleted slices.
      target: what the examples' answers are held against.

    Returns:
      [...] float.
    """
    rows, where = np.unique(states.reshape(-1, states.shape[-1]), axis=0, return_inverse=True)
    shards = np.arange(states.shape[-1])
    calls = 1 + rows.size * table.logits[0, 0].size // AT_ONCE
    found = []
    for part in np.array_split(rows, min(calls, len(rows))):
        weight = table.weight[part]
        summed = np.einsum("rs,rsec->rec", weight, table.logits[shards, part])
        found.append(target.of(summed, weight.sum(axis=1)))
    return np.concatenate(found)[where.reshape(-1)].reshape(states.shape[:-1])


# --- Streams ----------------------------------------------------------------------------------------------------------


def masks(first: np.ndarray, requests: Sequence[int] | np.ndarray) -> np.ndarray:
    """[streams, len(requests), shards] bit masks of the slices that so many requests have hit.

    Args:
      first: [streams, shards, slices] the request that hits each slice first, from `s3t.plans.simulate`.
      requests: after how many.
    """
    hit = first[:, None] <= np.asarray(requests)[:, None, None]
    return hit @ (1 << np.arange(first.shape[-1]))


def judge(plan: Plan, table: Answers, first: np.ndarray, requests: Sequence[int], target: Target) -> dict[str, Any]:
    """A plan under streams of deletions, as plain numbers.

    Args:
      plan: of every shard.
      table: what it answers.
      first: [streams, shards, slices] first hits, at least two streams.
      requests: after how many deletions to look.
      target: what answers are held against.

    Returns:
      requests; accuracy (or loss, as the target is called), depth (mean over shards) and alive (share of streams with a
      model), each {"mean", "low", "high"} with 95% intervals over streams, one entry per request; deletions_to_rebuild and
      deletions_to_first_dead_shard, a number each for mean, low and high.
    """
    lost = simulate.falls(plan, first)
    states = masks(first, requests)
    depth = simulate.depths(lost, requests)
    return {
        "requests": list(requests),
        target.name: shown(simulate.estimate(scores(table, states, target))),
        "depth": shown(simulate.estimate(depth.mean(axis=1))),
        "alive": shown(simulate.estimate((depth > 0).any(axis=1).astype(float))),
        "deletions_to_rebuild": shown(simulate.estimate(simulate.deletions_to_rebuild(lost))),
        "deletions_to_first_dead_shard": shown(simulate.estimate(simulate.deletions_to_first_dead_shard(lost))),
    }


def shown(found: Estimate) -> dict[str, Any]:
    """An estimate as plain numbers."""
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()}
