"""FedRecover: curvature against a dense BFGS twin, exact recovery of isotropic quadratics, and who is asked when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.erase import averaging, curvature_product, fedrecover, retrain
from tests.helpers.histories import pulls, random_weights, trained

KEY = jax.random.key(0)
PRODUCT = jax.jit(curvature_product)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mask(*leavers):
    return jnp.isin(jnp.arange(4), jnp.array(leavers))


def dense(moves, changes):
    """The BFGS matrix, update by update from sigma I."""
    sigma = moves[-1] @ changes[-1] / (moves[-1] @ moves[-1])
    matrix = sigma * np.eye(moves.shape[1])
    for s, y in zip(moves, changes, strict=True):
        bent = matrix @ s
        matrix = matrix - np.outer(bent, bent) / (s @ bent) + np.outer(y, y) / (y @ s)
    return matrix


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_the_compact_form_is_bfgs(pairs, sign):
    rng = np.random.default_rng(pairs)
    root = rng.normal(size=(5, 5))
    moves = rng.normal(size=(pairs, 5))
    changes = sign * moves @ (root @ root.T + np.eye(5))
    vector = rng.normal(size=5)
    product = PRODUCT(jnp.asarray(moves), jnp.asarray(changes), jnp.asarray(vector))
    np.testing.assert_allclose(product, dense(moves, changes) @ vector, rtol=1e-9)
    secant = PRODUCT(jnp.asarray(moves), jnp.asarray(changes), jnp.asarray(moves[-1]))
    np.testing.assert_allclose(secant, changes[-1], rtol=1e-9)


def test_pairs_that_say_nothing_are_left_out():
    moves, changes = jnp.array([[0.0, 0.0], [1.0, 2.0]]), jnp.array([[0.0, 0.0], [2.0, 3.0]])
    vector = jnp.array([3.0, -1.0])
    alone = PRODUCT(moves[1:], changes[1:], vector)
    for order in ([0, 1], [1, 0]):
        np.testing.assert_allclose(PRODUCT(moves[jnp.array(order)], changes[jnp.array(order)], vector), alone)
    np.testing.assert_array_equal(PRODUCT(jnp.zeros((2, 2)), jnp.zeros((2, 2)), vector), 0)
    across = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])  # s'y = 0
    np.testing.assert_array_equal(PRODUCT(*across, vector), 0)


@pytest.mark.parametrize("parameters, curvatures", [(1, [0.1, 0.2, 0.3, 0.4]), (3, [0.5, 0.1, 0.4, 0.2])])
def test_isotropic_quadratics_are_recovered_exactly(parameters, curvatures):
    """After a warm-up of two rounds, one with a move that is not zero; partial participation from there."""
    update = pulls(4, parameters, curvatures)
    weights = random_weights(12, 4)
    weights[:2] = 0.25
    history, checkpoints = trained(update, weights, parameters, KEY)
    erased = fedrecover(checkpoints, history, mask(2), update, KEY, warmup=2, correct=100, final=0)
    oracle = retrain(history.start, history.weights, mask(2), averaging(update, KEY))
    assert np.linalg.norm(checkpoints[-1] - oracle.model) > 0.01
    np.testing.assert_allclose(erased.model, oracle.model, atol=1e-12)
    assert erased.rounds == 2 and erased.updates == 6 < oracle.updates


def test_of_other_models_it_is_an_estimate_that_is_near():
    curvatures = jnp.array([[0.5, 0.1], [0.3, 0.2], [0.2, 0.4], [0.1, 0.3]])
    centres = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5], [5.0, 5.0]])
    update = lambda params, client, key: -curvatures[client] * (params - centres[client])  # noqa: E731
    history, checkpoints = trained(update, np.full((20, 4), 0.25), 2, KEY)
    oracle = retrain(history.start, history.weights, mask(3), averaging(update, KEY)).model
    erased = fedrecover(checkpoints, history, mask(3), update, KEY, warmup=3, correct=5, final=2)
    assert np.linalg.norm(erased.model - oracle) < 0.02 * np.linalg.norm(checkpoints[-1] - oracle)


def test_who_is_asked_when():
    update = pulls(4, 3, [0.1, 0.2, 0.3, 0.4])
    history, checkpoints = trained(update, np.full((12, 4), 0.25), 3, KEY)
    args = (checkpoints, history, mask(0), update, KEY)
    erased = fedrecover(*args, warmup=3, correct=4, final=2)  # rounds 0, 1, 2; 6; 10 (corrects, and is final); 11
    assert erased.rounds == 6 and erased.updates == 18
    nobody_believed = fedrecover(*args, warmup=3, correct=4, final=2, threshold=1e-12)
    assert nobody_believed.rounds == 12
    oracle = retrain(history.start, history.weights, mask(0), averaging(update, KEY))
    np.testing.assert_allclose(nobody_believed.model, oracle.model, atol=1e-14)


def test_a_leaver_that_came_late_costs_no_pair():
    """Until it came the new models are the old ones: moves of no length do not push out others, and nothing is nan."""
    update = pulls(4, 3, [0.5, 0.1, 0.4, 0.2])
    weights = np.full((12, 4), 0.25)
    weights[:5] = [1 / 3, 1 / 3, 1 / 3, 0]
    history, checkpoints = trained(update, weights, 3, KEY)
    erased = fedrecover(checkpoints, history, mask(3), update, KEY, warmup=7, correct=100, final=0)
    oracle = retrain(history.start, history.weights, mask(3), averaging(update, KEY))
    np.testing.assert_allclose(erased.model, oracle.model, atol=1e-12)


def test_bad_inputs():
    update = pulls(4, 3, [0.1, 0.2, 0.3, 0.4])
    history, checkpoints = trained(update, np.full((2, 4), 0.25), 3, KEY)
    for options, message in (
        ({"warmup": 0}, "warmup is 0"),
        ({"correct": 0}, "correct is 0"),
        ({"final": -1}, "final is -1"),
        ({"pairs": 1.5}, "pairs is 1.5"),
        ({"threshold": 0.0}, "threshold is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            fedrecover(checkpoints, history, mask(0), update, KEY, **options)
