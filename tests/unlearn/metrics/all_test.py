"""Metrics, against numbers worked out by hand."""

import numpy as np
import pytest

from unlearn.metrics.gaps import average_gap, loss_gap, tow, tow_mia
from unlearn.metrics.membership import loss_attack
from unlearn.metrics.relearning import Strength, normalised_area, separation, steps_to_recover, strongest, weakest

ORACLE = {"forget_accuracy": 0.2, "retain_accuracy": 1.0, "test_accuracy": 0.5, "test_retain_accuracy": 0.1}
SCORES = {"forget_accuracy": 0.3, "retain_accuracy": 0.8, "test_accuracy": 0.9, "test_retain_accuracy": 0.9}


def test_gaps_to_the_oracle():
    """Distances of .1, .2 and .4, to either side."""
    assert average_gap(SCORES, ORACLE) == pytest.approx(0.7 / 3) == average_gap(ORACLE, SCORES)
    assert tow(SCORES, ORACLE) == pytest.approx(0.9 * 0.8 * 0.6) == tow(ORACLE, SCORES)
    assert (average_gap(ORACLE, ORACLE), tow(ORACLE, ORACLE)) == (0, 1)


def test_tow_mia_looks_at_the_attack_instead_of_forget_accuracy():
    """AUCs .45 and .7 are .25 apart, and which way does not matter."""
    scores, oracle = {**SCORES, "mia_auc": 0.45}, {**ORACLE, "mia_auc": 0.7}
    assert tow_mia(scores, oracle) == pytest.approx(0.75 * 0.8 * 0.6) == tow_mia(oracle, scores)
    assert tow_mia({**scores, "forget_accuracy": 1.0}, oracle) == tow_mia(scores, oracle)


def test_the_gap_of_texts_is_that_of_their_losses():
    """Losses are 1 below, .5 above and the oracle's own: distances of 1, .5 and 0 nats."""
    names = ("forget_token_loss", "retain_token_loss", "test_token_loss")
    mine, oracle = (dict(zip(names, losses, strict=True)) for losses in ((2.0, 1.5, 7.0), (3.0, 1.0, 7.0)))
    assert loss_gap(mine, oracle) == 0.5 == loss_gap(oracle, mine)
    with pytest.raises(ValueError, match="scores have no 'test_token_loss'"):
        loss_gap(dict(list(mine.items())[:2]), oracle)


@pytest.mark.parametrize("metric", [average_gap, tow, tow_mia])
def test_percentages_are_no_shares(metric):
    scores = {**SCORES, "mia_auc": 0.5}
    percent = {name: 100 * value for name, value in scores.items()}
    for pair in ((percent, scores), (scores, percent), (percent, percent)):
        with pytest.raises(ValueError, match=r"is \d+: give shares from 0 to 1, not percentages$"):
            metric(*pair)
    with pytest.raises(ValueError, match="scores have no 'test_accuracy': give one for the model and one for the oracle"):
        metric({name: value for name, value in scores.items() if name != "test_accuracy"}, scores)
    assert np.isnan(metric({**scores, "retain_accuracy": float("nan")}, scores))  # a failed model's, as it was
    assert metric({**scores, "retain_accuracy": 1 + 1e-6}, scores) >= 0  # rounding of a mean


def test_members_are_those_with_the_lower_loss():
    """Of 25 pairs the member's loss is lower in 5 + 5 + 3 + 3 + 1."""
    attack = loss_attack(np.array([0.1, 0.2, 1.1, 1.2, 2.1]), np.array([1.0, 0.9, 2.0, 1.9, 3.0]))
    assert attack.auc == pytest.approx(17 / 25)


def test_the_auc_has_a_direction_and_the_classifier_has_none():
    low, high = np.linspace(0.1, 0.2, 8), np.linspace(1.0, 2.0, 8)
    assert loss_attack(low, high) == (1.0, 1.0)
    assert loss_attack(high, low) == (0.0, 1.0)


def test_both_sides_count_alike_however_many_they_are():
    """All members and half of the others are alike: members are found always, others half the time."""
    others = np.where(np.arange(40) % 2, 0.1, 10.0)
    assert loss_attack(np.full(10, 0.1), others) == pytest.approx((0.5 + 0.5 * 0.5, (1.0 + 0.5) / 2))


