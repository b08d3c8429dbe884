"""Plans for a shard: how many nodes to train, and which.

Every planner is a function (slices, budget, prior) -> Plan. `budget` is B, a number of sequences; for `greedy` it is FLOPs.
A planner whose plan has one size has no use for a budget, one that treats all slices alike none for a prior: they
disregard it, but a malformed one is refused by all.

`sisa`, `cyclic`, `bms`, `conditional`, `random` and `full` are those of S3T (Chowdhury et al., 2406.16257); the others
follow from survival being a matter of a node's set and not of its order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from s3t.plans.budgets import Budget, Prior, check, check_size, count_sequences
from s3t.plans.lazy_greedy import greedy
from s3t.plans.structure import Node, Plan, as_prior, make_plan

PAPER_HITS = 100  # t of the paper's score, as in its code


# --- From the paper ---------------------------------------------------------------------------------------------------


def sisa(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """One sequence, as in SISA: when its first slice is hit the shard is lost."""
    check(slices, budget, prior)
    return make_plan(slices, [range(slices)])


def cyclic(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """B rotations of one sequence; for B > L, rotations of what follows their first slice, their second, and so on.

    Sequence b has the digits of b in the mixed radix L, L-1, ..., least digit first; digit n says by how much to rotate
    what follows the first n slices. So the L! sequences are distinct, B <= L of them form rows of a Latin square, and
    tops differ in count by at most 1. For B < L the tops are spread evenly over 0..L-1, which serves deeper than
    neighbours do. `budget` defaults to L.

    Raises:
      ValueError: B > L!, or not a whole number from 1 on.

    Source: iterative cyclic rotation of 2406.16257, balanced over tops.
    """
    check(slices, budget, prior)
    count = count_sequences(budget, slices, math.factorial(slices))
    tops = [i * slices // count for i in range(count)] if count < slices else list(range(slices))

    def sequence(b: int) -> Node:
        b, first = divmod(b, len(tops))
        order = _rotated(tuple(range(slices)), tops[first])
        for n in range(1, slices - 1):
            b, digit = divmod(b, slices - n)
            order = order[:n] + _rotated(order[n:], digit)
        return order

    return make_plan(slices, map(sequence, range(count)))


def bms(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """The best B <= L of L sequences grown by bipartite matching under a prior.

    From the L single slices, each of L - 1 rounds appends one slice to every sequence, each slice to one sequence, so that
    the sum of scores grows most: a maximum-weight perfect matching, which exists because the graph of permitted pairs is
    regular. No two sequences have a slice at the same position. `budget` defaults to L.

    Raises:
      ValueError: B > L.

    Source: bipartite-matching selection of 2406.16257; O(L^4).
    """
    from scipy.optimize import linear_sum_assignment  # half a second, which only this planner should cost

    check(slices, budget, prior)
    if budget is not None and budget > slices:
        raise ValueError(f"bms makes at most {slices} sequences of {slices} slices, got budget {budget:g}: use conditional")
    count = count_sequences(budget, slices, slices)
    p = as_prior(slices, prior)
    orders: list[Node] = [(s,) for s in range(slices)]
    for position in range(2, slices + 1):
        gain = position * _survival(p[list(orders)].sum(axis=1)[:, None] + p)
        for row, order in enumerate(orders):
            gain[row, list(order)] = -np.inf  # not twice in one sequence
        columns = linear_sum_assignment(gain, maximize=True)[1]
        orders = [(*order, int(s)) for order, s in zip(orders, columns, strict=True)]
    return make_plan(slices, sorted(orders, key=lambda order: -score(order, p))[:count])


def score(sequence: Sequence[int], prior: Sequence[float] | np.ndarray, hits: int = PAPER_HITS) -> float:
    """The paper's score of a sequence, sum over i = 1..L of i (1 - c_i)^t with c_i the prior of the first i slices.

    It is called the expected number of functioning slices there; that number is the same sum without the factor i.

    Args:
      sequence: slice numbers.
      prior: [L] probabilities.
      hits: t.
    """
    survival = _survival(np.cumsum(np.asarray(prior)[list(sequence)]), hits)
    return float(np.arange(1, len(survival) + 1) @ survival)


def conditional(slices: int, budget: Budget = None, prior: Prior = None, *, seed: int = 0) -> Plan:
    """B distinct sequences whose slices are drawn without replacement with weights 1 - p. `budget` defaults to L.

    Raises:
      ValueError: B > L!, or a prior so concentrated that B distinct sequences do not turn up.

    Source: conditional sampling of 2406.16257.
    """
    check(slices, budget, prior)
    count = count_sequences(budget, slices, math.factorial(slices))
    return make_plan(slices, _drawn(1 - as_prior(slices, prior), count, seed))


def random(slices: int, budget: Budget = None, prior: Prior = None, *, seed: int = 0) -> Plan:
    """B distinct sequences, uniform over all. `budget` defaults to L.

    Raises:
      ValueError: B > L!.
    """
    check(slices, budget, prior)
    count = count_sequences(budget, slices, math.factorial(slices))
    return make_plan(slices, _drawn(np.ones(slices), count, seed))


def full(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """All L! sequences."""
    check(slices, budget, prior)
    check_size(3 * math.factorial(slices))  # e L! nodes
    return make_plan(slices, itertools.permutations(range(slices)))


# --- From sets --------------------------------------------------------------------------------------------------------


def stumps(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """One sequence, and every other slice alone: the shard has a model until all L slices are hit.

    That is all that B = L rotations give to the number of deletions until a rebuild. Under a prior the sequence begins
    with the slice least likely to be hit.
    """
    check(slices, budget, prior)
    order = np.argsort(as_prior(slices, prior), kind="stable")
    return make_plan(slices, [order, *([s] for s in range(slices))])


def lattice(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """Every subset of slices once, in ascending order: depth L - |X| after any deletions X.

    Nothing serves deeper, and no plan that does as much has fewer nodes than these 2^L - 1.
    """
    check(slices, budget, prior)
    check_size(2**slices)
    return make_plan(slices, (s for size in range(1, slices + 1) for s in itertools.combinations(range(slices), size)))


def chains(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """C(L, floor(L/2)) full sequences whose prefixes are all subsets: depth L - |X| after any deletions X.

    The subsets of L slices split into that many symmetric chains, one per subset with as many elements as fewest any of its
    chain; a chain that goes up one slice at a time is the middle of a full sequence.

    Source: the bracketing of Greene and Kleitman (1976): slices in a bottom set are ")", others "(", and the chain adds
      the unmatched "(" from left to right.
    """
    check(slices, budget, prior)
    check_size(math.comb(slices, slices // 2) * slices)
    return make_plan(slices, (bottom + opened + matched for bottom, matched, opened in _brackets(slices)))


Planner = Callable[[int, Budget, Prior], Plan]

PLANNERS: dict[str, Planner] = {
    "sisa": sisa,
    "cyclic": cyclic,
    "bms": bms,
    "conditional": conditional,
    "random": random,
    "full": full,
    "stumps": stumps,
    "lattice": lattice,
    "chains": chains,
    "greedy": greedy,
}


# --- Parts ------------------------------------------------------------------------------------------------------------


def _rotated(order: Node, by: int) -> Node:
    return order[by:] + order[:by]


def _survival(hit: np.ndarray, hits: int = PAPER_HITS) -> np.ndarray:
    """(1 - c)^t, where rounding may have taken c above 1."""
    chance: np.ndarray = np.maximum(1 - hit, 0) ** hits
    return chance


def _drawn(weights: np.ndarray, count: int, seed: int) -> Iterator[Node]:
    """`count` distinct orders drawn without replacement by weight: each slice runs an exponential race at its rate."""
    rng = np.random.default_rng(seed)
    sequences: dict[Node, None] = {}
    # The rarest of L! equally likely orders turns up after about L! log(L!) draws; L <= 9 by the limit on nodes.
    for _ in range(100):
        race = rng.standard_exponential((count + 10, len(weights)))
        times = np.divide(race, weights, out=np.full_like(race, np.inf), where=weights > 0)
        sequences.update((tuple(order), None) for order in np.argsort(times, axis=1, kind="stable").tolist())
        if len(sequences) >= count:
            return itertools.islice(sequences, count)
    raise ValueError(
        f"the prior is so concentrated that {len(sequences)} distinct sequences turned up: ask for fewer than {count}"
    )


def _brackets(slices: int) -> Iterator[tuple[Node, Node, Node]]:
    """Every bottom of a symmetric chain: (its ")", the "(" they match, the unmatched "(")."""

    def extend(s: int, closed: Node, matched: Node, opened: Node) -> Iterator[tuple[Node, Node, Node]]:
        if s == slices:
            yield closed, matched, opened
            return
        yield from extend(s + 1, closed, matched, (*opened, s))
        if opened:
            yield from extend(s + 1, (*closed, s), (*matched, opened[-1]), opened[:-1])

    return extend(0, (), (), ())
