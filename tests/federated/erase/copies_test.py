"""MPU: noise that falls out of the mean, of the size asked for, and linear unlearning that never sees it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.erase import layer_sigma, mpu, zero_sum_noise

KEY = jax.random.key(0)
SCALES = jnp.array([1.0, 2.0, 0.5])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_noise_falls_out_of_the_weighted_mean():
    noise = zero_sum_noise(SCALES, jnp.full(50_000, 0.3), KEY)
    np.testing.assert_allclose((1 / SCALES) @ noise, 0, atol=1e-13)
    np.testing.assert_allclose(jnp.std(noise, axis=1), 0.3 * SCALES, rtol=0.02)


def test_the_size_of_noise_is_the_layers():
    sigma = layer_sigma(jnp.array([1.0, 7.0, -2.0]), jnp.array([4, 4, 2]) % 3, 0.1)
    np.testing.assert_allclose(sigma, [0.5, 0.5, 0.2])


def test_linear_unlearning_is_as_without_noise():
    model, layers = jnp.array([1.0, -2.0, 3.0]), jnp.array([0, 0, 1])
    unlearn = lambda params, key: -0.5 * (params - 4.0)  # noqa: E731
    erased = mpu(model, layers, unlearn, KEY, scales=SCALES, kappa=5.0, rounds=3)
    np.testing.assert_allclose(erased.model, 4 + (model - 4) / 8, atol=1e-12)
    assert (erased.rounds, erased.updates) == (3, 9)


def test_what_a_copy_sees_is_not_the_model():
    """Of a curved update noise does not fall out: with m copies its mean has the noise's variance."""
    model, layers = jnp.ones(20_000), jnp.zeros(20_000, int)
    erased = mpu(model, layers, lambda params, key: params**2, KEY, scales=jnp.ones(3), kappa=0.5, rounds=1)
    np.testing.assert_allclose(jnp.mean(erased.model), 1 + 1 + 0.25, rtol=0.02)


def test_one_copy_is_refused():
    with pytest.raises(ValueError, match="a positive one for each copy"):
        zero_sum_noise(jnp.array([1.0, 0.0]), jnp.ones(2), KEY)
    with pytest.raises(ValueError, match="at least 2 copies"):
        mpu(jnp.ones(2), jnp.zeros(2, int), lambda params, key: params, KEY, scales=jnp.ones(1))
