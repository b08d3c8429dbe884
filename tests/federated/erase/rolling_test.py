"""Fast-FedUL's rule: by hand, against its published form and a slow twin, and the variance of what compression leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated import History, models, without
from federated.erase.rolling import correction, fast_fedul, medu, rollback_variance, round_change
from tests.helpers.histories import random_history, random_weights


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mask(*leavers, clients=4):
    return jnp.isin(jnp.arange(clients), jnp.array(leavers))


def slow(history, leavers, alpha, gone=None):
    """w' from its definition: delta'_t = sum_u (without(weights) - weights)[t, u] h_t^u, and powers of 1 + alpha."""
    _, updates, weights = (np.asarray(leaf) for leaf in history)
    before = weights if gone is None else np.asarray(without(history.weights, gone))
    moved = np.asarray(without(history.weights, leavers)) - before
    last = len(updates) - 1
    return sum((1 + alpha) ** (last - t) * moved[t, u] * h for t, row in enumerate(updates) for u, h in enumerate(row))


def test_a_round_by_hand():
    weights, updates = jnp.array([0.5, 0.25, 0.25]), jnp.array([[4.0, 0.0], [0.0, 8.0], [8.0, 4.0]])
    # Without the first: (0, 1/2, 1/2), so -1/2 h_0 + 1/4 h_1 + 1/4 h_2.
    np.testing.assert_array_equal(round_change(weights, updates, jnp.array([1.0, 0, 0])), [0, 3])
    np.testing.assert_array_equal(round_change(weights, updates, jnp.zeros(3)), [0, 0])
    # Alone in a round: without it the round does nothing.
    np.testing.assert_array_equal(round_change(jnp.array([1.0, 0, 0]), updates, jnp.array([1.0, 0, 0])), [-4, 0])


@pytest.mark.parametrize("others", [1e-5, 1e-12, 1e-30])
def test_a_client_of_nearly_all_the_weight_leaves_a_round_to_the_others(others):
    weights, updates = jnp.array([1 - others, others, others], jnp.float32), jnp.array([[5.0], [1.0], [2.0]], jnp.float32)
    np.testing.assert_allclose(round_change(weights, updates, jnp.array([1, 0, 0], jnp.float32)), [1.5 - 5], rtol=1e-4)


def test_the_published_form_is_the_case_of_equal_weights():
    updates = jax.random.normal(jax.random.key(0), (5, 3))
    others = updates[jnp.array([0, 1, 3, 4])]
    published = jnp.sum(others - updates[2], axis=0) / (5 * 4)
    weights = jnp.full((1, 5), 0.2)
    np.testing.assert_allclose(round_change(weights[0], updates, mask(2, clients=5) * 1.0), published, atol=1e-15)
    np.testing.assert_allclose((without(weights, mask(2, clients=5)) - weights) @ updates, published[None], atol=1e-15)


@pytest.mark.parametrize("alpha", [0.0, 0.07, -0.07])
@pytest.mark.parametrize("leavers", [(2,), (0, 3), ()])
def test_any_weights_and_participation_against_the_definition(alpha, leavers):
    history = random_history()
    corrected = correction(history, mask(*leavers), alpha=alpha)
    np.testing.assert_allclose(corrected, slow(history, mask(*leavers), alpha), atol=1e-14)


def test_without_skew_it_is_training_without_the_client():
    """Of updates that do not depend on the model; partial participation, and a round that the leaver had alone."""
    history = random_history(rounds=6)
    history = history._replace(weights=history.weights.at[2].set(jnp.array([0.0, 1.0, 0.0, 0.0])))
    for leavers in (mask(1), mask(1, 2)):
        retrained = models(history._replace(weights=without(history.weights, leavers)))[-1]
        erased = fast_fedul(models(history)[-1], history, leavers, alpha=0.0)
        np.testing.assert_allclose(erased.model, retrained, atol=1e-14)
        assert erased.rounds == erased.updates == 0


def test_the_skew_by_hand_and_its_sign():
    history = History(jnp.zeros(1), jnp.array([[[0.0], [2.0]], [[0.0], [4.0]]]), jnp.full((2, 2), 0.5))
    model, leavers = models(history)[-1], jnp.array([True, False])  # changes 1 and 2; the model 3
    assert fast_fedul(model, history, leavers, alpha=0.5).model == 3 + 1.5 * 1 + 2
    assert fast_fedul(model, history, leavers, alpha=-0.5).model == 3 + 0.5 * 1 + 2


@pytest.mark.parametrize("alpha", [0.0, 0.07])
def test_one_after_another_is_at_once_and_one_comes_back(alpha):
    history = random_history()
    model = models(history)[-1]
    first = fast_fedul(model, history, mask(1), alpha=alpha).model
    both = fast_fedul(first, history, mask(1, 3), gone=mask(1), alpha=alpha).model
    np.testing.assert_allclose(both, fast_fedul(model, history, mask(1, 3), alpha=alpha).model, atol=1e-14)
    np.testing.assert_allclose(both - first, slow(history, mask(1, 3), alpha, gone=mask(1)), atol=1e-14)
    back = fast_fedul(both, history, mask(3), gone=mask(1, 3), alpha=alpha).model
    np.testing.assert_allclose(back, fast_fedul(model, history, mask(3), alpha=alpha).model, atol=1e-14)
    np.testing.assert_allclose(fast_fedul(first, history, mask(), gone=mask(1), alpha=alpha).model, model, atol=1e-14)


def test_shares_lower_weights_as_fewer_examples_would():
    history = random_history(rounds=2)
    shares = jnp.array([0.5, 0.0, 0.25, 0.0])
    stay = np.asarray(history.weights) * (1 - np.asarray(shares))
    moved = stay / stay.sum(axis=1, keepdims=True) - np.asarray(history.weights)
    expected = np.einsum("tu,tum->m", moved, np.asarray(history.updates))
    np.testing.assert_allclose(correction(history, shares), expected, atol=1e-14)
    np.testing.assert_allclose(correction(history, jnp.full(4, 0.3)), 0, atol=1e-14)  # alike for all: nothing changes


def test_medu_is_the_rule_on_what_was_kept():
    history = random_history()
    kept = history._replace(updates=jnp.round(history.updates * 4) / 4)
    model, leavers = models(history)[-1], mask(0)
    expected = model + correction(kept, leavers)
    np.testing.assert_array_equal(medu(model, kept, leavers).model, expected)


def test_leavers_may_be_traced():
    history, alpha = random_history(), jnp.array(0.05)
    together = jax.vmap(lambda leavers: correction(history, leavers, alpha=alpha))(jnp.eye(4, dtype=bool))
    apart = [correction(history, mask(u), alpha=0.05) for u in range(4)]
    np.testing.assert_allclose(together, apart, atol=1e-15)


def test_the_variance_of_the_reference():
    """25 clients, 10 rounds, errors of a scalar quantiser with unit step and subtractive dither: 10 / 12 / (25 * 24)."""
    rounds, clients = 10, 25
    weights = jnp.full((rounds, clients), 1 / clients)
    leavers = mask(0, clients=clients)
    predicted = rollback_variance(weights, leavers, jnp.full(rounds, 1 / 12))
    np.testing.assert_allclose(predicted, 1 / 720, rtol=1e-12)  # .001389
    updates = jax.random.normal(jax.random.key(0), (rounds, clients, 5_000))
    dither = jax.random.uniform(jax.random.key(1), updates.shape, minval=-0.5, maxval=0.5)
    history = History(jnp.zeros(5_000), updates, weights)
    kept = history._replace(updates=jnp.round(updates + dither) - dither)
    noise = correction(kept, leavers) - correction(history, leavers)
    np.testing.assert_allclose(jnp.var(noise), predicted, rtol=0.08)  # four standard errors of a variance of 5,000 draws
    np.testing.assert_allclose(jnp.mean(noise), 0, atol=4 * np.sqrt(predicted / 5_000))


def test_the_variance_of_any_weights_and_skew():
    weights = jnp.asarray(random_weights(4, 4))
    errors, leavers, alpha = jnp.array([1.0, 2.0, 3.0, 4.0]), mask(1, 2), 0.1
    moved = np.asarray(without(weights, leavers)) - np.asarray(weights)
    expected = sum(1.1 ** (2 * (3 - t)) * float(errors[t]) * (moved[t] ** 2).sum() for t in range(4))
    np.testing.assert_allclose(rollback_variance(weights, leavers, errors, alpha=alpha), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "leavers, message",
    [
        (jnp.ones(4, bool), "all clients leave"),
        (jnp.array([2]), "one bool for each of the 4 clients"),
        (jnp.array([0, 1, 0, 0]), "leavers are int"),
        (jnp.array([0.0, 1.5, 0, 0]), "from 0 to 1"),
        (jnp.array([0.0, jnp.nan, 0, 0]), "from 0 to 1"),
    ],
)
def test_leavers_that_cannot_be_meant(leavers, message):
    history = random_history()
    with pytest.raises(ValueError, match=message):
        fast_fedul(models(history)[-1], history, leavers)


def test_shapes_and_numbers_that_do_not_fit():
    history = random_history()
    model = models(history)[-1]
    with pytest.raises(ValueError, match="ravel it to the 3 parameters"):
        fast_fedul(model[:2], history, mask(0))
    with pytest.raises(ValueError, match=r"give \[parameters\]"):
        fast_fedul(model, history._replace(weights=history.weights[:2]), mask(0))
    with pytest.raises(ValueError, match="alpha is -1"):
        fast_fedul(model, history, mask(0), alpha=-1.0)
    with pytest.raises(ValueError, match="one variance for each of the 5 rounds"):
        rollback_variance(history.weights, mask(0), jnp.ones(4))
