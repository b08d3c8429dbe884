"""Streams of deletions: drawn as first hits, followed through plans, compared with slow twins and closed forms."""

import itertools
import json
import math
import time
from collections import Counter

import numpy as np
import pytest
from scipy import integrate, stats

from experiments.benchmarks import s3t_plans
from s3t.cli import main
from s3t.plans import closed_forms, simulate, structure
from s3t.plans.planners import PLANNERS, chains, cyclic, lattice, sisa, stumps

PLANS = [
    sisa(4),
    cyclic(4, 2),
    cyclic(4, 4),
    stumps(4),
    lattice(4),
    chains(4),
    structure.make_plan(4, [(1, 2), (1, 0), (3,)]),
]


def generator(*seed):
    return np.random.default_rng(seed)


def walk(plan, shards, requests):
    """Request by request: depths [requests + 1, shards] served before the first and after each."""
    gone = [set() for _ in range(shards)]
    depths = [[structure.depth_served(plan, x) for x in gone]]
    for shard, s in requests:
        gone[shard].add(s)
        depths.append([structure.depth_served(plan, x) for x in gone])
    return np.array(depths)


def first_hits(shards, slices, requests):
    first = np.full((1, shards, slices), np.inf)
    for number, place in enumerate(requests, 1):
        first[0][place] = min(first[0][place], number)
    return first


# what happens


@pytest.mark.parametrize("plan", PLANS)
def test_falls_are_those_of_a_walk_request_by_request(plan):
    rng = generator(1)
    for _ in range(20):
        requests = [(int(rng.integers(3)), int(rng.integers(4))) for _ in range(60)]
        depths = walk(plan, 3, requests)
        lost = simulate.falls(plan, first_hits(3, 4, requests))
        np.testing.assert_array_equal(simulate.depths(lost, range(61))[0].T, depths)
        alive = depths > 0
        assert min(simulate.deletions_to_rebuild(lost)[0], 61) == alive.any(axis=1).sum()
        assert min(simulate.deletions_to_first_dead_shard(lost)[0], 61) == alive.all(axis=1).sum()


def test_falls_by_hand():
    first = np.array([[[3.0, 5, 4, 9]]])
    assert simulate.falls(sisa(4), first).tolist() == [[[3, 3, 3, 3]]]
    assert simulate.falls(cyclic(4, 4), first).tolist() == [[[9, 4, 4, 3]]]  # 0 and 2 leave no neighbours
    assert simulate.falls(lattice(4), first).tolist() == [[[9, 5, 4, 3]]]
    assert simulate.falls(stumps(4), first).tolist() == [[[9, 3, 3, 3]]]
    assert simulate.falls(structure.make_plan(4, [(1, 2)]), first).tolist() == [[[5, 4, 0, 0]]]  # no node of depth 3


def test_falls_in_parts_are_falls(monkeypatch):
    first = simulate.uniform(generator(2), 50, 3, 4)
    whole = simulate.falls(lattice(4), first)
    monkeypatch.setattr(simulate, "CHUNK", 100)
    np.testing.assert_array_equal(simulate.falls(lattice(4), first), whole)


def test_falls_of_another_number_of_slices_are_refused():
    with pytest.raises(ValueError, match="the plan has 4 slices, the streams 5"):
        simulate.falls(sisa(4), np.ones((2, 1, 5)))


def test_quality_by_hand():
    lost = np.array([[[9.0, 5], [4, 2]]])  # two shards of two slices
    assert simulate.quality(lost, [0, 2, 4, 5, 9], [0, 0.6, 1]).tolist() == [[1, 0.8, 0.5, 0.3, 0]]
    with pytest.raises(ValueError, match="each depth from 0 to 2, got 2"):
        simulate.quality(lost, [0], [0, 1])


def test_estimate_by_hand():
    mean, low, high = simulate.estimate(np.array([1.0, 2, 3]))
    assert (mean, low, high) == (2, pytest.approx(2 - 4.302653 / 3**0.5), pytest.approx(2 + 4.302653 / 3**0.5))
    columns = simulate.estimate(np.array([[1.0, 5], [2, 5], [3, 5]]))
    assert columns.mean.tolist() == [2, 5] and columns.low.tolist() == [pytest.approx(low), 5]
    for values, message in (([1.0], "at least 2"), ([1.0, np.inf], "never hit")):
        with pytest.raises(ValueError, match=message):
            simulate.estimate(np.array(values))


# streams


