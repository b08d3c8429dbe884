"""Attacks with shadow and reference models: hand-made numbers, slow twins, Gaussians whose AUC is known, refusals."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from unlearn.metrics import lira, rates
from unlearn.metrics.intervals import jackknife, t_interval
from unlearn.metrics.rates import per_example_auc, rates_intervals
from unlearn.metrics.rmia import rmia

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws_in_any_order():
    RNG.bit_generator.state = START


def slow_rates(scores, members, threshold, fpr):
    """All pairs, and all thresholds."""
    inside, outside = scores[members], scores[~members]
    auc = np.mean([(a > b) + (a == b) / 2 for a in inside for b in outside])
    accuracy = (np.mean(inside > threshold) + np.mean(outside <= threshold)) / 2
    allowed = [t for t in [*scores.ravel(), np.inf] if np.mean(outside >= t) <= fpr]
    return auc, accuracy, max(np.mean(inside >= t) for t in allowed)


def test_rates_of_four_members_and_four_others():
    """Of 16 pairs the member wins 4 + 3.5 + 3 + 1; above 0 are 3 members and 2 others; one alarm in four allows 2 hits."""
    scores = np.array([[5.0, 3, 2, -1], [3, 1, -1.5, -2]])
    members = np.array([[True] * 4, [False] * 4])
    scores[0, 3] = -1.75
    found = rates.rates(scores, members, fprs=(0.25, 0.5))
    assert found.auc == pytest.approx((4 + 3.5 + 3 + 1) / 16)
    assert found.balanced_accuracy == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert found.tpr == (3 / 4, 3 / 4)
    assert rates.rates(scores, members, threshold=4.0, fprs=()).balanced_accuracy == pytest.approx((1 / 4 + 1) / 2)


def test_rates_agree_with_all_pairs_and_all_thresholds():
    for _ in range(20):
        scores = RNG.integers(-4, 5, (4, 12)).astype(float)  # many ties
        members = RNG.random(scores.shape) < 0.4
        found = rates.rates(scores, members, fprs=(0.1,))
        np.testing.assert_allclose(
            (found.auc, found.balanced_accuracy, found.tpr[0]), slow_rates(scores, members, 0.0, 0.1)
        )


def test_rates_of_gaussians():
    """AUC = Phi(d / sqrt 2), balanced accuracy Phi(d / 2) half way, TPR at f = Phi(d - Phi^-1(1 - f))."""
    d, members = 1.5, np.repeat([[True, False]], 50, axis=0).repeat(2000, axis=1)
    found = rates.rates(RNG.normal(size=members.shape) + d * members, members, threshold=d / 2)
    assert found.auc == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=0.005)
    assert found.balanced_accuracy == pytest.approx(norm.cdf(d / 2), abs=0.005)
    assert found.tpr == pytest.approx([norm.cdf(d - norm.isf(f)) for f in (0.001, 0.01)], abs=0.015)


def test_rates_know_no_order_and_mirror():
    scores, members = RNG.normal(size=(6, 50)), RNG.random((6, 50)) < 0.5
    found, order = rates.rates(scores, members, fprs=(0.1,)), RNG.permutation(300)
    shuffled = rates.rates(scores.ravel()[order], members.ravel()[order], fprs=(0.1,))
    np.testing.assert_allclose((*shuffled[:2], *shuffled.tpr), (*found[:2], *found.tpr))
    mirrored = rates.rates(-scores, ~members, fprs=())
    assert mirrored[:2] == pytest.approx(found[:2])
    assert rates.rates(scores, ~members, fprs=()).auc == pytest.approx(1 - found.auc)


def test_a_bootstrap_draws_models():
    """The interval is that of explicit draws of rows; tenfold copies of all examples do not narrow it."""
    scores, members = RNG.normal(size=(12, 20)), RNG.random((12, 20)) < 0.5
    found = rates_intervals(scores, members, seed=3, fprs=(0.1,), resamples=50)
    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), 50)
    rows = [np.repeat(np.arange(12), counts) for counts in draws]
    twin = [rates.rates(scores[r], members[r], fprs=(0.1,)) for r in rows]
    for value, drawn in [(found.auc, [t.auc for t in twin]), (found.tpr[0], [t.tpr[0] for t in twin])]:
        np.testing.assert_allclose((value.low, value.high), np.quantile(drawn, [0.025, 0.975]))
    assert found.auc.mean == rates.rates(scores, members, fprs=()).auc and found.auc.count == 12
    copied = rates_intervals(np.tile(scores, 10), np.tile(members, 10), seed=3, fprs=(0.1,), resamples=50)
    np.testing.assert_allclose((*copied.auc, *copied.balanced_accuracy), (*found.auc, *found.balanced_accuracy))


def test_draws_of_one_class_are_left_out():
    """Each model holds only members or none; with 11 of 12 members one draw in three has no other."""
    scores, members = RNG.normal(size=(12, 5)), np.repeat(np.arange(12) < 11, 5).reshape(12, 5)
    found = rates_intervals(scores, members, seed=0, fprs=(), resamples=60)
    assert np.isfinite(found.auc).all() and found.auc.low < found.auc.high


def test_each_example_has_an_auc():
    scores, members = RNG.integers(0, 5, (9, 6)).astype(float), RNG.random((9, 6)) < 0.5
    members[0], members[1] = True, False
    twin = [slow_rates(scores[:, i], members[:, i], 0, 1)[0] for i in range(6)]
    np.testing.assert_allclose(per_example_auc(scores, members), twin)
    np.testing.assert_allclose(per_example_auc(-scores, members), 1 - np.array(twin))


HALF = np.arange(40).reshape(10, 4) % 2 == 0
NOISE = RNG.normal(size=(10, 4))


@pytest.mark.parametrize(
    "scores, members, fprs, says",
    [
        (np.where(HALF, np.nan, 0.0), HALF, (), "20 of 40 values are not finite"),
        (np.full((10, 4), 0.5), HALF, (), "2 distinct values, all are 0.5"),
        (NOISE, np.ones((10, 4), bool), (), "1 member and 1 non-member, got 40 and 0"),
        (NOISE, HALF.astype(float), (), "booleans"),
        (NOISE, HALF[:5], (), "booleans of the scores' shape"),
        (NOISE, HALF, (0.001,), "0.001 needs at least 1000 non-members, got 20"),
        (NOISE, HALF, (0.0,), "between 0 and 1"),
        (NOISE[:9], HALF[:9], (), "at least 10 models, got 9"),
        (NOISE.ravel(), HALF.ravel(), (), r"need an array \[models, examples\]"),
    ],
)
def test_rates_refuse(scores, members, fprs, says):
    with pytest.raises(ValueError, match=says):
        rates_intervals(scores, members, seed=0, fprs=fprs)


def test_an_example_in_all_models_has_no_auc():
    with pytest.raises(ValueError, match="1 model with and 1 without"):
        per_example_auc(NOISE, np.arange(4) < np.full((10, 1), 2))


def test_leaving_models_out_gives_the_textbook_interval_of_a_mean():
    """Of one mean: the t-interval. Of a difference of two: the squares of both standard errors add up."""
    a, b = RNG.normal(size=12), RNG.normal(size=10)
    (one,) = jackknife(lambda rows: np.array([a[rows].mean()]), (12,)).intervals()
    np.testing.assert_allclose(one, t_interval(a))
    (both,) = jackknife(lambda r, s: np.array([a[r].mean() - b[s].mean()]), (12, 10)).intervals()
    error = math.sqrt(a.var(ddof=1) / 12 + b.var(ddof=1) / 10)
    assert both.mean == pytest.approx(a.mean() - b.mean())
    assert both.high - both.mean == pytest.approx(2.085963 * error)  # t of 20 degrees
    with pytest.raises(ValueError, match="at least 10 of each kind, got 9"):
        jackknife(lambda rows: rows[:1], (9,))
    (pairs,) = jackknife(lambda rows: np.array([a[rows].mean()]), (12,), together=2).intervals()
    assert pairs[:3] == pytest.approx(t_interval(a.reshape(6, 2).mean(axis=1))[:3])
    with pytest.raises(ValueError, match="do not divide by 5"):
        jackknife(lambda rows: rows[:1], (12,), together=5)


def test_lira_by_hand():
    """In N(2, 2), out N(0, 2): at 2 the exponents are 0 and 1, at 1 they are equal."""
    scores, members = np.array([[1.0], [3], [-1], [1]]), np.array([[True], [True], [False], [False]])
    shadows = lira.fit(scores, members)
    assert [float(x[0]) for side in shadows for x in side] == [2, 2, 0, 2]
    np.testing.assert_allclose(lira.log_ratio(np.array([2.0]), shadows), [1])
    np.testing.assert_allclose(lira.log_ratio(np.array([[1.0], [0]]), shadows), [[0], [-1]], atol=1e-15)


def fleet(models, examples, d):
    """Scores N(offset, scale) of each example, d standard deviations higher under models that hold it."""
    members = RNG.random((models, examples)) < 0.5
    z = RNG.normal(size=(models, examples)) + d * members
    return z * RNG.uniform(0.5, 2, examples) + RNG.normal(size=examples, scale=5), members


def in_halves(scores, members):
    return lira.halves(scores, members, np.arange(len(scores)) % 2 == 1)


@pytest.mark.parametrize("models", [20, 200])  # pooled variances, and each example's own
def test_either_half_is_attacked_with_the_other(models):
    scores, members = fleet(models, 4, 1.0)
    for example in range(4):
        members[:4, example], members[4:8, example] = True, False
    found, second = in_halves(scores, members), np.arange(models) % 2 == 1
    for half in (second, ~second):
        s, m = scores[~half], members[~half]
        groups = [[s[side[:, i], i] for i in range(4)] for side in (m, ~m)]
        if models == 20:
            variances = [
                [sum(((g - g.mean()) ** 2).sum() for g in side) / sum(len(g) - 1 for g in side)] * 4 for side in groups
            ]
        else:
            variances = [[g.var(ddof=1) for g in side] for side in groups]
        logs = [
            [norm.logpdf(scores[half, i], g.mean(), math.sqrt(v)) for i, (g, v) in enumerate(zip(*side, strict=True))]
            for side in zip(groups, variances, strict=True)
        ]
        np.testing.assert_allclose(found[half], np.subtract(*logs).T, rtol=1e-9, atol=1e-9)


def test_lira_finds_the_analytic_auc():
    """Phi(d / sqrt 2) whatever an example's mean and scale, with separate shadows and in halves of one fleet."""
    d, analytic = 1.0, norm.cdf(1 / math.sqrt(2))
    scores, members = fleet(300, 40, d)
    ratios = lira.log_ratio(scores[200:], lira.fit(scores[:200], members[:200]))
    assert rates.rates(ratios, members[200:], fprs=()).auc == pytest.approx(analytic, abs=0.03)
    found = rates.rates(in_halves(scores, members), members, fprs=(0.01,))
    assert found.auc == pytest.approx(analytic, abs=0.02)
    assert found.balanced_accuracy == pytest.approx(norm.cdf(d / 2), abs=0.02)
    assert found.tpr[0] == pytest.approx(norm.cdf(d - norm.isf(0.01)), abs=0.03)


