"""The quick recipe: filters that whiten what a lane knows, the triangular schedule, mirrored answers."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import models
from experiments.core.machines import execution
from experiments.models.layers import patches
from experiments.models.whitened import SQUARE, Whitened
from experiments.training import epochs, loop, whitening
from tests.helpers import tiny, toys
from unlearn import classifier, tree

MODULE = Whitened(3, (4,), groups=2)
MODEL = models.of_module(MODULE, (8, 6, 3))
EXAMPLES = 12


def data():
    """Coloured images whose pixels go together, as those of photographs do."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, 8, 6, 3)) + 2 * rng.normal(size=(EXAMPLES, 1, 1, 3)).cumsum(axis=-1)
    return {
        "x": jnp.asarray(x, jnp.float32),
        "y": jnp.arange(EXAMPLES) % 3,
        "id": 7 * jnp.arange(EXAMPLES),
        "weight": jnp.ones(EXAMPLES),
    }


MEMBER = np.stack([np.ones(EXAMPLES, bool), np.arange(EXAMPLES) < 8])


def params():
    lanes = loop.make_lanes([0, 1], MEMBER[0], MEMBER[0])
    return loop.init_lanes(loop.Way(MODEL, optax.sgd(0.1), 2, 2, 4), lanes).params


def test_patches_by_hand():
    """Rows of a 3x4 image of one channel: two whole patches, and a last row that fills none."""
    image = jnp.arange(12.0).reshape(1, 3, 4, 1)
    assert patches(image, SQUARE, SQUARE, "VALID").tolist() == [[[[0, 1, 4, 5], [2, 3, 6, 7]]]]


def test_a_lanes_filters_whiten_the_patches_of_its_members():
    """Their mean products are 1 for a component with itself, but for the floor, and 0 for two of them."""
    start = params()
    filters = whitening.prepared(MODULE, start, jnp.asarray(MEMBER), data()["x"])["whitening"].reshape(2, 12, 12)
    for lane, member in enumerate(MEMBER):
        pixels = np.asarray(patches(data()["x"][member], SQUARE, SQUARE, "VALID")).reshape(-1, 12)
        white = pixels @ filters[lane]
        products = white.T @ white / len(white)
        assert np.all(np.diag(products) > 0.9) and np.all(np.diag(products) <= 1.0001)
        np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-4)
        raw = pixels.T @ pixels / len(pixels)
        assert np.abs(raw - np.eye(12)).max() > 1, "they were not white before"
    assert toys.relative_error(filters[0], filters[1]) > 0.01


def test_filters_never_see_whom_the_lane_does_not_know():
    start, x = params(), data()["x"]
    dirty = jnp.where(MEMBER[1][:, None, None, None], x, jnp.nan)
    clean, poisoned = (whitening.prepared(MODULE, start, jnp.asarray(MEMBER), each)["whitening"] for each in (x, dirty))
    assert tree.bits_equal(clean[1], poisoned[1]) and tree.all_finite(clean)
    assert not tree.all_finite(poisoned[0])


def test_images_that_stay_on_disk_are_read_in_parts(monkeypatch):
    start, x = params(), data()["x"]
    whole = whitening.prepared(MODULE, start, jnp.asarray(MEMBER), x)
    monkeypatch.setattr(whitening, "AT_ONCE", 5)
    parts = whitening.prepared(MODULE, start, jnp.asarray(MEMBER), np.asarray(x))
    assert toys.relative_error(np.abs(parts["whitening"]), np.abs(whole["whitening"])) < 1e-4  # signs are free


def test_other_modules_are_left_alone():
    start = {"whitening": jnp.ones(3)}
    assert whitening.prepared(tiny.MODEL.module, start, MEMBER, None) is start


@pytest.mark.parametrize("private", [None, (1.0, 0.0)])  # without noise, which would move what has no gradient
def test_training_begins_with_the_filters_and_leaves_them_as_they_are(private, tmp_path):
    """DP-SGD keeps the random ones: those of the members would be told without noise."""
    way = loop.Way(MODEL, optax.sgd(0.1, momentum=0.9), 2, 2, 4, private=private)
    lanes = loop.make_lanes([0, 1], MEMBER[0], MEMBER[0].astype(float))._replace(member=jnp.asarray(MEMBER))
    start = loop.init_lanes(way, lanes).params
    epoch_fn = epochs.make(way, execution.one_device(convolutional=True))
    trained = loop.train(way, lanes, data(), None, epoch_fn, tmp_path, lambda entry: None, 1e9).params
    wanted = start if private else whitening.prepared(MODULE, start, lanes.member, data()["x"])
    assert tree.bits_equal(trained["whitening"], wanted["whitening"])
    assert toys.relative_error(trained["Dense_0"], start["Dense_0"]) > 0.01


def test_the_schedule_by_hand():
    """Eight steps at a peak of 10: up from a fifth in two of them, down to 0 in six; momentum 0 shows the bare rate."""
    rule = whitening.optimizer(10.0, 0.0, 8)
    state, rates = rule.init(jnp.zeros(())), []
    for _ in range(9):
        update, state = rule.update(jnp.ones(()), state)
        rates.append(-float(update))
    np.testing.assert_allclose(rates, [2, 6, 10, 50 / 6, 40 / 6, 5, 20 / 6, 10 / 6, 0], atol=1e-5)


def test_momentum_is_nesterovs():
    """At a constant gradient of 1 the first step is 1 + m, not 1."""
    rule = whitening.optimizer(1.0, 0.9, 4)
    update, _ = rule.update(jnp.ones(()), rule.init(jnp.zeros(())))
    np.testing.assert_allclose(update, -0.2 * 1.9, rtol=1e-6)


def test_both_ways_is_the_mean_over_an_image_and_its_mirror_image():
    model = classifier(lambda params, x, key: x[:, 0, :, 0] ** params)
    x = jnp.array([[1.0, 2.0, 4.0]])[:, None, :, None]
    answer = whitening.both_ways(model).apply(2.0, x, None)
    assert answer.tolist() == [[8.5, 4.0, 8.5]]
