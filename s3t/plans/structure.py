"""What is trained for one shard: a family of slice prefixes, what it costs, and what of it survives a deletion.

A node is an ordered tuple of slice numbers, trained on those slices in that order; its parent is the tuple without the
last. A plan is a set of nodes that holds the parent of each of its nodes. After deletions X of a shard a node lives
if and only if it shares no slice with X. Survival is a matter of the set, cost and training of the order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Node = tuple[int, ...]

EXACT = 20  # slices up to which all deletion sets are enumerated: 2^20 of them


class Plan(NamedTuple):
    """A parent-closed set of nodes of one shard, made by `make_plan`.

    slices: L, slices of the shard; a node of depth d owns the topmost d of as many slots.
    nodes: shallow before deep, then by slice numbers, so that a parent comes before its children.
    """

    slices: int
    nodes: tuple[Node, ...]


def make_plan(slices: int, sequences: Iterable[Iterable[int]]) -> Plan:
    """The smallest plan that holds the given sequences: they and all their prefixes.

    Args:
      slices: L.
      sequences: tuples of distinct slice numbers from 0 to L - 1, of any length from 1 on.

    Raises:
      ValueError: no sequence, an empty one, a repeated slice, or a slice that does not exist.
    """
    nodes: set[Node] = set()
    for sequence in sequences:
        node = tuple(int(s) for s in sequence)
        if not node or len(set(node)) < len(node) or not all(0 <= s < slices for s in node):
            raise ValueError(f"a sequence holds distinct slices from 0 to {slices - 1}, at least one: got {list(node)}")
        nodes.update(node[:depth] for depth in range(1, len(node) + 1))
    if not nodes:
        raise ValueError("a plan needs at least one sequence")
    return Plan(slices, tuple(sorted(nodes, key=lambda node: (len(node), node))))


def parent(node: Node) -> Node:
    """The node without its last slice; () for a node of depth 1."""
    return node[:-1]


def at_depth(plan: Plan, depth: int) -> tuple[Node, ...]:
    """The nodes of one depth: what one stage of training makes."""
    return tuple(node for node in plan.nodes if len(node) == depth)


def sequences(plan: Plan) -> tuple[Node, ...]:
    """The paths from root to leaf: every node without a child, in the plan's order."""
    parents = {parent(node) for node in plan.nodes}
    return tuple(node for node in plan.nodes if node not in parents)


# --- Cost -------------------------------------------------------------------------------------------------------------


def node_flops(node: Node, slices: int, sizes: Sequence[float] | None = None, cached: bool = False) -> float:
    """Cost of training one node for one epoch.

    The unit is one forward pass of all blocks over the shard's examples. A node of depth d trains the topmost d/L of the
    blocks on the share n of the examples that its slices hold. The backbone is frozen, so a backward pass costs as much
    as the forward pass of the blocks it goes through: n (1 + d/L), or 2 n d/L if the activations below the trained slot
    are cached. Filling the cache is one forward pass of all blocks over every example, once per build, and not in here.

    Args:
      node: the node.
      slices: L.
      sizes: share of the shard's examples in each slice; 1/L each if None.
      cached: whether the frozen prefix is cached.
    """
    examples = len(node) / slices if sizes is None else math.fsum(sizes[s] for s in node)
    blocks = len(node) / slices
    return examples * (2 * blocks if cached else 1 + blocks)


def flops(plan: Plan, sizes: Sequence[float] | None = None, cached: bool = False) -> float:
    """Cost of training all nodes of a shard's plan for one epoch each, in the unit of `node_flops`."""
    return math.fsum(node_flops(node, plan.slices, sizes, cached) for node in plan.nodes)


def storage_bytes(plan: Plan, slot_bytes: int, head_bytes: int = 0) -> int:
    """Bytes of a shard's adapters and head snapshots: a node owns one slot and one head, its parents' slots are shared."""
    return len(plan.nodes) * (slot_bytes + head_bytes)


# --- Deletion ---------------------------------------------------------------------------------------------------------


def survivors(plan: Plan, deleted: Iterable[int]) -> tuple[Node, ...]:
    """The nodes that hold none of the deleted slices, in the plan's order: parent-closed again, perhaps empty."""
    hit = set(deleted)
    return tuple(node for node in plan.nodes if hit.isdisjoint(node))


def served(plan: Plan, deleted: Iterable[int]) -> Node:
    """The deepest survivor, the first of the plan's order among equals; () if nothing survives."""
    return max(survivors(plan, deleted), key=len, default=())


def depth_served(plan: Plan, deleted: Iterable[int]) -> int:
    """Depth of the deepest survivor, 0 if the shard has no model left."""
    return len(served(plan, deleted))


