"""Fleets beside fleets: KLoM and epsilon by hand, by slow twins and on known distributions; CKA; cost; refusals."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from unlearn.metrics import epsilon as eps
from unlearn.metrics.cka import linear_cka
from unlearn.metrics.cost import amortised, break_even
from unlearn.metrics.klom import klom, klom_published, summary

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws_in_any_order():
    RNG.bit_generator.state = START


def column(*values):
    """One example's scores under as many models."""
    return np.array(values, float)[:, None]


def test_klom_by_hand():
    """Bins of width 1 from 0 to 20, the largest margin, 20, in the last: shares 1/2, 1/2 and 1/5, 4/5."""
    unlearned, oracle = column(*[0.5] * 5, *[20] * 5), column(0, 0.9, *[19.5] * 8)
    expected = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    np.testing.assert_allclose(klom(unlearned=unlearned, oracle=oracle), [expected])
    reverse = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)
    np.testing.assert_allclose(klom(unlearned=oracle, oracle=unlearned), [reverse])


def test_klom_where_no_oracle_goes():
    """A share of 1 against a floor of 1e-5, normalised with the oracles' own 1: log((1 + 1e-5) / 1e-5)."""
    oracle = column(*[0] * 9, 0.5)
    np.testing.assert_allclose(klom(unlearned=column(*[20] * 10), oracle=oracle), [math.log(1e5 + 1)])


def test_klom_clips_margins():
    """20 bins from -100 to 100: what is beyond counts as what is at the end."""
    oracle = column(-100, *[100] * 9)
    clipped = klom(unlearned=column(-1e6, *[99] * 9), oracle=oracle * 50)
    np.testing.assert_array_equal(clipped, klom(unlearned=column(-99, *[100] * 9), oracle=oracle))
    np.testing.assert_array_equal(clipped, [0.0])
    narrow = (
        column(-1e6, *[95] * 4, *[85] * 4, 1e6),
        column(-1e6, *[95] * 4, *[89.9] * 4, 1e6),
    )  # 89.9 is in the bin up to 90
    np.testing.assert_array_equal(klom(unlearned=narrow[1], oracle=narrow[0]), [0.0])


def slow_klom(unlearned, oracle):
    found = []
    for u, o in zip(np.clip(unlearned, -100, 100).T, np.clip(oracle, -100, 100).T, strict=True):
        edges = np.linspace(min(u.min(), o.min()), max(u.max(), o.max()), 21)  # the last bin of np.histogram is closed
        p, q = (np.histogram(x, edges)[0] / len(x) for x in (u, o))
        found.append(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)))
    return found


def test_klom_agrees_with_a_histogram_of_each_example():
    unlearned, oracle = RNG.normal(1, 2, (60, 50)), RNG.normal(0, 1, (45, 50))
    unlearned[:, 7] *= 1000
    np.testing.assert_allclose(klom(unlearned=unlearned, oracle=oracle), slow_klom(unlearned, oracle), rtol=1e-9)


def test_published_klom_loses_the_largest_margin():
    """Bins of width 1 from 0 to 20. Without the margins of 20, unlearned models are 5, all in the first bin, and oracles
    2 + 8: log(1 / .2). With the last bin closed both kinds have all of theirs."""
    unlearned, oracle = column(*[0.5] * 5, *[20] * 5), column(0, 0.9, *[18.5] * 8, 20)
    np.testing.assert_allclose(klom_published(unlearned=unlearned, oracle=oracle), [math.log(5)])
    full = 0.5 * math.log(0.5 / (2 / 11)) + 0.5 * math.log(0.5 / (1 / 11))
    np.testing.assert_allclose(klom(unlearned=unlearned, oracle=oracle), [full])


