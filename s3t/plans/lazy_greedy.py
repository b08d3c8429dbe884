"""A plan for a budget in FLOPs: node after node, the one that adds most expected served quality per FLOP."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from s3t.plans.budgets import Budget, Prior, check
from s3t.plans.structure import Node, Plan, as_prior, make_plan, mask_of, node_flops, subset_sums

MOST_SLICES = 16  # all deletion sets are enumerated
HITS = 5  # deletions per slice that are looked ahead to


def greedy(
    slices: int,
    budget: Budget = None,
    prior: Prior = None,
    *,
    sizes: Sequence[float] | None = None,
    quality: Sequence[float] | None = None,
    hits: int | None = None,
) -> Plan:
    """Node after node, the one that adds most expected served quality per FLOP, until the budget is spent.

    With W(X) the expected number of times that exactly X is gone, at the start and after each of t deletions, the aim is
    the sum over X of W(X) F(depth served after X). A node adds the sum over X disjoint from it of W(X) max(0, F(its
    depth) - best so far at X). As the plan grows that only shrinks, so a stale value is an upper bound and only the top of
    the queue is computed anew. Children of chosen nodes are candidates, one for each set of slices.

    Args:
      slices: L, at most 16.
      budget: FLOPs per epoch without cached prefixes, in the unit of `node_flops`; one full sequence of equal slices
        costs sum over d of (d/L)(1 + d/L). Needed.
      prior: probability that a deletion hits each slice; by default its size.
      sizes: share of the shard's examples in each slice; 1/L each if None.
      quality: [L + 1] F, quality served at depths 0..L; the depth itself if None. Below a node that adds nothing, none
        is trained.
      hits: t, deletions from this shard to look ahead to; 5 per slice if None.

    Raises:
      ValueError: no budget, or one below the cheapest node; more than 16 slices; sizes or quality of the wrong form.
    """
    check(slices, budget, prior)
    if slices > MOST_SLICES:
        raise ValueError(f"greedy enumerates every deletion set: at most {MOST_SLICES} slices, got {slices}; use stumps")
    if budget is None:
        full_cost = math.fsum(node_flops(tuple(range(d)), slices) for d in range(1, slices + 1))
        raise ValueError(f"greedy needs a budget in FLOPs per epoch; one full sequence costs {full_cost:.6g}")
    curve = np.arange(slices + 1.0) if quality is None else np.asarray(quality, np.float64)
    if curve.shape != (slices + 1,) or not np.isfinite(curve).all():
        raise ValueError(f"quality needs a finite number for each depth from 0 to {slices}")
    shares = None if sizes is None else as_prior(slices, sizes).tolist()
    if shares is not None and min(shares) == 0:
        raise ValueError("greedy plans slices that hold examples: leave the empty ones out")
    expected_visits = visits(as_prior(slices, shares if prior is None else prior), HITS * slices if hits is None else hits)
    nodes = _grown(slices, float(budget), shares, curve, expected_visits)
    if not nodes:
        cheapest = min(node_flops((s,), slices, shares) for s in range(slices))
        raise ValueError(f"a budget of {budget:g} FLOPs trains no node: the cheapest costs {cheapest:.6g}")
    return make_plan(slices, nodes)


def _grown(slices: int, left: float, shares: Sequence[float] | None, curve: np.ndarray, expected: np.ndarray) -> list[Node]:
    """The nodes that `greedy` takes, in its order, with `left` FLOPs to spend."""
    masks = np.arange(1 << slices)
    best = np.full(len(masks), curve[0])
    seen: set[int] = set()
    chosen: list[Node] = []
    queue: list[tuple[float, Node]] = []

    def rated(node: Node) -> tuple[float, Node]:
        lives = masks & mask_of(node) == 0
        gain = expected[lives] @ np.maximum(curve[len(node)] - best[lives], 0)
        return -float(gain) / node_flops(node, slices, shares), node

    def offer(parent: Node) -> None:
        for node in ((*parent, s) for s in range(slices) if s not in parent):
            if mask_of(node) not in seen:
                seen.add(mask_of(node))
                heapq.heappush(queue, rated(node))

    offer(())
    while queue:
        fresh = rated(heapq.heappop(queue)[1])
        gain, node = fresh
        cost = node_flops(node, slices, shares)
        if cost > left + 1e-9 or gain == 0:
            continue  # it never comes back: budget and gain only shrink
        if queue and fresh > queue[0]:
            heapq.heappush(queue, fresh)
            continue
        chosen.append(node)
        left -= cost
        lives = masks & mask_of(node) == 0
        best[lives] = np.maximum(best[lives], curve[len(node)])
        offer(node)
    return chosen


def visits(prior: np.ndarray, hits: int) -> np.ndarray:
    """[2^L] expected number of the moments 0..t, in deletions, at which exactly the slices of a mask are gone."""
    stay = subset_sums(prior)  # a hit on what is gone already changes nothing
    chance = np.zeros(len(stay))
    chance[0] = 1
    total = chance.copy()
    for _ in range(hits):
        after = chance * stay
        for s, p in enumerate(prior):
            after.reshape(-1, 2, 1 << s)[:, 1] += chance.reshape(-1, 2, 1 << s)[:, 0] * p
        chance = after
        total += chance
    return total