def depth_table(plan: Plan) -> np.ndarray:
    """Depth served after every deletion set at once.

    With best[A] the depth of the deepest node inside A: best[A] is the depth of a node whose set is A, or if there is none
    the largest best[A without s] over s in A. The depth after X is best of the complement of X.

    Returns:
      [2^L] int64, indexed by the bit mask of the deleted slices.

    Raises:
      ValueError: more than 20 slices.
    """
    if plan.slices > EXACT:
        raise ValueError(f"exact depths enumerate every deletion set: at most {EXACT} slices, got {plan.slices}")
    best = np.zeros(1 << plan.slices, np.int64)
    for node in plan.nodes:
        best[mask_of(node)] = len(node)
    for s in range(plan.slices):
        without, within = np.moveaxis(best.reshape(-1, 2, 1 << s), 1, 0)
        np.maximum(within, without, out=within)
    depths: np.ndarray = best[::-1].copy()
    return depths


def expected_depths(plan: Plan, prior: Sequence[float] | None = None) -> tuple[float, ...]:
    """Expected depth served when the first j distinct slices have been hit, for j = 0..L, by exact enumeration.

    Args:
      plan: the plan.
      prior: probability that a request hits each slice; all alike if None. Slices of probability 0 are hit after all
        others, in any order.

    Raises:
      ValueError: more than 20 slices; a prior that `as_prior` refuses.
    """
    table = depth_table(plan)
    sizes = np.bitwise_count(np.arange(len(table)))
    if prior is None:  # whole numbers over whole numbers: no rounding but the last
        sums = np.bincount(sizes, table)
        return tuple(float(total) / math.comb(plan.slices, j) for j, total in enumerate(sums))
    chance = _first_hit_sets(as_prior(plan.slices, prior), sizes)
    return tuple(float(expected) for expected in np.bincount(sizes, table * chance))


def _first_hit_sets(prior: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[2^L] probability that the first |X| distinct slices hit are those of X: sampling without replacement.

    P[X] = sum over s in X of P[X without s] p_s / (1 - p(X without s)).
    """
    masks = np.arange(len(sizes))
    rest = subset_sums(prior)[::-1]  # of what is not in X; no difference from 1, which would lose small priors
    chance = np.zeros(len(sizes))
    chance[0] = 1
    for size in range(len(prior)):
        for s, p in enumerate(prior):
            before = masks[(sizes == size) & (masks >> s & 1 == 0)]
            left = rest[before]
            # Where only slices of probability 0 are left, they are alike.
            step = np.divide(p, left, out=np.full(len(before), 1 / (len(prior) - size)), where=left > 0)
            chance[before | 1 << s] += chance[before] * step
    return chance


# --- Priors and masks -------------------------------------------------------------------------------------------------


def as_prior(slices: int, prior: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """A prior over the slices of a shard, checked and scaled to sum to 1; uniform if None.

    Args:
      slices: L.
      prior: [L] probability that a request to this shard hits each slice.

    Raises:
      ValueError: not L numbers, a negative or non-finite one, or a sum further than 1e-6 from 1.
    """
    if prior is None:
        return np.full(slices, 1 / slices)
    values = np.asarray(prior, np.float64)
    if values.shape != (slices,):
        raise ValueError(f"a prior needs one probability for each of {slices} slices, got {values.size}")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"a prior holds no negative or non-finite probability, got {values.tolist()}")
    if abs(values.sum() - 1) > 1e-6:
        raise ValueError(f"a prior must sum to 1, got {values.sum():.9g}: divide by its sum")
    scaled: np.ndarray = values / values.sum()
    return scaled


def mask_of(node: Iterable[int]) -> int:
    """The set of a node's slices as the bits of an integer."""
    return sum(1 << s for s in node)


def subset_sums(values: np.ndarray) -> np.ndarray:
    """[2^L] sum of the values over every subset, indexed by its bit mask."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


# --- Summaries -------------------------------------------------------------------------------------------------------


def render(nodes: Iterable[Node]) -> str:
    """A plan's nodes as a tree of slice numbers, one line per node: a path from the left edge is a sequence."""
    children: dict[Node, list[Node]] = {}
    for node in nodes:
        children.setdefault(parent(node), []).append(node)

    def below(node: Node, indent: str) -> list[str]:
        lines = []
        family = children.get(node, [])
        for child in family:
            last = child is family[-1]
            lines.append(f"{indent}{'└─ ' if last else '├─ '}{child[-1]}")
            lines += below(child, indent + ("   " if last else "│  "))
        return lines

    return "\n".join(line for root in children[()] for line in [str(root[0]), *below(root, "")])


def summary(plan: Plan, prior: Sequence[float] | None = None) -> dict[str, Any]:
    """A plan as plain numbers, the object that `python -m s3t plan --json` prints.

    Returns:
      nodes, sequences (root to leaf), stages, flops_plain and flops_cached (per epoch, in the unit of `node_flops`), and
      depth_served, the expected depth by number of distinct slices gone; it is None above 20 slices.
    """
    exact = expected_depths(plan, prior) if plan.slices <= EXACT else None
    return {
        "nodes": [list(node) for node in plan.nodes],
        "sequences": [list(node) for node in sequences(plan)],
        "stages": len(plan.nodes),
        "flops_plain": flops(plan),
        "flops_cached": flops(plan, cached=True),
        "depth_served": exact and {str(j): depth for j, depth in enumerate(exact)},
    }
