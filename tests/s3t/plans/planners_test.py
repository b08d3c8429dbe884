"""Planners, by enumeration for up to six slices."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from s3t.plans import lazy_greedy, structure
from s3t.plans.planners import (
    PLANNERS,
    bms,
    chains,
    conditional,
    cyclic,
    full,
    greedy,
    lattice,
    random,
    score,
    sisa,
    stumps,
)

SLICES = range(1, 7)
UPTO6 = [(slices, budget) for slices in SLICES for budget in range(1, min(math.factorial(slices), 130) + 1)]


def budget_of(name, slices):
    """A budget that the planner accepts."""
    return {"greedy": 2 * slices, "sisa": 1}.get(name, min(3, slices))


def a_prior(slices, seed=0):
    return np.random.default_rng((slices, seed)).dirichlet(np.ones(slices)).tolist()


def complete(plan):
    """The sequences of full length."""
    return [node for node in plan.nodes if len(node) == plan.slices]


def deletion_sets(slices):
    return [set(x) for size in range(slices + 1) for x in itertools.combinations(range(slices), size)]


# one contract for all


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_gives_a_parent_closed_plan_and_the_same_one_again(name, slices):
    for prior in (None, a_prior(slices)):
        plan = PLANNERS[name](slices, budget_of(name, slices), prior)
        assert plan.slices == slices
        assert plan == structure.make_plan(slices, plan.nodes)  # nodes well-formed, closed, in order
        assert plan == PLANNERS[name](slices, budget_of(name, slices), prior)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize(
    "slices, budget, prior, message",
    [
        (3, 0, None, "positive"),
        (3, -1, None, "positive"),
        (3, float("nan"), None, "positive"),
        (3, float("inf"), None, "positive"),
        (3, 3, [0.5, 0.5], "for each of 3 slices"),
        (3, 3, [0.5, 0.5, 0.1], "sum to 1"),
        (3, 3, [1.5, -0.5, 0], "negative"),
        (0, 3, None, "1 to 256 slices"),
        (257, 3, None, "1 to 256 slices"),
    ],
)
def test_every_planner_refuses_a_malformed_budget_or_prior(name, slices, budget, prior, message):
    with pytest.raises(ValueError, match=message):
        PLANNERS[name](slices, budget, prior)


@pytest.mark.parametrize("planner", [cyclic, bms, conditional, random])
def test_sequences_are_counted_in_whole_numbers_and_default_to_one_per_slice(planner):
    assert planner(4) == planner(4, 4) == planner(4, 4.0)
    assert len(complete(planner(4, 3))) == 3
    with pytest.raises(ValueError, match="whole number"):
        planner(4, 2.5)


@pytest.mark.parametrize("planner, most", [(cyclic, 6), (conditional, 6), (random, 6), (bms, 3)])
def test_more_sequences_than_there_are(planner, most):
    assert len(complete(planner(3, most))) == most
    with pytest.raises(ValueError, match=f"{most} sequences of 3 slices"):
        planner(3, most + 1)


@pytest.mark.parametrize(
    "planner, slices, budget",
    [(full, 9, None), (lattice, 20, None), (chains, 19, None), (random, 12, 10**6), (full, 256, None)],
)
def test_a_plan_that_could_not_be_trained_is_refused(planner, slices, budget):
    with pytest.raises(ValueError, match="more than 1,000,000 nodes"):
        planner(slices, budget)


# cyclic


@pytest.mark.parametrize("slices, budget", UPTO6)
def test_rotations_are_distinct_and_their_tops_balanced(slices, budget):
    sequences = complete(cyclic(slices, budget))
    assert len(sequences) == budget
    tops = Counter(sequence[0] for sequence in sequences)
    assert len(tops) == min(budget, slices) and max(tops.values()) - min(tops.values()) <= 1


@pytest.mark.parametrize("slices, budget", [(slices, budget) for slices in SLICES for budget in range(1, slices + 1)])
def test_up_to_one_rotation_per_slice_they_are_rows_of_a_latin_square(slices, budget):
    for position in zip(*complete(cyclic(slices, budget)), strict=True):
        assert len(set(position)) == budget


def test_rotations_by_hand():
    assert complete(cyclic(4, 2)) == [(0, 1, 2, 3), (2, 3, 0, 1)]
    assert complete(cyclic(3, 6)) == complete(full(3))
    second = set(complete(cyclic(4, 8))) - set(complete(cyclic(4, 4)))
    assert second == {(0, 2, 3, 1), (1, 3, 0, 2), (2, 0, 1, 3), (3, 1, 2, 0)}  # what follows the first, turned by one


@pytest.mark.parametrize("slices", SLICES)
def test_all_rotations_are_all_sequences(slices):
    assert cyclic(slices, math.factorial(slices)) == full(slices)
    assert len(complete(full(slices))) == math.factorial(slices)


@pytest.mark.parametrize("slices", SLICES)
def test_one_rotation_per_slice_serves_the_longest_cyclic_gap(slices):
    plan = cyclic(slices, slices)
    for gone in deletion_sets(slices):
        ring = "".join("x" if s in gone else "." for s in range(slices))
        gap = max(map(len, (ring * 2).split("x"))) if gone else slices
        assert structure.depth_served(plan, gone) == gap


def test_the_spread_of_tops_serves_deeper_than_neighbours():
    assert structure.expected_depths(cyclic(4, 2))[1] == 2.5
    assert structure.expected_depths(structure.make_plan(4, [(0, 1, 2, 3), (1, 2, 3, 0)]))[1] == 2.25


# from sets


@pytest.mark.parametrize("slices", SLICES)
def test_lattice_holds_every_subset_once(slices):
    sets = [frozenset(node) for node in lattice(slices).nodes]
    assert len(sets) == len(set(sets)) == 2**slices - 1


@pytest.mark.parametrize("planner", [lattice, chains, full])
@pytest.mark.parametrize("slices", SLICES)
def test_nothing_serves_deeper_after_any_deletion(planner, slices):
    plan = planner(slices)
    for gone in deletion_sets(slices):
        assert structure.depth_served(plan, gone) == slices - len(gone)


@pytest.mark.parametrize("slices", [*SLICES, 7, 8])
def test_chains_are_as_few_full_sequences_as_can_be(slices):
    plan = chains(slices)
    assert structure.sequences(plan) == tuple(complete(plan))
    assert len(complete(plan)) == math.comb(slices, slices // 2)
    assert len({frozenset(node) for node in plan.nodes}) == 2**slices - 1


@pytest.mark.parametrize("slices", SLICES)
def test_stumps_hold_every_slice_alone_and_one_sequence(slices):
    plan = stumps(slices)
    assert len(plan.nodes) == 2 * slices - 1 and len(structure.at_depth(plan, 1)) == slices
    assert complete(plan) == complete(sisa(slices))


def test_under_a_prior_the_sequence_of_stumps_begins_with_what_is_least_likely_hit():
    assert complete(stumps(4, None, [0.3, 0.1, 0.2, 0.4])) == [(1, 2, 0, 3)]


# bms


def test_score_by_hand():
    assert score((0, 1), [0.2, 0.8], hits=1) == pytest.approx(0.8)
    assert score((0, 1, 2), [0.2, 0.3, 0.5], hits=2) == pytest.approx(0.64 + 2 * 0.25)
    assert score((2, 1, 0), [0.2, 0.3, 0.5], hits=1) == pytest.approx(0.5 + 2 * 0.2)
    assert score((0,), [1.0]) == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slices", SLICES)
def test_bms_sequences_differ_at_every_position(slices, seed):
    for position in zip(*complete(bms(slices, slices, a_prior(slices, seed))), strict=True):
        assert len(set(position)) == slices


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slices", [2, 3, 4, 5])
def test_bms_rounds_are_best_matchings(slices, seed):
    prior = a_prior(slices, seed)
    orders = [(s,) for s in range(slices)]
    for _ in range(slices - 1):
        grown = (
            [(*order, s) for order, s in zip(orders, chosen, strict=True)]
            for chosen in itertools.permutations(range(slices))
            if all(s not in order for order, s in zip(orders, chosen, strict=True))
        )
        orders = max(grown, key=lambda orders: sum(score(order, prior) for order in orders))
    best = sorted(orders, key=lambda order: score(order, prior), reverse=True)
    for budget in range(1, slices + 1):
        found = sorted((score(s, prior) for s in complete(bms(slices, budget, prior))), reverse=True)
        assert found == pytest.approx([score(s, prior) for s in best[:budget]], rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_bms_scores_at_least_what_rotations_do(seed):
    prior = a_prior(6, seed)
    matched, rotated = (sum(score(s, prior) for s in complete(planner(6, 6, prior))) for planner in (bms, cyclic))
    assert matched >= rotated


def test_bms_by_hand():
    # Each of two slices begins once; the best of both begins with the one less likely hit.
    assert complete(bms(2, 2, [0.02, 0.98])) == [(0, 1), (1, 0)] and complete(bms(2, 1, [0.02, 0.98])) == [(0, 1)]


# drawn sequences


def test_conditional_draws_without_replacement_by_weight():
    prior, draws = [0.7, 0.2, 0.1], 3000
    found = Counter(complete(conditional(3, 1, prior, seed=seed))[0] for seed in range(draws))
    weights = [0.3, 0.8, 0.9]
    expected = {
        order: weights[order[0]] / 2 * weights[order[1]] / (2 - weights[order[0]])
        for order in itertools.permutations(range(3))
    }
    assert sum(expected.values()) == pytest.approx(1)
    assert stats.chisquare([found[o] for o in expected], [draws * p for p in expected.values()]).pvalue > 1e-3


def test_random_is_uniform_and_its_seed_counts():
    found = Counter(complete(random(3, 1, [0.7, 0.2, 0.1], seed=seed))[0] for seed in range(3000))
    assert stats.chisquare([found[order] for order in itertools.permutations(range(3))]).pvalue > 1e-3
    assert random(6, 4) == random(6, 4, seed=0) != random(6, 4, seed=1)


@pytest.mark.parametrize("slices", SLICES)
def test_all_sequences_turn_up(slices):
    assert random(slices, math.factorial(slices)) == conditional(slices, math.factorial(slices)) == full(slices)


def test_a_prior_of_one_slice_leaves_few_sequences():
    assert complete(conditional(3, 2, [1, 0, 0])) == [(1, 2, 0), (2, 1, 0)]
    with pytest.raises(ValueError, match="2 distinct sequences turned up: ask for fewer than 3"):
        conditional(3, 3, [1, 0, 0])


# greedy


def worth(plan, prior, hits, quality):
    """Expected served quality, summed over the times before and after each of `hits` deletions, set by set."""
    chance = {frozenset(): 1.0}
    total = 0.0
    for _ in range(hits + 1):
        total += sum(p * quality[structure.depth_served(plan, gone)] for gone, p in chance.items())
        after = Counter()
        for gone, p in chance.items():
            for s in range(plan.slices):
                after[gone | {s}] += p * prior[s]
        chance = after
    return total


def slow_greedy(slices, budget, prior, sizes, quality, hits):
    """Every candidate's gain anew in every round."""
    chosen, sets, left = [], set(), budget
    best = worth(structure.Plan(slices, ()), prior, hits, quality)
    while True:
        rated = []
        for parent in [(), *chosen]:
            for node in ((*parent, s) for s in range(slices) if s not in parent):
                cost = structure.node_flops(node, slices, sizes)
                gain = worth(structure.Plan(slices, (*chosen, node)), prior, hits, quality) - best
                if frozenset(node) not in sets and cost <= left and gain > 1e-12:
                    rated.append((gain / cost, node, cost))
        if not rated:
            return sets
        _, node, cost = max(rated)
        chosen.append(node)
        sets.add(frozenset(node))
        left -= cost
        best = worth(structure.Plan(slices, tuple(chosen)), prior, hits, quality)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slices, budget", [(2, 2.0), (3, 1.5), (3, 4.0), (3, 99.0), (4, 3.3), (4, 8.0)])
