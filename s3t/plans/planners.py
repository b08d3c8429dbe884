"""Plans for a shard: how many nodes to train, and which.

Every planner is a function (slices, budget, prior) -> Plan. `budget` is B, a number of sequences; for `greedy` it is FLOPs.
A planner whose plan has one size has no use for a budget, one that treats all slices alike none for a prior: they
disregard it, but a malformed one is refused by all.

`sisa`, `cyclic`, `bms`, `conditional`, `random` and `full` are those of S3T (Chowdhury et al., 2406.16257); the others
follow from survival being a matter of a node's set and not of its order.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from s3t.plans.structure import Node, Plan, as_prior, make_plan, mask_of, node_flops, subset_sums

Budget = float | None
Prior = Sequence[float] | None

MOST = 256  # slices of a shard: each comes with at least one block of the backbone
LARGEST = 1_000_000  # nodes of a plan; more is a mistake and not a plan
GREEDY = 16  # slices up to which `greedy` enumerates deletion sets
HITS = 5  # deletions per slice that `greedy` looks ahead to
PAPER_HITS = 100  # t of the paper's score, as in its code


# --- From the paper ---------------------------------------------------------------------------------------------------


def sisa(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """One sequence, as in SISA: when its first slice is hit the shard is lost."""
    _check(slices, budget, prior)
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
    _check(slices, budget, prior)
    count = _count(budget, slices, math.factorial(slices))
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

    _check(slices, budget, prior)
    if budget is not None and budget > slices:
        raise ValueError(f"bms makes at most {slices} sequences of {slices} slices, got budget {budget:g}: use conditional")
    count = _count(budget, slices, slices)
    p = as_prior(slices, prior)
    orders: list[Node] = [(s,) for s in range(slices)]
    for position in range(2, slices + 1):
        gain = position * _kept(p[list(orders)].sum(axis=1)[:, None] + p)
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
    kept = _kept(np.cumsum(np.asarray(prior)[list(sequence)]), hits)
    return float(np.arange(1, len(kept) + 1) @ kept)


def conditional(slices: int, budget: Budget = None, prior: Prior = None, *, seed: int = 0) -> Plan:
    """B distinct sequences whose slices are drawn without replacement with weights 1 - p. `budget` defaults to L.

    Raises:
      ValueError: B > L!, or a prior so concentrated that B distinct sequences do not turn up.

    Source: conditional sampling of 2406.16257.
    """
    _check(slices, budget, prior)
    count = _count(budget, slices, math.factorial(slices))
    return make_plan(slices, _drawn(1 - as_prior(slices, prior), count, seed))


def random(slices: int, budget: Budget = None, prior: Prior = None, *, seed: int = 0) -> Plan:
    """B distinct sequences, uniform over all. `budget` defaults to L.

    Raises:
      ValueError: B > L!.
    """
    _check(slices, budget, prior)
    count = _count(budget, slices, math.factorial(slices))
    return make_plan(slices, _drawn(np.ones(slices), count, seed))


def full(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """All L! sequences."""
    _check(slices, budget, prior)
    _fits(3 * math.factorial(slices))  # e L! nodes
    return make_plan(slices, itertools.permutations(range(slices)))


# --- From sets --------------------------------------------------------------------------------------------------------


def stumps(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """One sequence, and every other slice alone: the shard has a model until all L slices are hit.

    That is all that B = L rotations give to the number of deletions until a rebuild. Under a prior the sequence begins
    with the slice least likely to be hit.
    """
    _check(slices, budget, prior)
    order = np.argsort(as_prior(slices, prior), kind="stable")
    return make_plan(slices, [order, *([s] for s in range(slices))])


def lattice(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """Every subset of slices once, in ascending order: depth L - |X| after any deletions X.

    Nothing serves deeper, and no plan that does as much has fewer nodes than these 2^L - 1.
    """
    _check(slices, budget, prior)
    _fits(2**slices)
    return make_plan(slices, (s for size in range(1, slices + 1) for s in itertools.combinations(range(slices), size)))


def chains(slices: int, budget: Budget = None, prior: Prior = None) -> Plan:
    """C(L, floor(L/2)) full sequences whose prefixes are all subsets: depth L - |X| after any deletions X.

    The subsets of L slices split into that many symmetric chains, one per subset with as many elements as fewest any of its
    chain; a chain that goes up one slice at a time is the middle of a full sequence.

    Source: the bracketing of Greene and Kleitman (1976): slices in a bottom set are ")", others "(", and the chain adds
      the unmatched "(" from left to right.
    """
    _check(slices, budget, prior)
    _fits(math.comb(slices, slices // 2) * slices)
    return make_plan(slices, (bottom + opened + matched for bottom, matched, opened in _brackets(slices)))


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
    _check(slices, budget, prior)
    if slices > GREEDY:
        raise ValueError(f"greedy enumerates every deletion set: at most {GREEDY} slices, got {slices}; use stumps")
    if budget is None:
        full_cost = math.fsum(node_flops(tuple(range(d)), slices) for d in range(1, slices + 1))
        raise ValueError(f"greedy needs a budget in FLOPs per epoch; one full sequence costs {full_cost:.6g}")
    curve = np.arange(slices + 1.0) if quality is None else np.asarray(quality, np.float64)
    if curve.shape != (slices + 1,) or not np.isfinite(curve).all():
        raise ValueError(f"quality needs a finite number for each depth from 0 to {slices}")
    shares = None if sizes is None else as_prior(slices, sizes).tolist()
    if shares is not None and min(shares) == 0:
        raise ValueError("greedy plans slices that hold examples: leave the empty ones out")
    visits = _visits(as_prior(slices, shares if prior is None else prior), HITS * slices if hits is None else hits)
    nodes = _grown(slices, float(budget), shares, curve, visits)
    if not nodes:
        cheapest = min(node_flops((s,), slices, shares) for s in range(slices))
        raise ValueError(f"a budget of {budget:g} FLOPs trains no node: the cheapest costs {cheapest:.6g}")
    return make_plan(slices, nodes)


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


def _check(slices: int, budget: Budget, prior: Prior) -> None:
    if not 1 <= slices <= MOST:
        raise ValueError(f"a shard has 1 to {MOST} slices, got {slices}")
    as_prior(slices, prior)
    if budget is not None and not 0 < budget < math.inf:
        raise ValueError(f"a budget must be positive, got {budget:g}")


def _count(budget: Budget, slices: int, most: int) -> int:
    """The budget as a number of sequences, L by default."""
    count = slices if budget is None else int(budget)
    if budget is not None and count != budget:
        raise ValueError(f"a budget of sequences is a whole number, got {budget:g}")
    if count > most:
        raise ValueError(f"only {most} sequences of {slices} slices are distinct, got budget {count:g}")
    _fits(count * slices)
    return count


def _fits(nodes: int) -> None:
    if nodes > LARGEST:
        raise ValueError(f"this plan could hold more than {LARGEST:,} nodes: use fewer slices or sequences, or stumps")


def _rotated(order: Node, by: int) -> Node:
    return order[by:] + order[:by]


def _kept(hit: np.ndarray, hits: int = PAPER_HITS) -> np.ndarray:
    """(1 - c)^t, where rounding may have taken c above 1."""
    return np.maximum(1 - hit, 0) ** hits


def _drawn(weights: np.ndarray, count: int, seed: int) -> Iterator[Node]:
    """`count` distinct orders drawn without replacement by weight: each slice runs an exponential race at its rate."""
    rng = np.random.default_rng(seed)
    found: dict[Node, None] = {}
    # The rarest of L! equally likely orders turns up after about L! log(L!) draws; L <= 9 by the limit on nodes.
    for _ in range(100):
        race = rng.standard_exponential((count + 10, len(weights)))
        times = np.divide(race, weights, out=np.full_like(race, np.inf), where=weights > 0)
        found.update((tuple(order), None) for order in np.argsort(times, axis=1, kind="stable").tolist())
        if len(found) >= count:
            return itertools.islice(found, count)
    raise ValueError(
        f"the prior is so concentrated that {len(found)} distinct sequences turned up: ask for fewer than {count}"
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


def _grown(slices: int, left: float, shares: Sequence[float] | None, curve: np.ndarray, visits: np.ndarray) -> list[Node]:
    """The nodes that `greedy` takes, in its order, with `left` FLOPs to spend."""
    masks = np.arange(1 << slices)
    best = np.full(len(masks), curve[0])
    seen: set[int] = set()
    chosen: list[Node] = []
    queue: list[tuple[float, Node]] = []

    def rated(node: Node) -> tuple[float, Node]:
        lives = masks & mask_of(node) == 0
        gain = visits[lives] @ np.maximum(curve[len(node)] - best[lives], 0)
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


def _visits(prior: np.ndarray, hits: int) -> np.ndarray:
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
