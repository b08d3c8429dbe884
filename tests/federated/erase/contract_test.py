"""Clients by index: their data, their ids and their keys as in training."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from federated.erase import ask, asking, averaging

DATA = {"x": jnp.arange(6.0).reshape(3, 2), "weight": jnp.ones((3, 1))}
IDS = jnp.array([70, 50, 60])


def noisy(params, batch, key):
    return jax.tree.map(lambda leaf: batch["x"].sum() - leaf + jax.random.normal(key, leaf.shape), params)


def test_a_client_answers_from_its_data_and_its_id():
    params = {"a": jnp.ones(2), "b": jnp.zeros((1, 2))}
    flat, unravel = ravel_pytree(params)
    answer, key = asking(noisy, DATA, IDS, unravel), jax.random.key(3)
    for client in range(3):
        batch = {"x": DATA["x"][client], "weight": DATA["weight"][client]}
        expected = ravel_pytree(noisy(params, batch, jax.random.fold_in(key, IDS[client])))[0]
        np.testing.assert_array_equal(answer(flat, client, key), expected)
    order = jnp.array([2, 0, 1])  # by their ids, clients draw alike wherever they stand
    moved = asking(noisy, {name: leaf[order] for name, leaf in DATA.items()}, IDS[order], unravel)
    together = ask(answer, flat, jnp.array([0.5, 0.0, 0.5]), key)
    np.testing.assert_allclose(ask(moved, flat, jnp.array([0.5, 0.5, 0.0]), key), together[order], rtol=1e-6)
    np.testing.assert_array_equal(together[1], 0)


def test_a_round_adds_the_weighted_mean_under_the_rounds_key():
    answer, key, weights = asking(noisy, DATA, IDS, lambda flat: flat), jax.random.key(3), jnp.array([0.25, 0.75, 0.0])
    answers = ask(answer, jnp.ones(2), weights, jax.random.fold_in(key, 7))
    stepped = averaging(answer, key)(jnp.ones(2), jnp.array(7), weights)
    np.testing.assert_allclose(stepped, 1 + 0.25 * answers[0] + 0.75 * answers[1], rtol=1e-6)