def test_greedy_takes_what_a_slow_twin_takes(slices, budget, seed):
    rng = np.random.default_rng((slices, seed))
    prior, sizes = (rng.dirichlet(np.full(slices, 3.0)).tolist() for _ in range(2))
    quality = np.sort(rng.random(slices + 1)).tolist()
    plan = greedy(slices, budget, prior, sizes=sizes, quality=quality, hits=6)
    assert {frozenset(node) for node in plan.nodes} == slow_greedy(slices, budget, prior, sizes, quality, 6)
    assert structure.flops(plan, sizes) <= budget + 1e-9


def test_greedy_by_hand():
    # Two slices, one deletion ahead. Start: X = {} counts 1, then {0} with .8 and {1} with .2. A single slice costs .75,
    # both 2. Slice 1 alone serves 1 at {} and {0}: gain 1.8. Then slice 0 alone adds 1 at {1}: .2 / .75, and (1, 0) adds 1
    # at {}: 1 / 2, which is more.
    prior = [0.8, 0.2]
    assert greedy(2, 0.75, prior, hits=1).nodes == ((1,),)
    assert greedy(2, 2.75, prior, hits=1).nodes == ((1,), (1, 0))
    assert greedy(2, 2.74, prior, hits=1).nodes == ((0,), (1,))  # the pair is out of reach, the other slice is not
    assert greedy(2, 3.5, prior, hits=1).nodes == ((0,), (1,), (1, 0))
    # Where depth is worth nothing a second slice is not trained on.
    assert greedy(2, 9, prior, quality=[0, 1, 1]).nodes == ((0,), (1,))


