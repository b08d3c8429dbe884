"""FUSED's sparse adapters: which layers, which entries, one round by hand, and taken off bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.erase import Adapter, attach, fused, layer_changes, make_adapter
from tests.helpers.histories import pulls

KEY = jax.random.key(0)
LAYERS = jnp.repeat(jnp.arange(3), jnp.array([100, 50, 50]))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_the_adapter_lies_on_the_most_changed_layers():
    after = jnp.where(LAYERS == 0, 1.0, jnp.where(LAYERS == 1, -3.0, 2.0))
    changes = layer_changes(jnp.zeros(200), after, LAYERS, 3)
    np.testing.assert_array_equal(changes, [1, 3, 2])
    adapter = make_adapter(changes, LAYERS, KEY, chosen=1, density=0.5)
    assert 10 < adapter.mask.sum() < 40 and not adapter.mask[LAYERS != 1].any()
    whole = make_adapter(changes, LAYERS, KEY, chosen=2, density=1.0)
    np.testing.assert_array_equal(whole.mask, LAYERS > 0)


def test_a_round_by_hand_and_back():
    """Clients pull towards 1, 3 and 100 at full speed; the last leaves, the mean of the others is 2; one entry has none."""
    update = lambda params, client, key: jnp.array([1.0, 3.0, 100.0])[client] - params  # noqa: E731
    model, empty = jnp.array([0.5, -0.0]), Adapter(jnp.zeros(2), jnp.array([True, False]))
    erased, adapter = fused(model, empty, jnp.ones(3), jnp.array([False, False, True]), update, KEY, rounds=1)
    np.testing.assert_allclose(erased.model, [2, 0])
    assert (erased.rounds, erased.updates) == (1, 2)
    assert np.signbit(erased.model[1])  # selected, not added to
    np.testing.assert_allclose(attach(model, adapter), erased.model)
    np.testing.assert_array_equal(attach(model, empty), model)  # the model without its adapter


def test_it_fits_the_remaining_clients():
    update = pulls(4, 6, [0.3, 0.3, 0.3, 0.3])
    adapter = Adapter(jnp.zeros(6), jnp.arange(6) < 3)
    erased, _ = fused(jnp.ones(6), adapter, jnp.ones(4), jnp.arange(4) == 1, update, KEY, rounds=60)
    centres = np.random.default_rng(3).normal(size=(4, 6))[[0, 2, 3]].mean(axis=0)
    np.testing.assert_allclose(erased.model, [*centres[:3], 1, 1, 1], atol=1e-6)


def test_bad_inputs():
    with pytest.raises(ValueError, match="there are 3 layers"):
        make_adapter(jnp.ones(3), LAYERS, KEY, chosen=4)
    with pytest.raises(ValueError, match="density is 0"):
        make_adapter(jnp.ones(3), LAYERS, KEY, density=0.0)
    with pytest.raises(ValueError, match="rounds is 0"):
        fused(jnp.ones(2), Adapter(jnp.zeros(2), jnp.ones(2, bool)), jnp.ones(2), jnp.arange(2) == 0, None, KEY, rounds=0)