def test_first_hits_have_the_distribution_of_independent_requests():
    p, streams = np.array([[0.5, 0.2], [0.3, 0.0]]), 20_000
    first = simulate.by_prior(generator(3), streams, p)
    assert np.isinf(first[:, 1, 1]).all()
    found = Counter(map(tuple, first.reshape(streams, 4)[:, :3].astype(int)))
    expected = Counter()
    for requests in itertools.product(range(3), repeat=7):
        hits = tuple(requests.index(s) + 1 if s in requests else 0 for s in range(3))
        if 0 not in hits and max(hits) < 7:
            # A stream of 7 requests whose last new slice comes before the end counts once for each way to go on.
            expected[hits] += streams * math.prod([0.5, 0.2, 0.3][s] for s in requests)
    counts = [found[hits] for hits in expected]
    rest = streams - sum(counts), streams - sum(expected.values())
    assert stats.chisquare([*counts, rest[0]], [*expected.values(), rest[1]]).pvalue > 1e-3


def test_rare_slices_are_hit_as_late_as_they_should_be():
    p = np.array([[0.9, 0.1 - 1e-9 - 1e-4, 1e-4, 1e-9]])
    first = simulate.by_prior(generator(4), 20_000, p)
    for s in range(4):
        mean, error = first[:, 0, s].mean(), first[:, 0, s].std() / 20_000**0.5
        assert abs(mean - 1 / p[0, s]) < 4 * error


def test_uniform_is_a_uniform_prior():
    a = simulate.uniform(generator(5), 10, 2, 3)
    np.testing.assert_array_equal(a, simulate.by_prior(generator(5), 10, np.full((2, 3), 1 / 6)))
    assert a.shape == (10, 2, 3) and a.min() == 1


def test_an_ensemble_may_have_more_slices_than_a_shard():
    found = simulate.summary(cyclic(32, 8), 10, 2000, 0)
    low, high = found["deletions_to_rebuild"]["ci95"]
    assert abs(found["closed_form"] - found["deletions_to_rebuild"]["mean"]) < high - low  # four standard errors


def test_a_burst_stays_in_one_shard():
    first = simulate.bursts(generator(6), 200, 3, 4, length=5)
    assert np.isfinite(first).all() and (first.min(axis=(1, 2)) == 1).all()
    touched = (first[:, :, :, None] <= np.arange(5, 101, 5)).any(axis=2)  # [streams, shards, bursts]
    assert (np.diff(touched.sum(axis=1), axis=1, prepend=0) <= 1).all()
    np.testing.assert_array_equal((first <= 5).any(axis=2).sum(axis=1), 1)


def test_bursts_of_one_request_are_uniform():
    rebuild = simulate.deletions_to_rebuild(simulate.falls(cyclic(4, 2), simulate.bursts(generator(7), 20_000, 2, 4, 1)))
    assert abs(rebuild.mean() - closed_forms.expected_rebuild(2, 4, 2)) < 4 * rebuild.std() / 20_000**0.5


def test_bursts_in_a_single_shard_are_no_different():
    rebuild = simulate.deletions_to_rebuild(simulate.falls(lattice(4), simulate.bursts(generator(8), 20_000, 1, 4, 6)))
    assert abs(rebuild.mean() - closed_forms.expected_rebuild(1, 4, 4)) < 4 * rebuild.std() / 20_000**0.5


def test_longer_bursts_kill_a_first_shard_sooner():
    first_dead = [
        simulate.deletions_to_first_dead_shard(
            simulate.falls(cyclic(4, 4), simulate.bursts(generator(9), 5000, 5, 4, length))
        )
        for length in (1, 8, 64)
    ]
    means = [values.mean() for values in first_dead]
    assert means[0] > means[1] > means[2] > 4
    assert abs(means[2] - closed_forms.expected_rebuild(1, 4, 4)) < 0.3  # the first burst does it


def test_a_burst_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 request"):
        simulate.bursts(generator(0), 2, 2, 2, 0)


@pytest.mark.parametrize("plan", PLANS)
def test_strikes_hit_what_is_served_and_do_the_most_harm(plan):
    path = simulate.strikes(plan)
    for j, s in enumerate(path):
        gone = set(path[:j])
        assert s in structure.served(plan, gone)
        least = min(structure.depth_served(plan, gone | {other}) for other in range(4))
        assert structure.depth_served(plan, gone | {s}) == least
    assert structure.depth_served(plan, path) == 0