def test_published_klom_agrees_with_edges_that_no_margin_may_touch_from_above():
    unlearned, oracle = RNG.normal(1, 2, (60, 50)), RNG.normal(0, 1, (45, 50))
    unlearned[:, 7] *= 1000
    expected = []
    for u, o in zip(np.clip(unlearned, -100, 100).T, np.clip(oracle, -100, 100).T, strict=True):
        edges = np.linspace(min(u.min(), o.min()), max(u.max(), o.max()), 21)
        p, q = (np.array([np.sum(np.digitize(kind, edges) == i) for i in range(1, 21)]) for kind in (u, o))
        p, q = p / p.sum(), q / q.sum()
        expected.append(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)))
    np.testing.assert_allclose(klom_published(unlearned=unlearned, oracle=oracle), expected, rtol=1e-9)


def test_published_klom_has_no_value_where_it_counts_no_unlearned_model():
    two = np.hstack([column(*[3] * 10), column(*range(10))])
    found = klom_published(unlearned=two, oracle=np.hstack([column(*[2] * 10), column(*range(10))]))
    np.testing.assert_array_equal(np.isnan(found), [True, False])
    assert klom_published(unlearned=two, oracle=two)[0] == 0, "a range of no width loses nothing"


def test_klom_of_gaussians():
    """KL(N(1, 1) || N(0, 1)) = 1/2, KL(N(0, 1) || N(0, 2)) = log 2 - 3/8; bins lose little, and never add."""
    z, y = RNG.normal(size=(2, 40000, 1))
    assert klom(unlearned=z + 1, oracle=y)[0] == pytest.approx(0.5, abs=0.03)
    assert klom(unlearned=z, oracle=2 * y)[0] == pytest.approx(math.log(2) - 3 / 8, abs=0.03)
    assert klom(unlearned=z, oracle=y)[0] == pytest.approx(0, abs=0.002)


def test_klom_knows_no_order_no_scale_and_no_offset():
    unlearned, oracle = RNG.normal(1, 2, (30, 9)), RNG.normal(0, 1, (20, 9))
    found = klom(unlearned=unlearned, oracle=oracle)
    np.testing.assert_array_equal(klom(unlearned=RNG.permutation(unlearned), oracle=RNG.permutation(oracle)), found)
    np.testing.assert_allclose(klom(unlearned=4 * unlearned + 8, oracle=4 * oracle + 8), found, rtol=1e-9)
    np.testing.assert_allclose(klom(unlearned=oracle, oracle=oracle), np.zeros(9), atol=1e-14)


def test_unlearned_models_that_say_one_thing_are_told_by_klom_and_epsilon():
    """Constant margins in the oracles' midst deceive a likelihood-ratio attack, not these."""
    oracle, constant = RNG.normal(size=(100, 20)), np.zeros((100, 20))
    assert klom(unlearned=constant, oracle=oracle).min() > 1
    assert (eps.epsilon(unlearned=constant, oracle=oracle) == 50).all()


def test_the_summary_holds_mean_and_percentile_between_their_bounds():
    unlearned, oracle = RNG.normal(0.5, 1, (64, 100)), RNG.normal(0, 1, (64, 100))
    values, found = klom(unlearned=unlearned, oracle=oracle), summary(unlearned=unlearned, oracle=oracle)
    assert found.mean.mean == values.mean() and found.p95.mean == np.percentile(values, 95)
    assert found.mean.low < found.mean.mean < found.mean.high and found.mean.count == 64
    other = summary(unlearned=unlearned + 1, oracle=oracle)
    assert other.mean.low > found.mean.high
    tiled = summary(unlearned=np.tile(unlearned, 9), oracle=np.tile(oracle, 9))  # models count, not examples
    np.testing.assert_allclose(tiled.mean, found.mean)


def test_intervals_of_klom_hold_its_expectation():
    """Of 40 fleets at 95%, with margins that examples of one model share, at least 34 must."""

    def draw(shift):
        return RNG.normal(size=(32, 30)) + RNG.normal(size=(32, 1)) + shift

    found = [summary(unlearned=draw(1.0), oracle=draw(0.0)).mean for _ in range(40)]
    expected = np.mean([one.mean for one in found])
    assert sum(one.low < expected < one.high for one in found) >= 34


