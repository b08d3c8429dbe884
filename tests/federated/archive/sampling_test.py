"""User sampling: probabilities by hand and against bisection, unbiased factors, the largest."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.archive import inclusion, largest, sampled
from tests.helpers import toys


@pytest.mark.parametrize("count", [0.5, 1, 2, 3.5, 5])
def test_probabilities_follow_norms_are_capped_and_sum_to_the_count(count):
    norms = np.array([0.0, 5.0, 1.0, 0.1, 30.0, 2.0, 0.0])
    low, high = 0.0, 1e3
    for _ in range(100):  # the slope, by bisection
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * norms, 1).sum() < count else (low, middle)
    chances = inclusion(jnp.asarray(norms), count)
    np.testing.assert_allclose(chances, np.minimum(low * norms, 1), atol=1e-5)
    assert chances.sum() == pytest.approx(min(count, 5), rel=1e-5)


def test_few_senders_are_all_stored_and_nobody_is_invented():
    np.testing.assert_array_equal(inclusion(jnp.array([0.0, 0.2, 7.0]), 3), [0, 1, 1])
    np.testing.assert_array_equal(inclusion(jnp.zeros(3), 2), [0, 0, 0])
    np.testing.assert_array_equal(largest(jnp.array([0.0, 0.2, 7.0]), 3), [0, 1, 1])


def test_factors_have_mean_one_and_are_drawn_by_user_and_round():
    norms, ids, rounds = jnp.array([3.0, 1.0, 2.0, 0.0]), jnp.array([9, 4, 6, 1]), jnp.arange(3000)

    @toys.quick_jit
    @functools.partial(jax.vmap, in_axes=(None, None, 0))
    def draw(norms, ids, t):
        return sampled(jax.random.key(0), norms, 2, ids, t)

    factors = draw(norms, ids, rounds)
    chances = np.array([1, 1 / 3, 2 / 3])
    error = np.sqrt((1 - chances) / chances / len(rounds))
    assert (abs(factors[:, :3].mean(axis=0) - 1) <= 4 * error + 1e-6).all()
    assert (factors[:, 3] == 0).all() and abs((factors > 0).sum(axis=1).mean() - 2) < 0.05
    np.testing.assert_allclose(draw(norms[::-1], ids[::-1], rounds)[:, ::-1], factors, rtol=1e-5)