@pytest.mark.parametrize("slices", SLICES)
def test_greedy_with_enough_budget_serves_as_deep_as_can_be(slices):
    plan = greedy(slices, structure.flops(lattice(slices)))
    assert {frozenset(node) for node in plan.nodes} == {frozenset(node) for node in lattice(slices).nodes}


@pytest.mark.parametrize("slices, budget", [(slices, budget) for slices in range(3, 7) for budget in range(1, slices + 1)])
def test_greedy_serves_deeper_than_rotations_of_equal_cost(slices, budget):
    rotations = cyclic(slices, budget)
    plan = greedy(slices, structure.flops(rotations))
    assert structure.flops(plan) <= structure.flops(rotations) + 1e-9
    visits = lazy_greedy.visits(structure.as_prior(slices, None), lazy_greedy.HITS * slices)
    best, found, rotated = (visits @ structure.depth_table(p) for p in (lattice(slices), plan, rotations))
    assert found > rotated or found == pytest.approx(best, rel=1e-12)


def families(slices):
    """Every family of sets in which each set of two or more has one of the family with one slice less."""
    sets = [frozenset(node) for node in lattice(slices).nodes]
    for chosen in itertools.product((False, True), repeat=len(sets)):
        family = {s for s, taken in zip(sets, chosen, strict=True) if taken}
        if all(len(s) == 1 or any(s - {x} in family for x in s) for s in family):
            yield family