def test_epsilon_of_randomised_response():
    """A bit that is right three times in four is (log 3, 0)-private; delta takes a little off."""
    unlearned, oracle = column(*[1] * 75, *[0] * 25), column(*[1] * 25, *[0] * 75)
    np.testing.assert_allclose(eps.epsilon(unlearned=unlearned, oracle=oracle, delta=0.0), [math.log(3)])
    np.testing.assert_allclose(eps.epsilon(unlearned=unlearned, oracle=oracle), [math.log(0.74999 / 0.25)])


def test_epsilon_of_three_levels_within_monte_carlo_error():
    """Called unlearned from level 1 on: FPR .6, FNR .1, so log(.4 / .1); level 2 alone gives log(.7 / .3)."""
    unlearned, oracle = RNG.choice(3, (40000, 2), p=[0.1, 0.2, 0.7]), RNG.choice(3, (40000, 2), p=[0.4, 0.3, 0.3])
    np.testing.assert_allclose(eps.epsilon(unlearned=unlearned, oracle=oracle), [math.log(4)] * 2, atol=0.05)


def test_epsilon_of_gaussians_is_that_of_their_tails():
    """At quantiles, the best attack seen is the likelihood ratio of the last tail that both kinds have a model in."""
    n, d = 1000, 1.0
    quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n)[:, None]
    thresholds = (quantiles[1:] + d, quantiles[:-1])  # one unlearned model below; one oracle above
    tails = [
        stats.norm.cdf(thresholds[0]) / stats.norm.cdf(thresholds[0] - d),
        stats.norm.sf(thresholds[1] - d) / stats.norm.sf(thresholds[1]),
    ]
    expected = math.log(max(tail.max() for tail in tails))
    assert eps.epsilon(unlearned=quantiles + d, oracle=quantiles, delta=0.0)[0] == pytest.approx(expected, abs=0.5)
    assert eps.epsilon(unlearned=quantiles + d, oracle=quantiles)[0] <= math.log(n)


def of_rates(fpr, fnr, delta):
    """The epsilon that one attack's error rates show, from the definition; 50 where it makes no error."""
    if fpr == fnr == 0:
        return 50.0
    pairs = ((fpr, fnr), (fnr, fpr)) if fpr and fnr else ()
    return max((math.log(1 - delta - a) - math.log(b) for a, b in pairs if 1 - delta - a > 0), default=0.0)


def slow_epsilon(unlearned, oracle, delta):
    """One example: every attack as a set of scores, its rates counted."""
    attacks = [(t, math.inf) for t in [*unlearned, *oracle]]
    for kind in (sorted(unlearned), sorted(oracle)):
        attacks += [(kind[k], kind[-1 - k]) for k in range(len(kind)) if kind[k] <= kind[-1 - k]]
    best = 0.0
    for low, high in attacks:
        hit = np.mean([low <= x <= high for x in unlearned])
        alarm = np.mean([low <= x <= high for x in oracle])
        best = max(best, of_rates(alarm, 1 - hit, delta), of_rates(1 - alarm, hit, delta))
    return best


def test_epsilon_agrees_with_every_attack_counted():
    for shift, models in ((0, (12, 12)), (1, (11, 16)), (6, (10, 10))):
        unlearned, oracle = (RNG.normal(s, 2, (n, 12)).round() for s, n in zip((shift, 0), models, strict=True))
        found = eps.epsilon(unlearned=unlearned, oracle=oracle, delta=0.01)
        np.testing.assert_allclose(
            found, [slow_epsilon(u, o, 0.01) for u, o in zip(unlearned.T, oracle.T, strict=True)], atol=1e-12
        )
        np.testing.assert_array_equal(eps.epsilon(unlearned=oracle, oracle=unlearned, delta=0.01), found)
        mirrored = eps.epsilon(unlearned=-RNG.permutation(unlearned), oracle=-oracle, delta=0.01)
        np.testing.assert_allclose(mirrored, found, atol=0.7)


