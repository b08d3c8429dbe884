"""Scores of logits, against numbers worked out by hand and the definitions written out."""

import math

import numpy as np
import pytest

from unlearn.metrics.membership import population_attacks
from unlearn.metrics.scores import confidence, entropy, loss, margin, modified_entropy
from unlearn.metrics.zrf import js_divergence, zrf

ALL = (loss, confidence, entropy, modified_entropy, margin)
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws_in_any_order():
    RNG.bit_generator.state = START


def definitions(logits, label):
    """One example's scores from its probabilities, which must not be extreme."""
    weights = [math.exp(z) for z in logits]
    p = [w / sum(weights) for w in weights]
    others = [i for i in range(len(p)) if i != label]
    return {
        "loss": -math.log(p[label]),
        "confidence": p[label],
        "entropy": -sum(q * math.log(q) for q in p),
        "modified_entropy": -(1 - p[label]) * math.log(p[label]) - sum(p[i] * math.log(1 - p[i]) for i in others),
        "margin": math.log(p[label]) - math.log(1 - p[label]),
    }


def test_scores_of_a_half_and_two_quarters():
    logits = np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    labels, log2 = np.array([0, 1]), math.log(2)
    np.testing.assert_allclose(loss(logits, labels), [log2, 2 * log2])
    np.testing.assert_allclose(confidence(logits, labels), [0.5, 0.25])
    np.testing.assert_allclose(entropy(logits, labels), [1.5 * log2] * 2)
    np.testing.assert_allclose(margin(logits, labels), [0, -math.log(3)], atol=1e-15)
    right = 0.5 * log2 + 0.5 * math.log(4 / 3)
    wrong = 0.75 * 2 * log2 + 0.5 * log2 + 0.25 * math.log(4 / 3)
    np.testing.assert_allclose(modified_entropy(logits, labels), [right, wrong])


def test_scores_are_their_definitions_whatever_the_leading_axes():
    logits, labels = RNG.normal(size=(2, 3, 5, 4), scale=3), RNG.integers(0, 4, 5)
    for score in ALL:
        twin = [
            [definitions(row, label)[score.__name__] for row, label in zip(one, labels, strict=True)]
            for one in logits.reshape(6, 5, 4)
        ]
        np.testing.assert_allclose(score(logits, labels), np.reshape(twin, (2, 3, 5)), rtol=1e-11)


def test_certain_models_have_exact_scores():
    """Probabilities 1 and 0 to the last bit, where log(1 - p) of a rounded p would be infinite."""
    logits, labels = np.array([[1000.0, 0, 0], [1000, 0, 0]]), np.array([0, 1])
    np.testing.assert_allclose(margin(logits, labels), [1000 - math.log(2), -1000], rtol=1e-15)
    np.testing.assert_allclose(loss(logits, labels), [0, 1000], rtol=1e-15)
    np.testing.assert_allclose(modified_entropy(logits, labels), [0, 2000 - math.log(2)], rtol=1e-15)


def test_small_losses_are_not_rounded_to_0():
    """float32 logits too are scored in float64, and 1 - p is never formed."""
    sure = np.array([[40.0, 0.0]], np.float32)
    np.testing.assert_allclose(margin(sure, np.array([0])), [40], rtol=1e-15)
    np.testing.assert_allclose(loss(sure, np.array([0])), [math.exp(-40)], rtol=1e-12)
    np.testing.assert_allclose(entropy(sure, np.array([0])), [41 * math.exp(-40)], rtol=1e-12)
    np.testing.assert_allclose(
        modified_entropy(sure, np.array([0])), [math.exp(-80) + math.exp(-40) * math.exp(-40)], rtol=1e-9
    )


@pytest.mark.parametrize("score", ALL)
def test_scores_know_no_order_of_classes_and_no_offset(score):
    logits, labels = RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(score(logits[:, order], np.argsort(order)[labels]), score(logits, labels), rtol=1e-12)
    np.testing.assert_allclose(score(logits + 8.0, labels), score(logits, labels), rtol=1e-12)


def test_modified_entropy_is_not_the_one_with_log_p():
    logits, labels = RNG.normal(size=(50, 10), scale=3), RNG.integers(0, 10, 50)
    log_p = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    terms = np.exp(log_p) * log_p
    rows = np.arange(50)
    faulty = -(1 - np.exp(log_p[rows, labels])) * log_p[rows, labels] - terms.sum(axis=1) + terms[rows, labels]
    assert np.abs(modified_entropy(logits, labels) - faulty).max() > 0.5


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize(
    "logits, labels, says",
    [
        (np.array([[0.0, np.nan]]), np.array([0]), "1 of 2 values are not finite"),
        (np.array([[0.0, np.inf]]), np.array([0]), "1 of 2 values are not finite"),
        (np.zeros((3, 1)), np.zeros(3, int), "at least 2 classes"),
        (np.zeros((0, 2)), np.zeros(0, int), "no values"),
        (np.zeros((3, 2)), np.zeros(2, int), "one for each of 3 examples"),
        (np.zeros((1, 2)), np.array([-1]), "integers from 0 to 1"),
        (np.zeros((1, 2)), np.array([2]), "integers from 0 to 1"),
        (np.zeros((1, 2)), np.array([0.0]), "integers from 0 to 1"),
    ],
)
def test_scores_refuse(score, logits, labels, says):
    with pytest.raises(ValueError, match=says):
        score(logits, labels)


