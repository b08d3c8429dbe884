"""Histories: models by hand, weights without a client."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from federated import History, models, took_part, without


def test_models_add_weighted_updates() -> None:
    updates = jnp.array([[[1.0, 0.0], [3.0, 2.0]], [[0.0, 0.0], [4.0, -1.0]]])
    kept = History(jnp.array([10.0, 20.0]), updates, jnp.array([[0.25, 0.75], [0.0, 1.0]]))
    np.testing.assert_array_equal(models(kept), [[10, 20], [12.5, 21.5], [16.5, 20.5]])
    np.testing.assert_array_equal(took_part(kept), [[True, True], [False, True]])


def test_the_others_share_a_round() -> None:
    weights = jnp.array([[0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])
    alone = without(weights, jnp.array([True, False, False]))
    np.testing.assert_allclose(alone, [[0, 0.25, 0.75], [0, 0, 0]], rtol=1e-6)
