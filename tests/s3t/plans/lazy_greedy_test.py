"""The greedy planner against a twin without laziness, against all families of sets, and by hand."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t.plans import lazy_greedy, structure
from s3t.plans.lazy_greedy import greedy
from s3t.plans.planners import cyclic, lattice

properties = settings(max_examples=20, deadline=None, derandomize=True)


def a_prior(slices, seed=0):
    return np.random.default_rng((slices, seed)).dirichlet(np.ones(slices)).tolist()


def worth(plan, prior, hits, quality):
    """Expected served quality, summed over the times before and after each of `hits` deletions, set by set."""
    chance = {frozenset(): 1.0}
    total = 0.0
    for _ in range(hits + 1):
        total += sum(p * quality[structure.depth_served(plan, deleted)] for deleted, p in chance.items())
        after = Counter()
        for deleted, p in chance.items():
            for s in range(plan.slices):
                after[deleted | {s}] += p * prior[s]
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


@settings(properties, max_examples=12)
@given(st.sampled_from([(2, 2.0), (3, 1.5), (3, 4.0), (3, 99.0), (4, 3.3), (4, 8.0)]), st.integers(0, 3))
def test_greedy_takes_what_a_slow_twin_takes(case, seed):
    slices, budget = case
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


def test_greedy_with_enough_budget_serves_as_deep_as_can_be():
    for slices in range(1, 7):
        plan = greedy(slices, structure.flops(lattice(slices)))
        assert {frozenset(node) for node in plan.nodes} == {frozenset(node) for node in lattice(slices).nodes}


def test_greedy_serves_deeper_than_rotations_of_equal_cost():
    for slices in range(3, 7):
        visits = lazy_greedy.visits(structure.as_prior(slices, None), lazy_greedy.HITS * slices)
        best = visits @ structure.depth_table(lattice(slices))
        for budget in range(1, slices + 1):
            rotations = cyclic(slices, budget)
            plan = greedy(slices, structure.flops(rotations))
            assert structure.flops(plan) <= structure.flops(rotations) + 1e-9
            greedy_worth, rotated = (visits @ structure.depth_table(p) for p in (plan, rotations))
            assert greedy_worth > rotated or greedy_worth == pytest.approx(best, rel=1e-12)


def families(slices):
    """Every family of sets in which each set of two or more has one of the family with one slice less."""
    sets = [frozenset(node) for node in lattice(slices).nodes]
    for chosen in itertools.product((False, True), repeat=len(sets)):
        family = {s for s, taken in zip(sets, chosen, strict=True) if taken}
        if all(len(s) == 1 or any(s - {x} in family for x in s) for s in family):
            yield family


def test_greedy_is_near_the_best_family_of_any_budget():
    plans = [structure.Plan(3, tuple(tuple(s) for s in family)) for family in families(3)]
    rated = [(structure.flops(plan), structure.depth_table(plan)) for plan in plans]
    ratios = []
    for seed, budget in itertools.product(range(4), np.arange(0.5, 7.5, 0.5)):
        prior = a_prior(3, seed)
        visits = lazy_greedy.visits(structure.as_prior(3, prior), 15)
        best = max(float(visits @ table) for flops, table in rated if flops <= budget + 1e-9)
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


@properties
@given(st.integers(1, 4), st.integers(0, 5), st.integers(0, 99))
def test_visits_are_those_of_a_walk_over_sets(slices, hits, seed):
    prior = np.array(a_prior(slices, seed))
    expected, chance = Counter(), {0: 1.0}
    for _ in range(hits + 1):
        expected.update(chance)
        after = Counter()
        for mask, p in chance.items():
            for s in range(slices):
                after[mask | 1 << s] += p * prior[s]
        chance = after
    np.testing.assert_allclose(lazy_greedy.visits(prior, hits), [expected[mask] for mask in range(1 << slices)], atol=1e-12)


def test_visits_by_hand():
    # Two slices at .75 and .25, two deletions: {} once, then {0} .75 and {1} .25, then {0} .5625, {1} .0625, both .375.
    assert lazy_greedy.visits(np.array([0.75, 0.25]), 2).tolist() == [1, 1.3125, 0.3125, 0.375]
