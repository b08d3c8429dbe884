"""Planners as properties, by enumeration of all deletion sets for up to six slices; what each promises, by hand."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from s3t.plans import structure
from s3t.plans.planners import (
    PLANNERS,
    bms,
    chains,
    conditional,
    cyclic,
    full,
    lattice,
    random,
    score,
    sisa,
    stumps,
)

properties = settings(max_examples=30, deadline=None, derandomize=True)
some_slices = st.integers(1, 6)
some_seeds = st.integers(0, 2**32 - 1)


def a_prior(slices, seed=0):
    return np.random.default_rng((slices, seed)).dirichlet(np.ones(slices)).tolist()


@st.composite
def requests(draw):
    """(planner, slices, a budget that it takes, a prior or none)."""
    name, slices = draw(st.sampled_from(sorted(PLANNERS))), draw(some_slices)
    most = {"bms": slices}.get(name, min(math.factorial(slices), 130))
    cheapest = structure.node_flops((0,), slices)
    budget = draw(st.floats(cheapest, 3 * slices) if name == "greedy" else st.integers(1, most))
    prior = draw(st.none() | some_seeds.map(lambda seed: a_prior(slices, seed)))
    return name, slices, budget, prior


def complete(plan):
    """The sequences of full length."""
    return [node for node in plan.nodes if len(node) == plan.slices]


def deletion_sets(slices):
    return [set(x) for size in range(slices + 1) for x in itertools.combinations(range(slices), size)]


# one contract for all


@properties
@given(requests())
def test_a_plan_is_a_prefix_tree_within_its_budget_and_the_same_again(request):
    name, slices, budget, prior = request
    plan = PLANNERS[name](slices, budget, prior)
    assert plan.slices == slices and plan == PLANNERS[name](slices, budget, prior)
    assert len(set(plan.nodes)) == len(plan.nodes)
    assert list(plan.nodes) == sorted(plan.nodes, key=lambda node: (len(node), node))
    for node in plan.nodes:
        assert len(set(node)) == len(node) >= 1 and set(node) <= set(range(slices))
        assert len(node) == 1 or node[:-1] in plan.nodes
    if name == "greedy":
        assert structure.flops(plan) <= budget + 1e-9
    if name in ("cyclic", "bms", "conditional", "random"):
        assert len(complete(plan)) == budget


@properties
@given(requests())
def test_survivors_and_costs_are_those_of_slow_twins(request):
    """What survives, by set; what is served, by search; FLOPs, by adding up blocks and examples node by node."""
    name, slices, budget, prior = request
    assume(math.factorial(slices) <= 120 or name != "full")
    plan = PLANNERS[name](slices, budget, prior)
    table = structure.depth_table(plan)
    for deleted in deletion_sets(slices):
        alive = [node for node in plan.nodes if not deleted & set(node)]
        assert list(structure.survivors(plan, deleted)) == alive
        deepest = max((len(node) for node in alive), default=0)
        assert table[structure.mask_of(deleted)] == structure.depth_served(plan, deleted) == deepest
        assert all(len(node) == 1 or node[:-1] in alive for node in alive)
    plain = sum(len(node) / slices * (1 + len(node) / slices) for node in plan.nodes)
    cached = sum(len(node) / slices * 2 * len(node) / slices for node in plan.nodes)
    assert structure.flops(plan) == pytest.approx(plain) and structure.flops(plan, cached=True) == pytest.approx(cached)


MALFORMED = [
    (3, 0, None, "positive"),
    (3, -1, None, "positive"),
    (3, float("nan"), None, "positive"),
    (3, float("inf"), None, "positive"),
    (3, 3, [0.5, 0.5], "for each of 3 slices"),
    (3, 3, [0.5, 0.5, 0.1], "sum to 1"),
    (3, 3, [1.5, -0.5, 0], "negative"),
    (0, 3, None, "1 to 256 slices"),
    (257, 3, None, "1 to 256 slices"),
]


def test_every_planner_refuses_a_malformed_budget_or_prior():
    for name, (slices, budget, prior, message) in itertools.product(PLANNERS, MALFORMED):
        with pytest.raises(ValueError, match=message):
            PLANNERS[name](slices, budget, prior)


@pytest.mark.parametrize("planner, most", [(cyclic, 6), (conditional, 6), (random, 6), (bms, 3)])
def test_sequences_are_counted_in_whole_numbers_up_to_all_there_are(planner, most):
    assert planner(4) == planner(4, 4) == planner(4, 4.0)
    assert len(complete(planner(4, 3))) == 3 and len(complete(planner(3, most))) == most
    with pytest.raises(ValueError, match="whole number"):
        planner(4, 2.5)
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


@properties
@given(some_slices, st.integers(1, 130))
@example(6, 130)
@example(5, 120)
@example(4, 24)
def test_rotations_are_distinct_their_tops_balanced_and_few_of_them_a_latin_square(slices, budget):
    budget = min(budget, math.factorial(slices))
    sequences = complete(cyclic(slices, budget))
    assert len(set(sequences)) == len(sequences) == budget
    tops = Counter(sequence[0] for sequence in sequences)
    assert len(tops) == min(budget, slices) and max(tops.values()) - min(tops.values()) <= 1
    if budget <= slices:
        assert all(len(set(position)) == budget for position in zip(*sequences, strict=True))


def test_rotations_by_hand():
    assert complete(cyclic(4, 2)) == [(0, 1, 2, 3), (2, 3, 0, 1)]
    assert complete(cyclic(3, 6)) == complete(full(3))
    second = set(complete(cyclic(4, 8))) - set(complete(cyclic(4, 4)))
    assert second == {(0, 2, 3, 1), (1, 3, 0, 2), (2, 0, 1, 3), (3, 1, 2, 0)}  # what follows the first, turned by one


def test_all_sequences_turn_up_whoever_draws_them():
    for slices in range(1, 7):
        count = math.factorial(slices)
        assert len(complete(full(slices))) == count
        assert cyclic(slices, count) == random(slices, count) == conditional(slices, count) == full(slices)


def test_one_rotation_per_slice_serves_the_longest_cyclic_gap():
    for slices in range(1, 7):
        plan = cyclic(slices, slices)
        for deleted in deletion_sets(slices):
            ring = "".join("x" if s in deleted else "." for s in range(slices))
            gap = max(map(len, (ring * 2).split("x"))) if deleted else slices
            assert structure.depth_served(plan, deleted) == gap


def test_the_spread_of_tops_serves_deeper_than_neighbours():
    assert structure.expected_depths(cyclic(4, 2))[1] == 2.5
    assert structure.expected_depths(structure.make_plan(4, [(0, 1, 2, 3), (1, 2, 3, 0)]))[1] == 2.25


# from sets


@pytest.mark.parametrize("planner", [lattice, chains, full])
def test_nothing_serves_deeper_after_any_deletion(planner):
    for slices in range(1, 7):
        table = structure.depth_table(planner(slices))
        assert [table[mask] for mask in range(1 << slices)] == [slices - mask.bit_count() for mask in range(1 << slices)]


def test_lattice_holds_every_subset_once_and_chains_in_as_few_full_sequences_as_can_be():
    for slices in range(1, 9):
        sets = [frozenset(node) for node in lattice(slices).nodes]
        assert len(sets) == len(set(sets)) == 2**slices - 1
        plan = chains(slices)
        assert structure.sequences(plan) == tuple(complete(plan))
        assert len(complete(plan)) == math.comb(slices, slices // 2)
        assert {frozenset(node) for node in plan.nodes} == set(sets)


def test_stumps_hold_every_slice_alone_and_one_sequence():
    for slices in range(1, 7):
        plan = stumps(slices)
        assert len(plan.nodes) == 2 * slices - 1 and len(structure.at_depth(plan, 1)) == slices
        assert complete(plan) == complete(sisa(slices)) == [tuple(range(slices))]
    assert complete(stumps(4, None, [0.3, 0.1, 0.2, 0.4])) == [(1, 2, 0, 3)]  # first what is least likely hit


# bms


def test_score_by_hand():
    assert score((0, 1), [0.2, 0.8], hits=1) == pytest.approx(0.8)
    assert score((0, 1, 2), [0.2, 0.3, 0.5], hits=2) == pytest.approx(0.64 + 2 * 0.25)
    assert score((2, 1, 0), [0.2, 0.3, 0.5], hits=1) == pytest.approx(0.5 + 2 * 0.2)
    assert score((0,), [1.0]) == 0


@properties
@given(some_slices, some_seeds)
def test_bms_sequences_differ_at_every_position_and_score_at_least_what_rotations_do(slices, seed):
    prior = a_prior(slices, seed)
    sequences = complete(bms(slices, slices, prior))
    assert all(len(set(position)) == slices for position in zip(*sequences, strict=True))
    matched, rotated = (sum(score(s, prior) for s in plan) for plan in (sequences, complete(cyclic(slices, slices))))
    assert matched >= rotated * (1 - 1e-12)


@settings(properties, max_examples=15)
@given(st.integers(2, 5), some_seeds)
def test_bms_rounds_are_best_matchings(slices, seed):
    """Each round gains as much as the best of all matchings of what the rounds before it made; a budget takes the best."""
    prior = a_prior(slices, seed)
    sequences = complete(bms(slices, slices, prior))
    assert sorted(sequence[0] for sequence in sequences) == list(range(slices))

    def gain(grown):
        return math.fsum(len(order) * max(1 - sum(prior[s] for s in order), 0) ** 100 for order in grown)

    for position in range(1, slices):
        orders = [sequence[:position] for sequence in sequences]
        matchings = [
            [(*order, s) for order, s in zip(orders, chosen, strict=True)]
            for chosen in itertools.permutations(range(slices))
            if all(s not in order for order, s in zip(orders, chosen, strict=True))
        ]
        chosen = [sequence[: position + 1] for sequence in sequences]
        assert chosen in matchings and gain(chosen) == pytest.approx(max(map(gain, matchings)), rel=1e-12, abs=1e-30)
    best = sorted((score(order, prior) for order in sequences), reverse=True)
    for budget in range(1, slices + 1):
        scores = sorted((score(s, prior) for s in complete(bms(slices, budget, prior))), reverse=True)
        assert scores == pytest.approx(best[:budget], rel=1e-12)


def test_bms_by_hand():
    # Each of two slices begins once; the best of both begins with the one less likely hit.
    assert complete(bms(2, 2, [0.02, 0.98])) == [(0, 1), (1, 0)] and complete(bms(2, 1, [0.02, 0.98])) == [(0, 1)]


# drawn sequences


def test_conditional_draws_without_replacement_by_weight():
    prior, draws = [0.7, 0.2, 0.1], 3000
    drawn = Counter(complete(conditional(3, 1, prior, seed=seed))[0] for seed in range(draws))
    weights = [0.3, 0.8, 0.9]
    expected = {
        order: weights[order[0]] / 2 * weights[order[1]] / (2 - weights[order[0]])
        for order in itertools.permutations(range(3))
    }
    assert sum(expected.values()) == pytest.approx(1)
    assert stats.chisquare([drawn[o] for o in expected], [draws * p for p in expected.values()]).pvalue > 1e-3


def test_random_is_uniform_and_its_seed_counts():
    drawn = Counter(complete(random(3, 1, [0.7, 0.2, 0.1], seed=seed))[0] for seed in range(3000))
    assert stats.chisquare([drawn[order] for order in itertools.permutations(range(3))]).pvalue > 1e-3
    assert random(6, 4) == random(6, 4, seed=0) != random(6, 4, seed=1)


def test_a_prior_of_one_slice_leaves_few_sequences():
    assert complete(conditional(3, 2, [1, 0, 0])) == [(1, 2, 0), (2, 1, 0)]
    with pytest.raises(ValueError, match="2 distinct sequences turned up: ask for fewer than 3"):
        conditional(3, 3, [1, 0, 0])