def published_epsilon(u, o, delta):
    """One example, every threshold and window of the published grid one by one."""
    pos, neg = (o, u) if np.median(o) > np.median(u) else (u, o)
    grid = np.linspace(min(*u, *o), max(*u, *o), math.ceil(100 * (max(*u, *o) - min(*u, *o))))
    attacks = [(pos, neg, t, math.inf) for t in grid]
    narrow, wide = (o, u) if np.ptp(u) >= np.ptp(o) else (u, o)
    for right in np.linspace(narrow.max() - 2, narrow.max() + 2, 400)[::10]:
        attacks += [(narrow, wide, right - np.ptp(narrow) + off, right) for off in np.linspace(-2, 2, 400)[::10]]
    best = 0.0
    for called, other, low, high in attacks:
        fnr, fpr = np.mean((called < low) | (called > high)), np.mean((other >= low) & (other <= high))
        best = max(best, of_rates(fpr, fnr, delta))
    return best


def test_published_epsilon_agrees_with_its_grid():
    """The slow twin looks at every 100th window: it may miss some, and finds none that is not there."""
    for shift, scale in ((0, 1), (1, 2), (0.3, 0.2), (9, 1)):
        unlearned, oracle = RNG.normal(shift, scale, (20, 6)), RNG.normal(0, 1, (16, 6))
        found = eps.epsilon_published(unlearned=unlearned, oracle=oracle, delta=0.01)
        slow = np.array([published_epsilon(u, o, 0.01) for u, o in zip(unlearned.T, oracle.T, strict=True)])
        assert (found >= slow - 1e-12).all() and (found - slow).max() < 0.8 and np.mean(found - slow) < 0.2
    assert (found == 50).all()


def test_published_epsilon_of_a_narrow_kind_off_the_middle_is_found_by_a_window():
    """Ten scores from .5 to .59 among -1, 0, ... 8: a window holds all of the narrow kind and no other: 50. Ours, whose
    windows have their ends at scores, finds it too."""
    narrow, wide = column(*np.linspace(0.5, 0.59, 10)), column(*range(-1, 9))
    assert eps.epsilon_published(unlearned=narrow, oracle=wide) == [50] == eps.epsilon(unlearned=narrow, oracle=wide)
    half = column(*[0] * 5, *[1] * 5)
    assert eps.epsilon_published(unlearned=half, oracle=half) == [0]
    one = np.hstack([half, column(*[7] * 10)])
    assert eps.epsilon_published(unlearned=one, oracle=one).tolist() == [0, 50], "a peak beside a peak"


def test_separated_fleets_have_no_points_and_equal_ones_have_all():
    """Ten against ten apart: 50. Two values, half of each in both: no attack proves more than 0."""
    apart = eps.epsilon(unlearned=column(*range(10)), oracle=column(*range(10, 20)))
    assert apart == [50.0] and eps.forgetting_quality(apart, 10) == 0
    half = column(*[0] * 5, *[1] * 5)
    assert eps.epsilon(unlearned=half, oracle=half) == [0.0]


def test_buckets_halve_the_points():
    """log 9 rounds up to 3: from there on nothing. The last bucket with points is [2.5, 3)."""
    values = np.array([0, 0.49, 0.5, 1.2, 2.9, 3.0, 50])
    np.testing.assert_array_equal(eps.points(values, 10), [1, 1, 1 / 2, 1 / 4, 1 / 32, 0, 0])
    assert eps.forgetting_quality(np.array([0.1, 0.6, 50]), 512) == pytest.approx(0.5)
    score = eps.final_score(0.5, retain=0.9, oracle_retain=1.0, test=0.6, oracle_test=0.8)
    assert score == pytest.approx(0.5 * 0.9 * 0.75)


FEW, MANY, SPOILT = RNG.normal(size=(9, 3)), RNG.normal(size=(10, 3)), RNG.normal(size=(10, 3))
SPOILT[3, 2] = np.inf


