"""RR-DU: the walk's steps by hand, its ball and its noise, how often it is where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.erase import noise_scale, rr_du

KEY = jax.random.key(0)
RING = jnp.roll(jnp.eye(4), 1, axis=1)  # from each to the next


def ones(params, client, key):
    return jnp.ones_like(params)


def nothing(params, client, key):
    return jnp.zeros_like(params)


def test_steps_without_noise_on_a_ring():
    """No jumps: client 1, 2, 3, 0, 1; ascent by 1 at client 1, descent by 1 elsewhere."""
    walked = rr_du(jnp.zeros(2), RING, 1, ones, ones, KEY, steps=5, rate=1.0, sigma=0.0, radius=10.0, jump=0.0)
    np.testing.assert_array_equal(walked.visits, [1, 2, 1, 1])
    np.testing.assert_array_equal(walked.model, [-1, -1])
    assert walked.client == 2


def test_the_ball_holds_the_leavers_steps():
    walked = rr_du(jnp.array([3.0, 0.0]), RING, 0, ones, nothing, KEY, steps=9, rate=5.0, sigma=0.0, radius=0.5)
    np.testing.assert_allclose(jnp.linalg.norm(walked.model - jnp.array([3.0, 0.0])), 0.5, rtol=1e-6)


def test_noise_falls_at_the_leaver_alone():
    def run(steps):
        options = {"steps": steps, "rate": 0.5, "sigma": 3.0, "radius": 1e6, "jump": 0.0}
        return rr_du(jnp.zeros(4000), RING, 0, nothing, nothing, KEY, **options).model

    np.testing.assert_allclose(jnp.std(run(4)), 0.5 * 3.0, rtol=0.05)  # one visit in four steps
    np.testing.assert_allclose(jnp.std(run(5)), 0.5 * 3.0 * np.sqrt(2), rtol=0.05)


def test_jumps_bring_the_token_back():
    """On a graph that never leads to client 0, it is there in a share of steps equal to the probability of a jump."""
    graph = jnp.full((4, 4), 1 / 3).at[:, 0].set(0)
    walked = rr_du(jnp.zeros(1), graph, 0, nothing, nothing, KEY, steps=2000, sigma=0.0, radius=1.0)
    np.testing.assert_allclose(walked.visits[0] / 2000, 1 / 4, atol=0.04)


def test_the_scale_of_the_noise():
    args = {"steps": 100, "clients": 10, "jump": 0.1}
    sigma = noise_scale(2.0, 0.5, 1e-5, **args)
    np.testing.assert_allclose(sigma, 4 * np.sqrt(np.log(1e5) * np.log(10)), rtol=1e-12)
    np.testing.assert_allclose(noise_scale(2.0, 0.5, 1e-5, **args, constant=3.0), 3 * sigma)


def test_bad_inputs():
    with pytest.raises(ValueError, match="no probabilities"):
        rr_du(jnp.zeros(1), 2 * RING, 0, ones, ones, KEY, sigma=1.0, radius=1.0)
    with pytest.raises(ValueError, match=r"give \[clients, clients\]"):
        rr_du(jnp.zeros(1), RING[:2], 0, ones, ones, KEY, sigma=1.0, radius=1.0)
    with pytest.raises(ValueError, match="leaver is 4"):
        rr_du(jnp.zeros(1), RING, 4, ones, ones, KEY, sigma=1.0, radius=1.0)
    with pytest.raises(ValueError, match="jump is 2"):
        rr_du(jnp.zeros(1), RING, 0, ones, ones, KEY, sigma=1.0, radius=1.0, jump=2)
    with pytest.raises(ValueError, match="delta is 0"):
        noise_scale(1.0, 1.0, 0.0, steps=1, clients=2, jump=0.5)