def test_an_attack_on_losses_that_are_not_finite_has_no_value():
    assert np.isnan(loss_attack(np.array([0.1, 0.2, 0.3, 0.4, np.inf]), np.ones(5))).all()


@pytest.mark.parametrize("members, others", [(4, 5), (5, 4)])
def test_an_attack_on_too_few_is_refused(members, others):
    with pytest.raises(ValueError, match="at least 5 members and 5 others"):
        loss_attack(np.ones(members), np.ones(others))


def test_relearning_is_measured_between_the_oracle_and_what_was_never_forgotten():
    oracle = np.array([0.0, 0.2, 0.4])  # 1, .8 and .6 below an original of 1
    assert normalised_area(oracle, oracle, 1.0) == 0
    assert normalised_area(np.ones(3), oracle, 1.0) == 1
    assert normalised_area(np.array([0.0, 0.5, 0.7]), oracle, 1.0) == pytest.approx(0.6 / 2.4)
    assert np.isnan(normalised_area(oracle, np.ones(3), 1.0))


def test_recovery_is_the_first_step_at_the_level():
    curve = np.array([0.1, 0.5, 0.4, 0.9])
    assert [steps_to_recover(curve, level) for level in (0.1, 0.5, 0.6, 0.91)] == [0, 1, 3, np.inf]


@pytest.mark.parametrize(
    "curve, level, says",
    [
        (np.array([0.1, np.nan]), 0.5, "1 of 2 values are not finite"),
        (np.array([0.1, 0.2]), np.nan, "level to recover"),
        (np.array([0.1]), 0.5, "at least 1 step"),
    ],
)
def test_recovery_of_no_curve_is_refused(curve, level, says):
    with pytest.raises(ValueError, match=says):
        steps_to_recover(curve, level)


def test_separation_is_in_spreads_of_the_oracles_and_never_in_less_than_an_example():
    """Oracles at 0 and 0, then at .4 and .6 (mean .5, deviation .1 sqrt 2); models at .05 and then at .6 and 1."""
    oracle, curves = np.array([[[0, 0.4], [0, 0.6]]]), np.array([[[0.05, 0.6], [0.05, 1.0]]])
    np.testing.assert_allclose(separation(curves, oracle, 0.01), [[5, 0.3 / np.sqrt(0.02)]])
    np.testing.assert_allclose(separation(curves, oracle, 1.0), [[0.05, 0.3]])
    np.testing.assert_array_equal(separation(oracle, oracle, 0.01), [[0, 0]])


def test_strengths_are_ordered_by_rate_times_steps():
    """The third step at .1 is as strong as the first at .3, and of a lower rate; the fourth is stronger than both."""
    apart = np.zeros((2, 5))
    apart[0, 3] = apart[1, 1] = apart[0, 4] = 2.5
    assert strongest(apart, (0.1, 0.3)) == Strength(0.1, 3) == weakest(apart, (0.1, 0.3))
    apart[1, 4] = 3
    assert strongest(apart, (0.1, 0.3)) == Strength(0.3, 4) and weakest(apart, (0.1, 0.3), 2.6) == Strength(0.3, 4)
    assert weakest(apart, (0.1, 0.3), 3) is None
    apart[:, 0] = 9  # before any attack
    assert strongest(apart, (0.1, 0.3)) == Strength(0.1, 0)


@pytest.mark.parametrize(
    "curves, oracle, grain, says",
    [
        (np.zeros((1, 2, 3)), np.zeros((1, 2, 4)), 0.1, "of the same strengths"),
        (np.zeros((2, 3)), np.zeros((2, 3)), 0.1, "must be .rates, lanes, steps"),
        (np.zeros((1, 2, 3)), np.zeros((1, 1, 3)), 0.1, "needs 2 oracles"),
        (np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), 0.0, "a grain above 0"),
        (np.full((1, 2, 3), np.nan), np.zeros((1, 2, 3)), 0.1, "not finite"),
    ],
)
def test_separation_refuses(curves, oracle, grain, says):
    with pytest.raises(ValueError, match=says):
        separation(curves, oracle, grain)
