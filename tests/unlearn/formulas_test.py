"""Formulas of the shelf by hand: objectives, the cap, and random labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from tests.helpers.shelf import make, relabel
from unlearn import Request, classifier, tree, unlearn

# by hand: two classes, logits are the parameters, log 3 and 0, so p = (3/4, 1/4); the start is uniform


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


BY_HAND = classifier(lambda params, x, key: jnp.broadcast_to(params, (x.shape[0], 2)))


def constant_batch(label, weights=(1.0,)):
    n = len(weights)
    return {"x": np.zeros((n, 1)), "y": np.full(n, label), "id": np.arange(n), "weight": np.array(weights)}


LOW, HIGH = np.log(4 / 3), np.log(4)  # the losses of labels 0 and 1


@pytest.mark.parametrize(
    "name, options, value",
    [
        ("ascent", {}, -HIGH),
        ("ascent", {"cap": 1.0}, -1.0),
        ("ascent", {"cap": 2.0}, -HIGH),
        ("graddiff", {}, -HIGH + LOW),
        ("graddiff", {"gamma": 2.0}, -HIGH + 2 * LOW),
        ("neggrad_plus", {}, 0.95 * LOW - 0.05 * HIGH),
        ("neggrad_plus", {"beta": 0.5}, 0.5 * LOW - 0.5 * HIGH),
        ("ascent_kl", {}, -HIGH + 0.5 * LOW),  # KL(1/2, 1/2 || 3/4, 1/4) = 1/2 log 2/3 + 1/2 log 2
        ("ascent_kl", {"gamma": 3.0}, -HIGH + 1.5 * LOW),
        ("npo", {"beta": 1.0}, 2 * np.log(3 / 2)),  # p / p_start = 1/2, sigmoid(log 2) = 2/3
        ("npo", {"beta": 2.0}, np.log(5 / 4)),  # sigmoid(2 log 2) = 4/5
        (
            "level",
            {},
            LOW / 2 + np.log(3) ** 2 / 8,
        ),  # -log 3, where retained examples of label 0 gave label 1 a margin of 0
        ("level", {"width": 1.0}, LOW / 2 + (np.log(3) - 0.5) / 2),
        ("level", {"target": -6.0, "beta": 0.2}, 0.2 * LOW + 0.8 * (5 - np.log(3))),
        ("finetune", {}, LOW),
        ("random_label", {}, LOW + LOW),  # of two classes the other one is 0
        ("random_label", {"gamma": 3.0}, LOW + 3 * LOW),
    ],
)
def test_objective_by_hand(name, options, value):
    request = Request(constant_batch(1), constant_batch(0, weights=(2.0, 0.0)))
    state = make(name, model=BY_HAND, **options).init(np.zeros(2), request, jax.random.key(0))
    state = state._replace(params=np.array([np.log(3), 0.0]))
    _, info = make(name, model=BY_HAND, **options).update(state, request, jax.random.key(0))
    assert float(info.objective) == pytest.approx(value, rel=1e-12)


def test_ascent_moves_up_by_the_rate_times_the_gradient():
    """The slope of -log p_1 in the logits is p - (0, 1) = (3/4, -3/4)."""
    params, request = np.array([np.log(3), 0.0]), Request(constant_batch(1))
    algorithm = make("ascent", optax.sgd(0.4), BY_HAND)
    after, info = algorithm.update(algorithm.init(params, request, None), request, None)
    np.testing.assert_allclose(after.params, [np.log(3) + 0.3, -0.3], rtol=1e-12)
    assert float(info.grad_norm) == pytest.approx(0.75 * 2**0.5)


@pytest.mark.parametrize("cap, moves", [(HIGH - 1e-6, False), (HIGH + 1e-6, True), (None, True)])
def test_capped_ascent_stands_still_above_the_cap(cap, moves):
    params, request = np.array([np.log(3), 0.0]), Request(constant_batch(1))
    algorithm = make("ascent", model=BY_HAND, cap=cap)
    after, info = algorithm.update(algorithm.init(params, request, None), request, None)
    assert tree.bits_equal(after.params, params) is not moves
    assert (float(info.grad_norm) > 0) is moves


def test_the_cap_is_on_the_mean_and_not_on_each_example():
    """Losses log 4 and log 4/3: their mean, 0.837, lies below 0.9 although one of them does not."""
    batch = {**constant_batch(1, (1.0, 1.0)), "y": np.array([1, 0])}
    algorithm = make("ascent", model=BY_HAND, cap=0.9)
    state = algorithm.init(np.array([np.log(3), 0.0]), Request(batch), None)
    assert float(algorithm.update(state, Request(batch), None)[1].objective) == pytest.approx(-(LOW + HIGH) / 2)


@pytest.mark.parametrize("name, objective", [("ascent_kl", -np.log(2)), ("npo", 2 / 0.1 * np.log(2))])
def test_at_the_start_the_reference_is_the_model(name, objective):
    """KL(p, p) = 0 and -log sigmoid(0) = log 2; and NPO's first gradient is that of ascent."""
    params, request = np.zeros(2), Request(constant_batch(1), constant_batch(0))
    algorithm = make(name, model=BY_HAND)
    after, info = algorithm.update(algorithm.init(params, request, None), request, None)
    assert float(info.objective) == pytest.approx(objective, rel=1e-12)
    ascent = make("ascent", model=BY_HAND)
    toys.assert_close(after.params, ascent.update(ascent.init(params, request, None), request, None)[0].params, 1e-12)


# random labels


IDS = np.arange(5000)


def test_random_labels_are_never_the_true_ones_and_uniform_over_the_others():
    true = IDS % 4
    new = relabel(IDS, true)
    for label in range(4):
        counts = np.bincount(new[true == label], minlength=4)
        assert counts[label] == 0
        assert np.all(np.abs(np.delete(counts, label) - 1250 / 3) < 5 * np.sqrt(1250 * (1 / 3) * (2 / 3)))


def test_a_random_label_belongs_to_an_id_whatever_the_batch():
    labels, order = IDS % 4, np.random.default_rng(0).permutation(5000)
    full = relabel(IDS, labels)
    np.testing.assert_array_equal(relabel(IDS[order], labels[order]), full[order])
    np.testing.assert_array_equal(relabel(IDS[7:9], labels[7:9]), full[7:9])
    assert np.any(relabel(IDS, labels, seed=1) != full)


@pytest.mark.parametrize("dtype, classes", [(np.uint8, 200), (np.int8, 100)])
def test_random_labels_do_not_overflow_small_integers(dtype, classes):
    labels = relabel(IDS, np.full(5000, classes - 1, dtype), classes)
    assert labels.dtype == dtype
    assert set(labels.tolist()) == set(range(classes - 1))


def test_random_labels_are_the_same_in_float32_and_float64_programs():
    wide = relabel(IDS, IDS % 4)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(relabel(IDS, IDS % 4), wide)


def test_random_labels_are_stable_over_steps():
    """Parameters that never move (rate 0) see one and the same objective at every step, whatever the step's key."""
    algorithm = make("random_label", optax.sgd(0.0))
    still = toys.stack([toys.first(toys.requests())] * 4)
    _, infos = toys.quick_jit(lambda params: unlearn(algorithm, params, toys.first(still), still, jax.random.key(0)))(
        toys.mlp_params()
    )
    assert len(set(np.asarray(infos.objective).tolist())) == 1
