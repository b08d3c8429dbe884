"""The judge's weaker witnesses: what a model's last layer is given, and what attacks, ZRF and CKA say of fleets."""

import types

import jax
import numpy as np
import pytest

from experiments import models
from experiments.core.keys import Purpose
from experiments.core.results import Estimate
from experiments.judge import metrics, population
from unlearn.metrics import cka, membership, zrf

SHAPES = {"mlp": {"widths": (16, 8)}, "cnn": {}, "resnet18": {"width": 8}, "vit": {}, "whitened": {"widths": (8, 16)}}


@pytest.mark.parametrize("name", models.MODELS)
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
LABELS = metrics.Labels(
    pool=RNG.integers(0, 5, POOL),
    retain=np.zeros(0, int),
    validation=np.zeros(0, int),
    test=RNG.integers(0, 5, TEST),
    forgotten=np.arange(POOL) < 25,
    others=np.arange(TEST) % 2 == 0,
)


def kept(pool, test, features):
    return metrics.Kept(pool, *(np.zeros((LANES, 0, 5)),) * 2, test, *(None,) * 4, failed={})._replace(features=features)


def fleet(knows, seed):
    """Models whose right logit is `knows` higher on what they hold, and features that mix a common signal with noise."""
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(LANES, POOL, 5)) + knows * np.eye(5)[LABELS.pool]
    features = np.random.default_rng(9).normal(size=(25, 6)) + rng.normal(size=(3, 25, 6)) * 0.5
    return kept(pool, rng.normal(size=(LANES, TEST, 5)), features)


def test_witnesses_are_the_metrics_over_the_first_models():
    one, oracle = fleet(2.0, 1), fleet(0.0, 2)
    teachers = np.random.default_rng(3).normal(size=(2, 25, 5))
    found = population.heard(one, oracle, LABELS, teachers)
    by_hand = [
        membership.population_attacks(one.pool[i, :25], LABELS.pool[:25], one.test[i, ::2], LABELS.test[::2])
        for i in range(3)
    ]
    for score in by_hand[0]:
        for how in ("auc", "balanced_accuracy"):
            mean = np.mean([getattr(lane[score], how) for lane in by_hand])
            assert found["attacks"][score][how].value == pytest.approx(mean)
    assert found["attacks"]["estimate"].value == found["attacks"]["modified_entropy"]["auc"].value > 0.7
    assert found["zrf"].value == pytest.approx(np.mean([zrf.zrf(one.pool[i, :25], teachers) for i in range(3)]))
    assert found["zrf"].value < population.heard(oracle, None, LABELS, teachers)["zrf"].value
    pairs = [[cka.linear_cka(a, b) for b in oracle.features] for a in one.features]
    assert found["cka"].value == pytest.approx(np.mean(pairs)) and found["cka"].n == found["zrf"].n == 3


def test_what_cannot_be_said_has_no_value_and_a_reason():
    one, teachers = fleet(0.0, 1), np.zeros((1, 25, 5))
    assert "reference" in population.heard(one, None, LABELS, teachers)["cka"].reason
    nobody = kept(one.pool[:0], one.test[:0], one.features[:0])
    found = population.heard(nobody, one, LABELS, teachers)
    assert set(found.values()) == {Estimate(reason="no model has finite logits")}
    lost = population.heard(one, nobody, LABELS, teachers)
    assert lost["cka"].reason == "no model has finite logits" and lost["zrf"].value is not None
    flat = kept(np.zeros_like(one.pool), np.zeros_like(one.test), np.zeros_like(one.features))
    found = population.heard(flat, one, LABELS, teachers)
    assert all(found[name].value is None for name in ("attacks", "cka"))
    assert found["zrf"].value == 1


def test_untrained_models_are_kept_and_drawn_under_their_own_keys(tmp_path, monkeypatch):
    drawn = []
    problem = types.SimpleNamespace(
        dataset=types.SimpleNamespace(train=types.SimpleNamespace(x=np.arange(6.0)[:, None])),
        forget=np.array([1, 4]),
    )
    monkeypatch.setattr(population.capacity, "untrained", lambda _, seeds, stream: drawn.append((list(seeds), stream)))
    monkeypatch.setattr(population.capacity, "predict", lambda _, params, x: x[None] * np.ones((8, 1, 3)))
    case = types.SimpleNamespace(name="some", seed=5, problem=problem, workdir=types.SimpleNamespace(path=tmp_path))
    for _ in range(2):
        np.testing.assert_array_equal(population.untrained(case)[0, :, 0], [1, 4])
    assert drawn == [(list(range(5, 13)), Purpose.UNTRAINED)]
