"""Room for a fleet: what its lanes take by hand, and a line where there is less."""

import jax.numpy as jnp
import optax
import pytest

from experiments.core.errors import UserError
from experiments.models import ModelFns
from experiments.training import room

MODEL = ModelFns(lambda key: {"w": jnp.zeros((5, 2))}, lambda params, x, key: x @ params["w"])


def test_a_fleet_takes_parameters_and_optimiser_twice_and_a_gradient():
    """40 bytes of parameters; SGD with momentum has as many, and plain SGD none."""
    assert room.of_lanes(MODEL, optax.sgd(0.1, momentum=0.9), 3) == 3 * (3 * 40 + 2 * 40)
    assert room.of_lanes(MODEL, optax.sgd(0.1), 1) == 120


def test_a_fleet_that_is_too_large_is_refused_in_one_line():
    room.check(MODEL, optax.sgd(0.1), 5, available=600)
    with pytest.raises(UserError, match=r"take 6e-07 GB beside .* set fewer --config.seeds"):
        room.check(MODEL, optax.sgd(0.1), 5, available=599)
    assert room.memory() > 1e8