def test_strikes_by_hand():
    assert simulate.strikes(sisa(4)) == (0,)
    assert simulate.strikes(cyclic(4, 4))[:2] in ((0, 2), (1, 3))  # two gaps of one are left, not one of two
    assert simulate.strikes(stumps(4)) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "plan, tops", [(sisa(4), 1), (cyclic(4, 2), 2), (cyclic(4, 4), 4), (stumps(4), 4), (lattice(4), 4)]
)
def test_an_adversary_needs_one_request_per_top(plan, tops):
    lost = simulate.falls(plan, simulate.adaptive(generator(10), 50, 3, plan))
    np.testing.assert_array_equal(simulate.deletions_to_rebuild(lost), 3 * tops)
    assert (simulate.deletions_to_first_dead_shard(lost) >= tops).all()


def test_an_adversary_who_goes_for_the_deepest_kills_all_shards_in_the_last_round():
    lost = simulate.falls(lattice(4), simulate.adaptive(generator(18), 50, 3, lattice(4)))
    np.testing.assert_array_equal(np.sort(lost[:, :, 0], axis=1), [[10, 11, 12]] * 50)
    np.testing.assert_array_equal(np.sort(lost[:, :, 3], axis=1), [[1, 2, 3]] * 50)


@pytest.mark.parametrize("plan", PLANS)
def test_an_adversary_leaves_no_more_depth_than_chance_does(plan):
    requests = np.arange(1, 13)
    harmed, hit = (
        simulate.depths(simulate.falls(plan, first), requests).mean(axis=(0, 1))
        for first in (simulate.adaptive(generator(11), 100, 3, plan), simulate.uniform(generator(11), 4000, 3, 4))
    )
    assert (harmed <= hit + 0.05).all() and harmed.sum() < hit.sum()


def test_an_adversary_goes_for_the_deepest_shard_at_random():
    first = simulate.adaptive(generator(12), 3000, 3, cyclic(4, 4))
    began = np.argmin(first.min(axis=2), axis=1)
    assert stats.chisquare(np.bincount(began, minlength=3)).pvalue > 1e-3
    depths = simulate.depths(simulate.falls(cyclic(4, 4), first), range(13))
    assert set(map(tuple, np.sort(depths[:, :, 3], axis=1))) == {(3, 3, 3)}


# closed forms

CLOSED = {(5, 6): (68.5, 87.9, 99.5, 107.9, 114.5, 119.8), (5, 4): (45.7, 58.6, 66.4, 72.0)}
TABLE3 = (66.4, 86.9, 100.8, 107.8, 110.1, 124.1)  # the paper's m = 5, L = 6, B = 1..6: means of 100 runs


@pytest.mark.parametrize("shards, slices, tops", [(m, slices, b) for m, slices in CLOSED for b in range(1, slices + 1)])
def test_rebuilds_agree_with_the_closed_form(shards, slices, tops):
    expected = closed_forms.expected_rebuild(shards, slices, tops)
    assert expected == pytest.approx(CLOSED[shards, slices][tops - 1], abs=0.05)
    lost = simulate.falls(cyclic(slices, tops), simulate.uniform(generator(13, slices, tops), 20_000, shards, slices))
    rebuild = simulate.deletions_to_rebuild(lost)
    assert abs(rebuild.mean() - expected) < 4 * rebuild.std() / 20_000**0.5


def test_the_papers_table():
    for tops, mean in enumerate(TABLE3, 1):
        lost = simulate.falls(cyclic(6, tops), simulate.uniform(generator(14, tops), 10_000, 5, 6))
        rebuild = simulate.deletions_to_rebuild(lost)
        assert abs(rebuild.mean() - mean) < 3 * rebuild.std() / 100**0.5  # it ran 100 streams


@pytest.mark.parametrize("tops", [1, 2, 4])
def test_the_first_dead_shard_agrees_with_its_integral(tops):
    # In a Poisson process a slice lives to t with probability q = exp(-t / mL), and a shard with 1 - (1 - q)^B.
    alive = lambda t: (1 - (1 - math.exp(-t / 20)) ** tops) ** 5  # noqa: E731
    expected = integrate.quad(alive, 0, np.inf)[0]
    assert expected == pytest.approx({1: 4, 2: 10, 4: 19.1}[tops], abs=0.3)  # the reference's are simulated
    lost = simulate.falls(cyclic(4, tops), simulate.uniform(generator(15, tops), 20_000, 5, 4))
    first_dead = simulate.deletions_to_first_dead_shard(lost)
    assert abs(first_dead.mean() - expected) < 4 * first_dead.std() / 20_000**0.5


