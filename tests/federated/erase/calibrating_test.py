"""FedEraser and Crab: steps by hand, slow twins, and what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated import History, without
from federated.erase import averaging, calibrated, crab, crab_keep, federaser, retrain
from tests.helpers.histories import pulls, random_history, random_weights, trained

KEY = jax.random.key(0)
UPDATE = pulls(4, 3, [0.1, 0.2, 0.3, 0.4])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mask(*leavers):
    return jnp.isin(jnp.arange(4), jnp.array(leavers))


def test_the_length_of_the_kept_in_the_direction_of_the_fresh():
    kept, fresh = jnp.array([[3.0, 4.0], [1.0, 0.0]]), jnp.array([[0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(calibrated(kept, fresh), [[0, 5], [0, 0]])
    layers = jnp.array([0, 1])  # a length for each layer
    np.testing.assert_allclose(calibrated(kept, jnp.array([[-2.0, 2.0], [0.0, 7.0]]), layers), [[-3, 4], [0, 0]])


def slow_rounds(params, updates, weights, rounds):
    """Calibrated rounds, client by client."""
    for t in rounds:
        step = np.zeros_like(params)
        for client, weight in enumerate(weights[t]):
            if weight > 0:
                fresh = np.asarray(UPDATE(jnp.asarray(params), client, KEY))
                step += weight * fresh * np.linalg.norm(updates[t, client]) / np.linalg.norm(fresh)
        params = params + step
    return params


@pytest.mark.parametrize("interval", [1, 2])
def test_federaser_client_by_client(interval):
    history, _ = trained(UPDATE, random_weights(5, 4), 3, KEY)
    weights, updates = np.asarray(without(history.weights, mask(1))), np.asarray(history.updates)
    first = np.ones(3) + weights[0] @ updates[0]
    kept = range(interval, 5, interval)
    erased = federaser(history, mask(1), UPDATE, KEY, interval=interval)
    np.testing.assert_allclose(erased.model, slow_rounds(first, updates, weights, kept), atol=1e-13)
    assert erased.rounds == len(kept) and erased.updates == sum((weights[t] > 0).sum() for t in kept)


def test_without_leavers_calibration_is_the_training():
    """What is fresh is then what was kept, and so is every length."""
    history, checkpoints = trained(UPDATE, random_weights(5, 4), 3, KEY)
    np.testing.assert_allclose(federaser(history, mask(), UPDATE, KEY).model, checkpoints[-1], atol=1e-13)


def test_what_crab_keeps_by_hand():
    """Two windows of two rounds, one kept of each; of three clients those two that go along with the step."""
    updates = jnp.array([[[1.0], [1.0], [-1.0]], [[4.0], [-1.0], [4.0]], [[9.0], [9.0], [-9.0]], [[1.0], [2.0], [3.0]]])
    history = History(jnp.zeros(1), updates, jnp.full((4, 3), 1 / 3))
    kept = crab_keep(history, window=2, rounds=0.5, clients=0.6)
    np.testing.assert_array_equal(kept, [[0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]])
    absent = history._replace(weights=jnp.tile(jnp.array([0.5, 0.0, 0.5]), (4, 1)))
    assert not crab_keep(absent, window=2, rounds=1.0, clients=1.0)[:, 1].any()
    assert crab_keep(random_history(rounds=10), rounds=0.7).any(axis=1).sum() == 7


def test_crab_goes_back_to_low_sensitivity_and_calibrates():
    weights = random_weights(6, 4, present=1.0)
    weights[:2, 1] = 0  # the leaver comes in round 2
    history, checkpoints = trained(UPDATE, weights / weights.sum(axis=1, keepdims=True), 3, KEY)
    kept = np.array(history.weights > 0)
    kept[4] = False  # a round of little change
    kept[3, 0] = False  # a client that was not aligned
    moved = np.linalg.norm(np.asarray(history.weights)[:, 1, None] * np.asarray(history.updates)[:, 1], axis=1) * kept[:, 1]
    seen = np.cumsum(moved) - moved
    shares = np.asarray(without(history.weights * kept, mask(1)))
    for sensitivity in (0.0, 0.5):
        back = max(t for t in (0, 1, 2, 3, 5) if seen[t] <= sensitivity * moved.sum())
        rounds = [t for t in (0, 1, 2, 3, 5) if t >= back]
        erased = crab(checkpoints, history, jnp.asarray(kept), mask(1), UPDATE, KEY, sensitivity=sensitivity)
        expected = slow_rounds(np.asarray(checkpoints[back]), np.asarray(history.updates), shares, rounds)
        np.testing.assert_allclose(erased.model, expected, atol=1e-13)
        assert erased.rounds == len(rounds) and (back == 2) == (sensitivity == 0)


def test_both_come_nearer_to_retraining():
    """A leaver far off: calibration takes most of its pull away."""
    far = pulls(4, 3, [0.2, 0.2, 0.2, 0.2])
    leaver_far = lambda params, client, key: far(params, client, key) + jnp.where(client == 3, 2.0, 0.0)  # noqa: E731
    history, checkpoints = trained(leaver_far, np.full((12, 4), 0.25), 3, KEY)
    oracle = retrain(history.start, history.weights, mask(3), averaging(leaver_far, KEY)).model
    before = np.linalg.norm(checkpoints[-1] - oracle)
    kept = crab_keep(history, window=4)
    for erased in (
        federaser(history, mask(3), leaver_far, KEY),
        crab(checkpoints, history, kept, mask(3), leaver_far, KEY, sensitivity=0.1),
    ):
        assert np.linalg.norm(erased.model - oracle) < 0.35 * before


def test_bad_inputs():
    history = random_history()
    with pytest.raises(ValueError, match="a client leaves whole"):
        federaser(history, jnp.array([0.5, 0, 0, 0]), UPDATE, KEY)
    with pytest.raises(ValueError, match="interval is 0"):
        federaser(history, mask(1), UPDATE, KEY, interval=0)
    with pytest.raises(ValueError, match="give what crab_keep makes"):
        crab(jnp.zeros((6, 3)), history, jnp.ones(4, bool), mask(1), UPDATE, KEY)
    with pytest.raises(ValueError, match="sensitivity is 2"):
        crab(jnp.zeros((6, 3)), history, jnp.ones((5, 4), bool), mask(1), UPDATE, KEY, sensitivity=2)
    with pytest.raises(ValueError, match="rounds is 0"):
        crab_keep(history, rounds=0.0)