def test_lira_finds_nothing_where_nothing_is():
    scores, members = fleet(64, 200, 0.0)
    assert rates.rates(in_halves(scores, members), members, fprs=()).auc == pytest.approx(0.5, abs=0.03)


def test_lira_sees_spread_where_means_agree():
    """In N(0, 1), out N(0, 3): no threshold on the score tells them apart, the ratio does."""
    members = RNG.random((200, 50)) < 0.5
    scores = RNG.normal(size=members.shape) * np.where(members, 1.0, 3.0)
    assert rates.rates(scores, members, fprs=()).auc == pytest.approx(0.5, abs=0.03)
    assert rates.rates(in_halves(scores, members), members, fprs=()).auc > 0.75


def test_lira_knows_no_order_no_offset_and_mirrors():
    scores, members = fleet(80, 6, 1.0)
    ratios, second = in_halves(scores, members), np.arange(80) % 2 == 1
    order = RNG.permutation(80)
    np.testing.assert_allclose(
        lira.halves(scores[order], members[order], second[order]), ratios[order], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(lira.halves(scores, members, ~second), ratios)
    np.testing.assert_allclose(in_halves(3 - 2 * scores, members), ratios, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(in_halves(scores, ~members), -ratios)


def test_an_example_that_all_unlearned_models_answer_alike_takes_the_pooled_variance():
    scores, members = fleet(100, 5, 1.0)
    scores[members[:, 0], 0] = 7.0
    found = lira.fit(scores, members).inside
    squares = [((scores[members[:, i], i] - found.mean[i]) ** 2).sum() for i in range(5)]
    assert found.variance[0] == pytest.approx(sum(squares) / (members.sum() - 5))
    assert found.variance[1] == pytest.approx(scores[members[:, 1], 1].var(ddof=1))
    assert np.isfinite(in_halves(scores, members)).all()


@pytest.mark.parametrize(
    "scores, members, says",
    [
        (NOISE, np.arange(10)[:, None] < np.array([5, 5, 5, 1]), "at least 2 models with and 2 without .* 1 of 4 examples"),
        (NOISE, np.zeros((10, 4), bool), "1 member and 1 non-member, got 0 and 40"),
        (np.ones((10, 4)), HALF.T.reshape(10, 4), "2 distinct scores on each side"),
        (np.where(NOISE > 1, np.inf, NOISE), HALF, "not finite; leave those models out"),
        (NOISE[:1], HALF[:1], "at least 2 models, got 1"),
    ],
)
def test_lira_refuses(scores, members, says):
    with pytest.raises(ValueError, match=says):
        lira.fit(scores, members)


@pytest.mark.parametrize("second", [np.ones(9, bool), np.ones(10, int), [True] * 9])
def test_halves_that_are_none_are_refused(second):
    with pytest.raises(ValueError, match=r"the second half must be \(10,\) bool, got"):
        lira.halves(NOISE, HALF, second)


def test_targets_of_other_examples_are_refused():
    shadows = lira.fit(NOISE, np.arange(10)[:, None] < np.array([5, 5, 5, 2]))
    with pytest.raises(ValueError, match="targets have"):
        lira.log_ratio(NOISE[:, :3], shadows)


def test_rmia_by_hand():
    """Of ten z with ratios .1, .2, ... 1, an x of ratio 1 outdoes by a factor of 1.9 those up to .52."""
    z, reference = np.log(0.05 * np.arange(1, 11)), np.log([[0.5]])
    found = rmia(
        np.log([0.5, 0.05]),
        z,
        references=np.log([[0.5, 0.5]]),
        population_references=reference.repeat(10, 1),
        gamma=1.9,
        a=1.0,
    )
    np.testing.assert_allclose(found, [0.5, 0])


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_rmia_agrees_with_all_pairs(a):
    x, z, rx, rz = (RNG.uniform(0.01, 1, shape) for shape in (20, 300, (3, 20), (3, 300)))
    found = rmia(np.log(x), np.log(z), references=np.log(rx), population_references=np.log(rz), gamma=1.5, a=a)
    prior = lambda r: ((1 + a) * r.mean(axis=0) + 1 - a) / 2  # noqa: E731
    twin = [
        np.mean([(p / u) / (q / v) >= 1.5 for q, v in zip(z, prior(rz), strict=True)])
        for p, u in zip(x, prior(rx), strict=True)
    ]
    np.testing.assert_allclose(found, twin)


def test_rmia_counts_a_tie():
    """Of ten z, the x that is the sixth lowest does at least as well as six."""
    z, references = -np.arange(10.0), np.full((1, 10), -4.0)
    assert rmia(z[4:5], z, references=references[:, :1], population_references=references, gamma=1.0) == [0.6]


def test_rmia_finds_the_analytic_auc():
    """Log-ratios N(d, 1) of members and N(0, 1) of all others: shares of a large population keep their order."""
    d, reference = 1.0, np.full((2, 3000), -20.0)
    member, other, z = (-20 + RNG.normal(shift, 1, 3000) for shift in (d, 0.0, 0.0))
    found = [
        rmia(one, z, references=reference, population_references=reference, gamma=1.0, a=1.0) for one in (member, other)
    ]
    scores, members = np.concatenate(found), np.arange(6000) < 3000
    assert rates.rates(scores, members, fprs=()).auc == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=0.02)
    np.testing.assert_allclose(np.sort(found[1])[[300, 1500, 2700]], [0.1, 0.5, 0.9], atol=0.04)  # uniform


def test_rmia_works_with_probabilities_below_the_smallest_float():
    z = -1000 - np.arange(10.0)
    found = rmia(
        np.array([-1004.5]),
        z,
        references=np.full((1, 1), -900.0),
        population_references=np.full((1, 10), -900.0),
        gamma=1.0,
        a=1.0,
    )
    assert found == [0.5]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"log_p": np.array([0.1, -1, -1])}, "at most 0"),
        ({"log_p": np.array([np.nan, -1, -1])}, "1 of 3 values are not finite"),
        ({"references": np.zeros((0, 3))}, "no values, need at least 1"),
        ({"references": -np.ones((2, 3))}, "references must be"),
        ({"population_log_p": -np.ones(9), "population_references": -np.ones((1, 9))}, "at least 10 examples, got 9"),
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"a": 1.5}, "a between 0 and 1"),
    ],
)
def test_rmia_refuses(change, says):
    given = {
        "log_p": -np.ones(3), "population_log_p": -np.ones(10), "references": -np.ones((1, 3)),
        "population_references": -np.ones((1, 10)),
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=says):
        rmia(given.pop("log_p"), given.pop("population_log_p"), **given)


def test_a_part_of_a_fleet_is_fitted_as_the_whole():
    """Of 33 shadows on each side some are left out: variances stay each example's own, as the whole fleet's are."""
    rng = np.random.default_rng(5)
    members = np.arange(66)[:, None] < np.full(4, 33)
    values = rng.normal(size=(66, 4)) * [1.0, 2.0, 3.0, 4.0]
    assert lira.own_variances(members) and not lira.own_variances(members[2:])
    part = lira.fit(values[2:], members[2:], lira.own_variances(members))
    np.testing.assert_allclose(part.inside.variance, values[2:33].var(axis=0, ddof=1))
    assert np.ptp(lira.fit(values[2:], members[2:]).inside.variance) == 0, "pooled"