def test_stumps_survive_exactly_as_long_as_rotations():
    first = simulate.uniform(generator(16), 500, 5, 6)
    np.testing.assert_array_equal(
        *(simulate.falls(plan, first)[:, :, 0] for plan in (stumps(6), cyclic(6, 6)))  # shard by shard
    )


def test_the_closed_form_under_a_prior():
    uniform = np.full((5, 6), 1 / 30)
    assert closed_forms.expected_rebuild_by_prior(uniform[:, :2]) == pytest.approx(
        closed_forms.expected_rebuild(5, 6, 2), rel=1e-9
    )
    p = np.array([0.7, 0.2, 0.0999, 0.0001])
    inclusion = sum(
        (-1) ** (size + 1) / sum(some) for size in range(1, 5) for some in itertools.combinations(p.tolist(), size)
    )
    assert closed_forms.expected_rebuild_by_prior(p) == pytest.approx(inclusion, rel=1e-9)
    assert closed_forms.expected_rebuild_by_prior(np.array([0.5, 1e-12])) == pytest.approx(1e12, rel=1e-9)
    assert closed_forms.expected_rebuild_by_prior(np.array([0.5, 0])) == math.inf


@pytest.mark.parametrize("plan", PLANS)
def test_depth_distribution_by_every_string_of_hits(plan):
    for hits in range(5):
        found = np.zeros(5)
        for string in itertools.product(range(4), repeat=hits):
            found[structure.depth_served(plan, set(string))] += 1
        np.testing.assert_allclose(closed_forms.depth_distribution(plan, hits), found / 4**hits, atol=1e-15)


def stirling2(n, k):
    return sum((-1) ** (k - i) * math.comb(k, i) * i**n for i in range(k + 1)) // math.factorial(k)


@pytest.mark.parametrize("hits", [0, 1, 5, 20])
def test_depth_distribution_of_all_subsets_is_the_references(hits):
    chance = closed_forms.depth_distribution(lattice(6), hits)
    for k in range(7):
        exact = sum(math.comb(6, j) * math.factorial(j) * stirling2(hits, j) for j in range(6 - k + 1)) / 6**hits
        assert chance[k:].sum() == pytest.approx(exact, rel=1e-12)


def test_one_hit_never_costs_the_rotations_more_than_one_slice():
    # Where the paper's lemma, which takes sequences for independent, says .684.
    assert closed_forms.depth_distribution(cyclic(4, 4), 1).tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("plan", PLANS)
def test_simulated_depths_have_the_exact_distribution(plan):
    lost = simulate.falls(plan, simulate.uniform(generator(17), 20_000, 1, 4))
    for hits in (1, 3, 7):
        exact = closed_forms.depth_distribution(plan, hits)
        found = np.bincount(simulate.depths(lost, [hits]).ravel(), minlength=5)
        assert (found[exact == 0] == 0).all()
        if (exact > 0).sum() > 1:
            assert stats.chisquare(found[exact > 0], 20_000 * exact[exact > 0]).pvalue > 1e-3


# summary and command line


def test_summary_is_over_the_streams_asked_for(monkeypatch):
    monkeypatch.setattr(simulate, "BLOCK", 40)
    found = simulate.summary(cyclic(4, 2), 3, 100, 5)
    first = np.concatenate([simulate.uniform(generator(5, block), 40, 3, 4) for block in range(3)])[:100]
    lost = simulate.falls(cyclic(4, 2), first)
    for key, values in (
        ("deletions_to_rebuild", simulate.deletions_to_rebuild(lost)),
        ("deletions_to_first_dead_shard", simulate.deletions_to_first_dead_shard(lost)),
    ):
        low, high = stats.t.interval(0.95, 99, values.mean(), stats.sem(values))
        assert found[key]["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert found[key]["ci95"] == pytest.approx([low, high], rel=1e-9)
    assert found["closed_form"] == closed_forms.expected_rebuild(3, 4, 2)


@pytest.mark.parametrize("name", ["sisa", "stumps", "bms"])
def test_summary_under_a_prior_agrees_with_its_closed_form(name):
    prior = [0.6, 0.05, 0.25, 0.1]
    found = simulate.summary(PLANNERS[name](4, 2, prior), 3, 20_000, 0, prior)
    low, high = found["deletions_to_rebuild"]["ci95"]
    assert abs(found["closed_form"] - found["deletions_to_rebuild"]["mean"]) < (high - low)  # four standard errors


def test_ten_thousand_streams_take_less_than_two_seconds():
    began = time.perf_counter()
    simulate.summary(cyclic(6, 6), 5, 10_000, 0)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "shards, streams, prior, message",
    [
        (0, 10, None, "at least 1 shard"),
        (1, 1, None, "2 streams"),
        (1, 10, [0.5, 0.6], "sum to 1"),
        (1, 10, [0.0, 1.0], "never hit"),
    ],
)
def test_a_simulation_that_cannot_be_is_refused(shards, streams, prior, message):
    with pytest.raises(ValueError, match=message):
        simulate.summary(sisa(2), shards, streams, 0, prior)


