"""Ridge heads: by hand, equal to retraining, in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.erase import Statistics, add, delete, head, ridge, statistics, stored_bytes


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def clients(count=4, examples=9, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (jnp.asarray(rng.normal(size=(examples + k, 5))), jax.nn.one_hot(jnp.asarray(rng.integers(0, 3, examples + k)), 3))
        for k in range(count)
    ]


def summed(messages):
    total = messages[0]
    for message in messages[1:]:
        total = add(total, message)
    return total


def retrained(parts, penalty):
    """The minimiser by stacked least squares: rows of sqrt(penalty) I beneath the data."""
    x, y = (np.vstack([np.asarray(part[k]) for part in parts]) for k in (0, 1))
    rows = np.vstack([x, np.sqrt(penalty) * np.eye(5)])
    return np.linalg.lstsq(rows, np.vstack([y, np.zeros((5, 3))]), rcond=None)[0]


def test_a_deleted_client_is_retraining_without_it():
    parts = clients()
    messages = [statistics(*part) for part in parts]
    total = summed(messages)
    np.testing.assert_allclose(head(total, 0.1), retrained(parts, 0.1), atol=1e-12)
    weights, left = ridge(total, messages[1], 0.1)
    np.testing.assert_allclose(weights, retrained([parts[0], *parts[2:]], 0.1), atol=1e-12)
    back = head(add(left, messages[1]), 0.1)
    np.testing.assert_allclose(back, head(total, 0.1), atol=1e-12)


def test_single_examples_and_a_class():
    parts = clients()
    total = summed([statistics(*part) for part in parts])
    x, y = parts[2]
    for gone in (jnp.isin(jnp.arange(len(x)), jnp.array([0, 4])), y[:, 1] == 1):
        message = statistics(x, y, gone.astype(x.dtype))
        weights, _ = ridge(total, message, 0.1)
        expected = retrained([*parts[:2], (x[~gone], y[~gone]), parts[3]], 0.1)
        np.testing.assert_allclose(weights, expected, atol=1e-12)


def test_any_order_and_any_partition():
    messages = [statistics(*part) for part in clients()]
    forth, back = head(summed(messages), 0.1), head(summed(messages[::-1]), 0.1)
    np.testing.assert_allclose(forth, back, atol=1e-12)
    x, y = (jnp.vstack([part[k] for part in clients()]) for k in (0, 1))
    np.testing.assert_allclose(head(statistics(x, y), 0.1), forth, atol=1e-12)
    # Of whole numbers no sum is rounded, and deletion is bit for bit.
    whole = [Statistics(jnp.round(8 * m.gram), jnp.round(8 * m.moments)) for m in messages]
    for leaf, expected in zip(delete(summed(whole), whole[3]), summed(whole[:3]), strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_messages_have_one_size():
    sizes = {stored_bytes(statistics(*part)) for part in clients()}
    assert sizes == {8 * (5 * 5 + 5 * 3)}


def test_bad_inputs():
    total = summed([statistics(*part) for part in clients(2)])
    with pytest.raises(ValueError, match="more was deleted than had been added"):
        head(delete(delete(total, total), total), 0.1)
    with pytest.raises(ValueError, match="penalty is 0"):
        head(total, 0)
    with pytest.raises(ValueError, match="same features and outputs"):
        delete(total, Statistics(total.gram, total.moments[:, :2]))
    with pytest.raises(ValueError, match="of the same examples"):
        statistics(jnp.ones((3, 2)), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="one for each of the 3 examples"):
        statistics(jnp.ones((3, 2)), jnp.ones((3, 1)), jnp.ones(2))
