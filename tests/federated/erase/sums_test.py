"""Running sums: filled online, against the history method bit for bit and against training without the leavers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated import History, models, without
from federated.erase.rolling import fast_fedul
from federated.erase.sums import init_sums, running_sums, stored_bytes, summed, sums_without, update_sums
from tests.helpers.histories import random_history

FIXED = np.tile([0.4, 0.1, 0.2, 0.3], (5, 1))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mask(*leavers, clients=4):
    return jnp.isin(jnp.arange(clients), jnp.array(leavers))


ADD = jax.jit(update_sums)


def online(history, alpha=0.0):
    """The sums as a server keeps them: round by round, each in a call of its own."""
    sums = init_sums(*history.updates.shape[1:], history.updates.dtype)
    for weights, updates in zip(history.weights, history.updates, strict=True):
        sums = ADD(sums, weights, updates, alpha=alpha)
    return sums


def test_a_round_by_hand():
    empty, updates = init_sums(3, 1, jnp.float64), jnp.array([[4.0], [0.0], [8.0]])
    sums = update_sums(empty, jnp.array([0.5, 0.25, 0.25]), updates)  # s = 4
    np.testing.assert_allclose(sums.totals, [[0], [4 / 3], [-4 / 3]], rtol=1e-12)
    sums = update_sums(sums, jnp.array([0.0, 1.0, 0.0]), jnp.array([[0.0], [5.0], [0.0]]), alpha=0.5)
    np.testing.assert_allclose(sums.totals, [[0], [2 - 5], [-2]], rtol=1e-12)
    assert not sums.fixed and sums.rounds == 2


@pytest.mark.parametrize("weights", [None, FIXED], ids=["partial", "fixed"])
def test_one_client_is_the_history_bit_for_bit(weights):
    history = random_history(weights=weights)
    model, sums = models(history)[-1], online(history)
    for leaver in range(4):
        expected = fast_fedul(model, history, mask(leaver), alpha=0.0).model
        np.testing.assert_array_equal(running_sums(model, sums, mask(leaver)).model, expected)


def test_several_are_the_history_bit_for_bit_where_nothing_is_rounded():
    weights = np.tile([0.5, 0.125, 0.125, 0.25], (3, 1))
    updates = jnp.asarray(np.random.default_rng(0).integers(-8, 8, (3, 4, 2)) * 7.0 * 3.0)  # 1 - p: 1/2, 7/8, 3/4
    history = History(jnp.zeros(2), updates, jnp.asarray(weights))
    model, leavers = models(history)[-1], mask(1, 2, 3)  # half of the weight leaves
    expected = fast_fedul(model, history, leavers, alpha=0.0).model
    np.testing.assert_array_equal(running_sums(model, online(history), leavers).model, expected)
    np.testing.assert_array_equal(expected, np.sum(updates[:, 0], axis=0))


@pytest.mark.parametrize("alpha", [0.0, 0.07, -0.07])
def test_several_of_fixed_weights_are_the_history(alpha):
    history = random_history(weights=FIXED)
    model, sums = models(history)[-1], online(history, alpha)
    for leavers in (mask(0), mask(1, 3), mask(0, 1, 2), mask(), jnp.array([0.5, 0.0, 0.25, 1.0])):
        expected = fast_fedul(model, history, leavers, alpha=alpha).model
        np.testing.assert_allclose(running_sums(model, sums, leavers).model, expected, atol=1e-13)


def test_it_is_training_without_the_client():
    history = random_history()
    retrained = models(history._replace(weights=without(history.weights, mask(2))))[-1]
    np.testing.assert_allclose(running_sums(models(history)[-1], online(history), mask(2)).model, retrained, atol=1e-14)


@pytest.mark.parametrize("alpha", [0.0, 0.07])
def test_a_history_read_in_order_leaves_the_same_sums(alpha):
    history = random_history()
    for leaf, expected in zip(summed(history, alpha=alpha), online(history, alpha), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-15)


def test_one_after_another_is_at_once_and_training_goes_on():
    history = random_history(weights=FIXED)
    model, sums = models(history)[-1], online(history)
    first, left = running_sums(model, sums, mask(1)).model, sums_without(sums, mask(1))
    np.testing.assert_allclose(left.totals[1], 0)
    second = running_sums(first, left, mask(3)).model
    np.testing.assert_allclose(second, running_sums(model, sums, mask(1, 3)).model, atol=1e-14)
    # One more round without client 1, then client 3 leaves.
    weights, updates = left.weights, jnp.asarray(np.random.default_rng(5).normal(size=(4, 3)))
    on = update_sums(left, weights, updates)
    assert on.fixed and weights[1] == 0
    going = History(history.start, jnp.vstack([history.updates, updates[None]]), jnp.vstack([history.weights, weights]))
    retrained = models(going._replace(weights=without(going.weights, mask(1, 3))))[-1]
    np.testing.assert_allclose(running_sums(first + weights @ updates, on, mask(3)).model, retrained, atol=1e-14)


def test_the_last_that_is_left_cannot_leave():
    history = random_history(weights=FIXED)
    model, sums = models(history)[-1], online(history)
    with pytest.raises(ValueError, match="one client would be left"):
        sums_without(sums, mask(0, 1, 2))
    left = sums_without(sums, mask(0, 1))
    assert np.isfinite(left.totals).all()
    with pytest.raises(ValueError, match="all clients that are left leave"):
        running_sums(model, left, mask(2, 3))


def test_what_sums_cannot_do_is_refused():
    history = random_history()
    model, sums = models(history)[-1], online(history)
    with pytest.raises(ValueError, match="sums take out one whole client"):
        running_sums(model, sums, mask(0, 1))
    with pytest.raises(ValueError, match="sums take out one whole client"):
        running_sums(model, sums, jnp.array([0.5, 0.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="sums cannot go on without a client"):
        sums_without(sums, mask(0))
    with pytest.raises(ValueError, match="ravel it to the 3 parameters"):
        running_sums(model[:1], sums, mask(0))
    with pytest.raises(ValueError, match="give those of one round"):
        update_sums(sums, history.weights, history.updates)


def test_bytes_do_not_grow_with_rounds():
    short, long = (random_history(rounds=rounds) for rounds in (2, 20))
    assert stored_bytes(summed(short)) == stored_bytes(summed(long)) == 8 * (4 * 3 + 4) + 1 + 4
    assert stored_bytes(long) - stored_bytes(short) == 8 * 18 * (4 * 3 + 4)
