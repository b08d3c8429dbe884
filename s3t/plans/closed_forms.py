"""Expected deletions and depths in closed form, for requests that hit slices independently of each other."""

from __future__ import annotations

import math

import numpy as np

from s3t.plans.structure import Plan, depth_table


def expected_rebuild(shards: int, slices: int, tops: int) -> float:
    """Expected requests until no shard has a model, uniform hits: m L H_{mB}, H_n the harmonic number.

    The system is dead when the m B distinct tops of m L slices are hit: the last coupons of a collector.

    Args:
      shards: m.
      slices: L.
      tops: B, nodes of depth 1 of each shard's plan.

    Source: 2406.16257 (a bound there); exact for independent hits with replacement.
    """
    return shards * slices * math.fsum(1 / i for i in range(1, shards * tops + 1))


def expected_rebuild_by_prior(prior: np.ndarray) -> float:
    """Expected requests until every given slice is hit, where a request hits slice i with probability p_i.

    In a Poisson process of one request per unit of time the hits on different slices are independent, and the expected
    time is the expected number: integral over t from 0 of 1 - prod_i (1 - exp(-p_i t)).

    Args:
      prior: probabilities of the slices that must be hit: the tops of all shards. Their sum may be below 1.
    """
    p = np.asarray(prior, np.float64).ravel()
    if not (p > 0).all():
        return math.inf
    # In x = log t the integrand is smooth and vanishes at both ends, where the trapezoid rule converges geometrically.
    x = np.linspace(math.log(1e-12 / p.sum()), math.log(60 / p.min()), 4001)
    survive = 1 - np.prod(-np.expm1(-p[:, None] * np.exp(x)), axis=0)
    return float(np.trapezoid(survive * np.exp(x), x))


def distinct_after(slices: int, hits: int) -> np.ndarray:
    """[L + 1] probability that r uniform hits on a shard fall on exactly j distinct slices: C(L, j) j! S2(r, j) / L^r."""
    chance = np.zeros(slices + 1)
    chance[0] = 1
    old = np.arange(slices + 1) / slices
    for _ in range(hits):
        chance = chance * old + np.concatenate([[0], (chance * (1 - old))[:-1]])
    return chance


def depth_distribution(plan: Plan, hits: int) -> np.ndarray:
    """[L + 1] probability of each depth served after `hits` uniform hits on a shard, by exact enumeration.

    The sum over j of P[j distinct slices hit] P[depth = d | the j slices are a random set]. If the plan holds every
    subset, P[depth >= k] is the sum over j <= L - k of the first factor alone.

    Raises:
      ValueError: more than 20 slices.
    """
    table = depth_table(plan)
    sizes = np.bitwise_count(np.arange(len(table)))
    counts = np.zeros((plan.slices + 1, plan.slices + 1))
    np.add.at(counts, (sizes, table), 1)
    chance: np.ndarray = distinct_after(plan.slices, hits) @ (counts / counts.sum(axis=1, keepdims=True))
    return chance