def test_the_benchmark_shows_every_planner_beside_its_cost():
    rows = [line.split() for line in s3t_plans.planner_table(2, 3, 40).splitlines()[1:]]
    assert {row[0] for row in rows} == set(PLANNERS) - {"full"}
    assert next(row for row in rows if row[0] == "lattice")[1:4] == ["7", "6.67", "5.33"]
    assert [line[:5] for line in s3t_plans.paper_table(40).splitlines()[1:]] == [f"B={b}  " for b in range(1, 7)]


def test_simulate_prints_one_object(capsys):
    line = "simulate --shards 5 --slices 6 --planner cyclic --budget 3 --streams 1000 --seed 7 --json"
    assert main(line.split()) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == simulate.summary(cyclic(6, 3), 5, 1000, 7) and (out.count("\n"), err) == (1, "")
    assert list(json.loads(out)) == ["deletions_to_rebuild", "deletions_to_first_dead_shard", "closed_form"]


def test_simulate_in_words(capsys):
    assert main(["simulate", "--shards=2", "--slices=3", "--planner=lattice", "--streams=50"]) == 0
    words = capsys.readouterr().out
    found = simulate.summary(lattice(3), 2, 50, 0)
    assert f"no shard has a model: {found['deletions_to_rebuild']['mean']:.2f} (95%: " in words
    assert words.endswith("closed form: 14.70\n")  # 6 H_6


def test_an_adversary_and_what_is_served_meanwhile_in_words(capsys):
    line = (
        "simulate --shards 2 --slices 3 --planner lattice --streams 50 --stream adaptive --after 0,1,6 --quality 0,.5,.8,1"
    )
    assert main(line.split()) == 0
    words = capsys.readouterr().out.splitlines()
    assert words[1].startswith("requests until no shard has a model: 6.00 ") and "closed form" not in words[2]
    assert [line.split(" (95%")[0] for line in words[2:]] == [
        "after 0 requests: depth 3.00",
        "after 1 requests: depth 2.50",
        "after 6 requests: depth 0.00",
    ]
    assert [line.split("quality ")[1].split(" ")[0] for line in words[2:]] == ["1.0000", "0.9000", "0.0000"]


def test_bursts_are_simulated_in_blocks_of_their_own():
    found = simulate.summary(cyclic(4, 4), 3, 300, 1, stream="bursts", burst=8, after=(8,))
    lost = simulate.falls(cyclic(4, 4), simulate.bursts(np.random.default_rng((1, 0)), simulate.BLOCK, 3, 4, 8))[:300]
    assert found["deletions_to_rebuild"] == simulate.shown(simulate.deletions_to_rebuild(lost))
    assert found["after"] == [{"requests": 8, "depth": simulate.shown(simulate.depths(lost, [8])[:, :, 0].mean(axis=1))}]


@pytest.mark.parametrize(
    "more, message",
    [
        ("--shards 0", "shard"),
        ("--shards 2 --seed -1", "from 0 to 4294967295"),
        ("--shards 2 --streams 1", "streams"),
        ("--shards 2 --stream odd", "invalid choice"),
        ("--shards 2 --stream adaptive --prior .5,.3,.2", "a prior is of independent requests"),
        ("--shards 2 --after 1 --quality 0,.5,nan,1", "a quality curve is finite numbers"),
        ("--shards 2 --stream adaptive --burst 2", "not of adaptive requests"),
        ("--shards 2 --stream bursts --burst 0", "at least 1 request"),
        ("--shards 2 --after=-1", "0 or more"),
        ("--shards 2 --quality 0,1,1,1", "say after how many"),
        ("--shards 2 --after 3 --quality 0,1", "from 0 to 3, got 2"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, more, message):
    try:
        status = main(f"simulate --planner sisa --slices 3 {more} --json".split())
    except SystemExit as left:
        status = left.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1) and message in err