def test_greedy_is_near_the_best_family_of_any_budget():
    ratios = []
    for seed, budget in itertools.product(range(4), np.arange(0.5, 7.5, 0.5)):
        prior = a_prior(3, seed)
        visits = lazy_greedy.visits(structure.as_prior(3, prior), 15)
        best = 0.0
        for family in families(3):
            plan = structure.Plan(3, tuple(tuple(s) for s in family))
            if structure.flops(plan) <= budget + 1e-9:
                best = max(best, float(visits @ structure.depth_table(plan)))
        ratios.append(float(visits @ structure.depth_table(greedy(3, budget, prior))) / best)
    assert max(ratios) == pytest.approx(1) and min(ratios) > 0.97


def test_greedy_takes_the_sizes_for_the_prior_unless_it_is_given():
    sizes = [0.6, 0.3, 0.1]
    assert greedy(3, 2, sizes=sizes) == greedy(3, 2, sizes, sizes=sizes)
    assert greedy(3, 0.2, sizes=sizes).nodes == ((2,),)  # the smallest slice is cheapest and least often hit


@pytest.mark.parametrize(
    "slices, budget, more, message",
    [
        (4, None, {}, "needs a budget in FLOPs per epoch; one full sequence costs 4.375"),
        (4, 0.3, {}, "trains no node: the cheapest costs 0.3125"),
        (17, 10, {}, "at most 16 slices"),
        (3, 10, {"quality": [0, 1, 2]}, "each depth from 0 to 3"),
        (3, 10, {"quality": [0, 1, 2, float("nan")]}, "finite"),
        (3, 10, {"sizes": [0.5, 0.6, 0.1]}, "sum to 1"),
        (3, 10, {"sizes": [0.5, 0.5, 0]}, "leave the empty ones out"),
    ],
)
def test_a_mistake_of_greedys_user_is_named(slices, budget, more, message):
    with pytest.raises(ValueError, match=message):
        greedy(slices, budget, **more)


def test_visits_by_hand():
    # Two slices at .75 and .25, two deletions: {} once, then {0} .75 and {1} .25, then {0} .5625, {1} .0625, both .375.
    assert lazy_greedy.visits(np.array([0.75, 0.25]), 2).tolist() == [1, 1.3125, 0.3125, 0.375]