@pytest.mark.parametrize("metric", [klom, summary, eps.epsilon])
@pytest.mark.parametrize(
    "unlearned, oracle, says",
    [
        (FEW, MANY, "unlearned .* at least 10 models, got 9"),
        (MANY, FEW, "oracle .* at least 10 models, got 9"),
        (SPOILT, MANY, "unlearned .* 1 of 30 values are not finite; leave those models out and report them"),
        (MANY, SPOILT, "oracle .* 1 of 30 values are not finite"),
        (MANY, MANY[:, :2], "same examples, got 3 and 2"),
        (MANY, np.repeat(MANY[:1], 10, axis=0), "at least 2 distinct values .* copies"),
        (MANY[0], MANY[0], r"need an array \[models, examples\]"),
        (MANY[:, :0], MANY[:, :0], "no values"),
    ],
)
def test_fleets_are_refused(metric, unlearned, oracle, says):
    with pytest.raises(ValueError, match=says):
        metric(unlearned=unlearned, oracle=oracle)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: eps.epsilon(unlearned=MANY, oracle=MANY + 1, delta=1.0), "delta must be"),
        (lambda: eps.points(np.array([-0.1]), 10), "at least 0"),
        (lambda: eps.points(np.array([0.1]), 9), "10 models, got 0.1 and 9"),
        (lambda: eps.points(np.array([np.nan]), 10), "1 of 1 values are not finite"),
        (lambda: eps.final_score(0.5, retain=1, oracle_retain=0, test=1, oracle_test=1), "above 0, got 0 and 1"),
        (lambda: eps.final_score(math.nan, retain=1, oracle_retain=1, test=1, oracle_test=1), "not finite"),
    ],
)
def test_scores_of_epsilon_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_cka_agrees_with_the_u_statistic():
    """HSIC as the mean over ordered quadruples of distinct examples of k_ij m_ij + k_ij m_qr - 2 k_ij m_iq."""
    a, b = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))

    def hsic(k, m):
        terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(6), 4)]
        return np.mean(terms)

    k, m = a @ a.T, b @ b.T
    assert hsic(k, k) > 0 and hsic(m, m) > 0
    assert linear_cka(a, b) == pytest.approx(hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)))


def test_cka_of_gaussians():
    """b = (a, noise) shares d of d + k directions: sqrt(d / (d + k)); independent ones share none, in few examples too."""
    a, noise = RNG.normal(size=(800, 4)), RNG.normal(size=(800, 12))
    assert linear_cka(a, np.hstack([a, noise])) == pytest.approx(math.sqrt(4 / 16), abs=0.05)
    assert linear_cka(*RNG.normal(size=(2, 50, 500))) == pytest.approx(0, abs=0.1)


def test_cka_knows_no_rotation_scale_offset_or_order():
    a, b = RNG.normal(size=(2, 30, 5))
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    order = RNG.permutation(30)
    assert linear_cka(a, 3 * a @ rotation + 1) == pytest.approx(1)
    assert linear_cka(a[order], (b @ rotation)[order]) == pytest.approx(linear_cka(a, b)) == pytest.approx(linear_cka(b, a))


@pytest.mark.parametrize(
    "a, says",
    [
        (RNG.normal(size=(3, 2)), "at least 4 examples"),
        (np.ones((5, 2)), "do not vary enough"),
        (np.full((5, 2), np.nan), "10 of 10 values are not finite"),
        (np.ones(5), "need two arrays"),
    ],
)
def test_cka_refuses(a, says):
    with pytest.raises(ValueError, match=says):
        linear_cka(a, RNG.normal(size=(len(a), 3)))


def test_preparation_pays_after_so_many_requests():
    """100 more in training, 5 instead of 30 per request: paid after 4."""
    assert break_even(100, 5, 30) == 4
    assert amortised(100, 5, 4) == 30 == amortised(0, 30, 4)
    assert break_even(0, 5, 30) == 0 == break_even(0, 5, 5)
    assert break_even(100, 30, 30) == math.inf == break_even(0, 31, 30)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: amortised(1, 1, 0), "more than 0 requests, got 0"),
        (lambda: amortised(-1, 1, 1), "at least 0, got -1"),
        (lambda: break_even(1, math.nan, 1), "1 of 3 values are not finite"),
    ],
)
def test_cost_refuses(call, says):
    with pytest.raises(ValueError, match=says):
        call()
