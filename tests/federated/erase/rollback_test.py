"""Rollback against retraining from the start: bit for bit, with the rounds to redo counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated import without
from federated.erase import averaging, class_shares, first_affected, retrain, rollback
from tests.helpers.histories import pulls, random_weights, trained

KEY = jax.random.key(0)
WEIGHTS = random_weights(6, 4)
WEIGHTS[:3, 2] = 0  # client 2 joins in round 3
WEIGHTS[3:, 2] = 0.5
WEIGHTS /= WEIGHTS.sum(axis=1, keepdims=True)
UPDATE = pulls(4, 3, [0.1, 0.2, 0.3, 0.4])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mask(*leavers):
    return jnp.isin(jnp.arange(4), jnp.array(leavers))


def models_of(weights):
    """The server's models, by the same step that erases."""
    step, checkpoints = jax.jit(averaging(UPDATE, KEY)), [jnp.ones(3)]
    for index, row in enumerate(weights):
        checkpoints.append(step(checkpoints[-1], jnp.array(index), row))
    return jnp.stack(checkpoints)


def test_the_prefix_stands_and_the_rest_is_retraining_bit_for_bit():
    weights, step = jnp.asarray(WEIGHTS), averaging(UPDATE, KEY)
    checkpoints = models_of(weights)
    erased = rollback(checkpoints, weights, mask(2), step)
    oracle = retrain(checkpoints[0], weights, mask(2), step)
    np.testing.assert_array_equal(erased.model, oracle.model)
    assert first_affected(weights, mask(2)) == 3
    assert (erased.rounds, oracle.rounds) == (3, 6)
    assert erased.updates == np.sum(WEIGHTS[3:, [0, 1, 3]] > 0)


def test_retraining_is_training_client_by_client():
    _, checkpoints = trained(UPDATE, without(jnp.asarray(WEIGHTS), mask(0, 3)), 3, KEY)
    erased = retrain(jnp.ones(3), jnp.asarray(WEIGHTS), mask(0, 3), averaging(UPDATE, KEY))
    np.testing.assert_allclose(erased.model, checkpoints[-1], atol=1e-15)


def test_who_never_took_part_changes_nothing():
    weights = jnp.asarray(WEIGHTS).at[:, 3].set(0)
    checkpoints = models_of(weights)
    erased = rollback(checkpoints, weights, mask(3), averaging(UPDATE, KEY))
    np.testing.assert_array_equal(erased.model, checkpoints[-1])
    assert first_affected(weights, mask(3)) == 6 and erased.rounds == erased.updates == 0


def test_rounds_of_the_leaver_alone_are_passed_over():
    weights = jnp.array([[0.0, 1.0], [0.5, 0.5], [0.0, 1.0]])
    step = lambda params, index, row: params + row @ jnp.array([[1.0], [5.0]])  # noqa: E731
    erased = rollback(jnp.zeros((4, 1)), weights, jnp.array([False, True]), step)
    assert erased.model == 1 and erased.rounds == 1 and erased.updates == 1


def test_a_class_goes_by_shares_and_the_clients_own_data():
    """Client 2 holds ten examples of the class among twenty, the others none: its weight falls, its update is another."""
    counts = jnp.array([[10, 0], [10, 0], [10, 10], [10, 0]])
    shares = class_shares(counts, 1)
    left_update = lambda params, client, key: UPDATE(params, client, key) * jnp.where(client == 2, 0.5, 1)  # noqa: E731
    weights = jnp.asarray(WEIGHTS)
    erased = rollback(models_of(weights), weights, shares, averaging(left_update, KEY))
    row = WEIGHTS * np.array([1, 1, 0.5, 1])
    _, checkpoints = trained(left_update, row / row.sum(axis=1, keepdims=True), 3, KEY)
    np.testing.assert_allclose(erased.model, checkpoints[-1], atol=1e-14)


def test_many_requests_in_one_program():
    weights, step = jnp.asarray(WEIGHTS), averaging(UPDATE, KEY)
    checkpoints = models_of(weights)
    together = jax.vmap(lambda leavers: rollback(checkpoints, weights, leavers, step))(jnp.eye(4, dtype=bool))
    for leaver in range(4):
        apart = retrain(checkpoints[0], weights, mask(leaver), step)
        np.testing.assert_allclose(together.model[leaver], apart.model, atol=1e-15)


def test_checkpoints_that_are_not_those_of_all_rounds():
    with pytest.raises(ValueError, match=r"\[7, parameters\]"):
        rollback(jnp.zeros((6, 3)), jnp.asarray(WEIGHTS), mask(0), averaging(UPDATE, KEY))