def scored(margins):
    """What population attacks look at, of two classes and label 0."""
    logits, labels = np.stack([margins, np.zeros_like(margins)], axis=1), np.zeros(len(margins), int)
    return {score.__name__: score(logits, labels) for score in (loss, confidence, entropy, modified_entropy)}


def gaussian(count, shift):
    """Of margins N(shift, 1)."""
    return scored(RNG.normal(shift, 1, count))


def test_population_attacks_on_gaussian_margins():
    """Loss, confidence and modified entropy of two classes are functions of the margin alone: AUC = Phi(d / sqrt 2)."""
    attacks = population_attacks(gaussian(2000, 1.0), gaussian(2000, 0.0))
    assert set(attacks) == {"loss", "confidence", "entropy", "modified_entropy"}
    for name in ("loss", "confidence", "modified_entropy"):
        assert attacks[name].auc == pytest.approx(0.7602, abs=0.03)  # Phi(.7071)
        assert attacks[name].balanced_accuracy == pytest.approx(0.6915, abs=0.03)  # Phi(1 / 2)
    assert attacks["loss"].auc == attacks["confidence"].auc
    assert attacks["entropy"].auc < attacks["loss"].auc  # knows no labels


def test_members_are_those_of_whom_the_model_is_sure():
    sure, unsure = scored(np.linspace(5, 6, 8)), scored(np.linspace(0, 1, 8))
    assert all(attack == (1.0, 1.0) for attack in population_attacks(sure, unsure).values())


def test_population_attacks_refuse():
    one, flat = gaussian(5, 0.0), scored(np.zeros(5))
    with pytest.raises(ValueError, match="at least 5 members and 5 others"):
        population_attacks(one, gaussian(4, 0.0))
    with pytest.raises(ValueError, match="loss: need at least 2 distinct values"):
        population_attacks(flat, flat)
    with pytest.raises(ValueError, match="not finite"):
        population_attacks({name: values * np.nan for name, values in one.items()}, one)


def test_zrf_of_what_is_certain_and_what_is_not():
    """JS of (1, 0) and (1/2, 1/2) is H(3/4) - 1/2 in bits; of (1, 0) and (0, 1) it is 1."""
    certain, even = np.array([[[1000.0, 0]]]), np.zeros((1, 1, 2))
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    np.testing.assert_allclose(zrf(js_divergence(certain, even)), [1 - expected])
    np.testing.assert_allclose(zrf(js_divergence(certain, certain[..., ::-1])), [0])
    np.testing.assert_allclose(zrf(js_divergence(certain, certain)), [1])


def test_js_is_symmetric_and_does_not_scale_with_classes():
    p, q = RNG.normal(size=(2, 7, 3), scale=4)
    found = js_divergence(p, q)
    np.testing.assert_allclose(js_divergence(q, p), found, rtol=1e-12)
    split = np.repeat(p, 100, axis=1), np.repeat(q, 100, axis=1)  # each class becomes a hundred alike
    np.testing.assert_allclose(js_divergence(*split), found, rtol=1e-9)
    for one, first, second in zip(found, p, q, strict=True):
        a, b = (np.exp(z) / np.exp(z).sum() for z in (first, second))
        m = (a + b) / 2
        assert one == pytest.approx((np.sum(a * np.log2(a / m)) + np.sum(b * np.log2(b / m))) / 2)


def test_zrf_has_a_value_per_model_and_one_teacher_for_all():
    logits, teacher = RNG.normal(size=(4, 7, 3)), RNG.normal(size=(7, 3))
    each = [1 - js_divergence(one, teacher).mean() for one in logits]
    np.testing.assert_allclose(zrf(js_divergence(logits, teacher)), each)


@pytest.mark.parametrize(
    "teacher, says", [(np.zeros((3, 3)), "alike"), (np.full((3, 2), np.nan), "6 of 6 values are not finite")]
)
def test_zrf_refuses(teacher, says):
    with pytest.raises(ValueError, match=says):
        zrf(js_divergence(np.zeros((3, 2)), teacher))
