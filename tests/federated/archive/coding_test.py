"""Streams: back to the same code, entropies by hand, and the chain rule against the entropy of whole points."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.archive import LATTICES, Code, Scheme, archive, entropy, entropy_bits, joined, streams
from tests.helpers import toys
from tests.helpers.updates import random_code

SIZE = 20_001
UPDATE = np.random.default_rng(0).normal(size=(1, SIZE)).astype(np.float32)


@functools.cache
def coded(scheme):
    encode = toys.quick_jit(archive(scheme, SIZE, jax.random.key(0)).encode)
    _, codes = encode((), UPDATE, jnp.ones(1), jnp.arange(1), jnp.asarray(0))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], codes.updates)


@pytest.mark.parametrize(
    "scheme",
    [*(Scheme(name, rate=2.0) for name in LATTICES), Scheme("hexagonal", entries="top", amount=0.1),
     Scheme("E8", entries="random", amount=0.3), Scheme("none", entries="changed", amount=1.0)],
    ids=str,
)  # fmt: skip
def test_streams_hold_the_code(scheme):
    code = random_code(scheme, SIZE)
    back = joined(scheme, SIZE, code._replace(mask=None, symbols=None), streams(scheme, SIZE, code))
    np.testing.assert_array_equal(back.symbols, code.symbols)
    assert (back.mask is None) == (code.mask is None)
    if code.mask is not None:
        np.testing.assert_array_equal(back.mask, code.mask)


def test_entropies_by_hand():
    assert entropy(np.array([3, 3, 3])) == 0 and entropy(np.array([], np.int32)) == 0
    assert entropy(np.array([0, 1, 2, 3] * 5)) == 40
    assert entropy(np.array([0, 0, 0, 1])) == pytest.approx(3 * np.log2(4 / 3) + 2)
    assert entropy(np.zeros(4, np.float32)) == 128


@pytest.mark.parametrize("name, more", [("scalar", 0), ("hexagonal", 0.01), ("D2", 0.01)])
def test_streams_take_what_whole_points_take(name, more):
    scheme = Scheme(name, rate=2.0)
    code = coded(scheme)
    whole = np.unique(code.symbols, axis=0, return_counts=True)[1]
    joint = np.sum(whole * np.log2(whole.sum() / whole))
    bits = entropy_bits(scheme, SIZE, code) - 64
    assert joint * (1 - 1e-9) <= bits <= joint * (1 + more) + 1e-6


def test_lattices_of_one_cell_take_about_the_same_bits():
    """Points have the density of the update, dither and error together: of a normal distribution, nearly normal."""
    for name, lattice in LATTICES.items():
        code = coded(Scheme(name, rate=2.0))
        spread = 1 + 2 * lattice.second_moment * code.side**2
        expected = 0.5 * np.log2(2 * np.pi * np.e * spread) - np.log2(code.side)
        assert entropy_bits(Scheme(name, rate=2.0), SIZE, code) / SIZE == pytest.approx(expected, abs=0.02)


def test_what_is_not_stored_takes_nothing():
    code = coded(Scheme("scalar"))._replace(factor=np.float32(0))
    assert streams(Scheme("scalar"), SIZE, code) == {} and entropy_bits(Scheme("scalar"), SIZE, code) == 0
    assert isinstance(code, Code)
