"""TOFU's scores, against numbers worked out by hand."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from unlearn.metrics.tofu import (
    Answers,
    choice_probability,
    forget_quality,
    forgotten_truth,
    kept_truth,
    model_utility,
    probability,
    truth_ratio,
    utilities,
)

RIGHT, WRONG = -np.log([0.5, 0.1]), -np.log([[0.1, 0.4], [0.2, 0.2]])


def test_a_choice_is_among_all_answers():
    assert probability(RIGHT) == pytest.approx([0.5, 0.1])
    assert choice_probability(RIGHT, WRONG) == pytest.approx([0.5, 0.1 / 0.5])


def test_choices_of_no_probability_are_still_compared():
    """exp(-800) is 0 in floating point, and the ratio of two of them is none."""
    assert choice_probability(np.array([800.0]), np.array([[800.0, 800.0, 801.0]])) == pytest.approx(1 / (3 + np.exp(-1)))


def test_the_two_truth_ratios_average_different_things():
    """Geometric mean sqrt(.04) = .2 and arithmetic mean .25 of .1 and .4, over .5; where wrong answers agree, no matter."""
    assert truth_ratio(RIGHT, WRONG, "losses") == pytest.approx([0.4, 2.0])
    assert truth_ratio(RIGHT, WRONG, "probabilities") == pytest.approx([0.5, 2.0])


def test_a_truth_ratio_that_no_float_holds_is_the_highest():
    ratios = truth_ratio(np.array([900.0, 0.0]), np.array([[1.0], [900.0]]), "losses")
    assert np.isfinite(ratios).all() and ratios[0] > 1e300 and ratios[1] == 0
    assert forgotten_truth(ratios) == pytest.approx(0, abs=1e-12) and kept_truth(ratios) == 0.5


def test_aggregates_of_truth_ratios():
    """Forgetting wants R near 1 from either side; elsewhere it is to be low."""
    ratios = np.array([0.5, 2.0, 1.0, 0.0])
    assert forgotten_truth(ratios) == pytest.approx((0.5 + 0.5 + 1 + 0) / 4)
    assert kept_truth(ratios) == pytest.approx((0.5 + 0 + 0 + 1) / 4)


def test_forget_quality_of_three_against_three():
    """Apart: of (6 over 3) = 20 orders, 2 have a statistic of 1. Alike: statistic 0."""
    low, high = np.array([0.1, 0.2, 0.3]), np.array([0.7, 0.8, 0.9])
    assert forget_quality(low, high) == pytest.approx((2 / 20, 1.0)) == forget_quality(high, low)
    assert forget_quality(low, low) == pytest.approx((1.0, 0.0))
    assert forget_quality(low, np.array([0.15, 0.25, 0.8])).statistic == pytest.approx(1 / 3)


def test_forget_quality_is_that_of_the_losses_it_comes_from():
    """A rank test: the ratio upside down, or its logarithm, gives the same p-value."""
    rng = np.random.default_rng(0)
    losses = [(rng.gamma(2, 1, 40), rng.gamma(2, 1, (40, 5)) + shift) for shift in (0.0, 0.7)]
    ratios = [truth_ratio(*pair, "losses") for pair in losses]
    logs = [right - wrong.mean(axis=1) for right, wrong in losses]
    assert forget_quality(*ratios).p_value == pytest.approx(ks_2samp(*logs).pvalue)
    assert forget_quality(*(1 / ratio for ratio in ratios)) == pytest.approx(forget_quality(*ratios))


def test_utility_is_a_harmonic_mean():
    """9 / (8 + 10), and one score of 0 is enough to have none."""
    scores = np.ones((3, 3))
    scores[1, 2] = 0.1
    assert model_utility(scores) == pytest.approx(9 / 18)
    scores[1, 2] = 0
    assert model_utility(scores) == 0


def test_the_nine_scores_of_utility():
    """Retained answers have their own probability, the others that among choices; R is .4 and 2, or .5 and 2."""
    answers = Answers(RIGHT, RIGHT, WRONG, np.array([1.0, 0.5]))
    scores = utilities(answers, answers, answers, "losses")
    np.testing.assert_allclose(scores, [[0.75, 0.3, 0.3], [0.75, 0.35, 0.3], [0.75, 0.35, 0.3]])
    np.testing.assert_allclose(utilities(answers, answers, answers, "probabilities")[:, 2], 0.25)
    assert model_utility(scores) == pytest.approx(9 / (3 / 0.75 + 4 / 0.3 + 2 / 0.35))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: truth_ratio(RIGHT, WRONG, "mean"), "give 'losses' or 'probabilities'"),
        (lambda: truth_ratio(-RIGHT, WRONG, "losses"), "paraphrased answers: some are negative, give mean token losses"),
        (lambda: truth_ratio(RIGHT[:1], WRONG, "losses"), r"must be \[questions\] and of perturbed ones"),
        (lambda: choice_probability(WRONG, WRONG), r"must be \[questions\] and of wrong ones"),
        (lambda: choice_probability(RIGHT * np.nan, WRONG), "right answers: 2 of 2 values are not finite"),
        (lambda: probability(-RIGHT), "losses: some are negative"),
        (lambda: forget_quality(np.ones(0), np.ones(2)), "unlearned truth ratios: no values"),
        (lambda: forget_quality(np.ones(2), np.ones((2, 2))), r"retrained truth ratios: need \[questions\]"),
        (lambda: forgotten_truth(np.array([-1.0])), "none below 0"),
        (lambda: kept_truth(np.array([np.inf])), "not finite"),
        (lambda: model_utility(np.ones(9)), r"three scores of three sets, \[3, 3\], got shape \(9,\)"),
        (lambda: model_utility(np.full((3, 3), 60.0)), "give shares and no percentages"),
        (lambda: model_utility(np.full((3, 3), np.nan)), "not finite"),
    ],
)
def test_what_no_score_can_be_computed_of_is_refused(call, says):
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
