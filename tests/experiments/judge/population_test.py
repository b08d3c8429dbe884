"""The judge's weaker witnesses: what a model's last layer is given, and what attacks, ZRF and CKA say of fleets."""

import types

import jax
import numpy as np
import pytest

from experiments import models
from experiments.core.keys import Purpose
from experiments.core.results import Estimate
from experiments.judge import metrics, population
from experiments.scoring.statistics import of_logits
from tests.helpers import fleets
from unlearn.metrics import cka, membership, scores, zrf

SHAPES = {"mlp": {"widths": (16, 8)}, "cnn": {}, "resnet18": {"width": 8}, "vit": {}, "whitened": {"widths": (8, 16)}}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("resnet18", "whitened"))) for n in models.MODELS]
)
def test_the_last_layer_makes_the_logits_of_the_features(name):
    x = jax.random.normal(jax.random.key(0), (3, 16, 16, 1))
    model = models.of_module(models.make_module(name, SHAPES[name], 10), x.shape[1:])
    params = model.init(jax.random.key(1))
    features = models.as_features(model).apply(params, x, jax.random.key(2))
    last = max((layer for layer in params if layer.startswith("Dense_")), key=lambda layer: int(layer.split("_")[1]))
    logits = models.as_model(model).apply(params, x, jax.random.key(2))
    np.testing.assert_allclose(features @ params[last]["kernel"] + params[last]["bias"], logits, rtol=1e-5, atol=1e-5)


POOL, LANES, TEST = 40, 12, 30
RNG = np.random.default_rng(0)
LABELS, TEST_LABELS = RNG.integers(0, 5, POOL), RNG.integers(0, 5, TEST)
TEACHERS = np.random.default_rng(3).normal(size=(2, 25, 5))  # logits
MASKS = metrics.Masks(forgotten=np.arange(POOL) < 25, others=np.arange(TEST) % 2 == 0)


def kept(pool, test, features):
    """Of logits on the pool and the test set."""
    return fleets.kept(np.zeros((5, 1, 1)))._replace(
        pool=of_logits(pool, LABELS),
        test=of_logits(test, TEST_LABELS),
        features=features,
        divergence=zrf.js_divergence(pool[: len(features), None, :25], TEACHERS).mean(axis=1),
    )


def logits(knows, seed):
    """Of models whose right logit is `knows` higher on what they hold: on the pool, and on the test set."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(LANES, POOL, 5)) + knows * np.eye(5)[LABELS], rng.normal(size=(LANES, TEST, 5))


def fleet(knows, seed):
    """Those models, and features that mix a common signal with noise."""
    noise = np.random.default_rng(100 + seed).normal(size=(3, 25, 6))
    return kept(*logits(knows, seed), np.random.default_rng(9).normal(size=(25, 6)) + noise * 0.5)


def attacked(statistics, lane, rows):
    """What attacks look at, by the definitions of `unlearn.metrics.scores`."""
    names = {"loss": scores.loss, "confidence": scores.confidence, "entropy": scores.entropy}
    names["modified_entropy"] = scores.modified_entropy
    values, labels = statistics
    return {name: score(values[lane, rows], labels[rows]) for name, score in names.items()}


def test_witnesses_are_the_metrics_over_the_first_models():
    one, oracle = fleet(2.0, 1), fleet(0.0, 2)
    pool, test = logits(2.0, 1)
    found = population.heard(one, oracle, MASKS)
    by_hand = [
        membership.population_attacks(
            attacked((pool, LABELS), i, slice(25)), attacked((test, TEST_LABELS), i, slice(None, None, 2))
        )
        for i in range(3)
    ]
    for score in by_hand[0]:
        for how in ("auc", "balanced_accuracy"):
            mean = np.mean([getattr(lane[score], how) for lane in by_hand])
            assert found["attacks"][score][how].value == pytest.approx(mean)
    assert found["attacks"]["estimate"].value == found["attacks"]["modified_entropy"]["auc"].value > 0.7
    assert found["zrf"].value == pytest.approx(np.mean([1 - zrf.js_divergence(pool[i, :25], TEACHERS) for i in range(3)]))
    assert found["zrf"].value < population.heard(oracle, None, MASKS)["zrf"].value
    pairs = [[cka.linear_cka(a, b) for b in oracle.features] for a in one.features]
    assert found["cka"].value == pytest.approx(np.mean(pairs)) and found["cka"].n == found["zrf"].n == 3


def test_what_cannot_be_said_has_no_value_and_a_reason():
    one = fleet(0.0, 1)
    assert "reference" in population.heard(one, None, MASKS)["cka"].reason
    nobody = one._replace(features=one.features[:0], divergence=one.divergence[:0])
    found = population.heard(nobody, one, MASKS)
    assert set(found.values()) == {Estimate(reason="no model has finite logits")}
    lost = population.heard(one, nobody, MASKS)
    assert lost["cka"].reason == "no model has finite logits" and lost["zrf"].value is not None
    flat = kept(*(np.zeros_like(some) for some in logits(0.0, 1)), np.zeros_like(one.features))
    found = population.heard(flat._replace(divergence=np.zeros((3, 25))), one, MASKS)
    assert all(found[name].value is None for name in ("attacks", "cka"))
    assert found["zrf"].value == 1


def test_untrained_models_are_drawn_under_their_own_keys(monkeypatch):
    drawn = []
    monkeypatch.setattr(population.capacity, "untrained", lambda _, seeds, purpose: drawn.append((list(seeds), purpose)))
    population.teachers(types.SimpleNamespace(seed=5))
    assert drawn == [(list(range(5, 13)), Purpose.UNTRAINED)]
