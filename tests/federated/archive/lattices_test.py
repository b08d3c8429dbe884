"""Lattices: known shells and moments, nearest points against all neighbours, errors that do not depend on the input."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.archive import lattices
from federated.archive.lattices import LATTICES
from tests.helpers import toys

BLOCKS = 40_000
SHORTEST = {"scalar": (2, 1.0), "hexagonal": (6, 2 / np.sqrt(3)), "D2": (4, 1.0), "E8": (240, 2.0)}  # how many, length^2


@functools.cache
def errors(name):
    """Inputs that mostly lie in the cell of 0, and the errors of dithered quantisation."""
    lattice = LATTICES[name]

    @toys.quick_jit
    def quantised(x, key):
        dither = lattices.cell_dither(lattice, key, (BLOCKS,))
        return lattices.points(lattice, lattices.nearest(lattice, x + dither)) - dither - x

    x = 0.25 * np.random.default_rng(3).normal(size=(BLOCKS, len(lattice.steps))).astype(np.float32)
    return x, np.asarray(quantised(x, jax.random.key(0)))


@pytest.mark.parametrize("name", LATTICES)
def test_cells_have_volume_one_and_the_known_shortest_vectors(name):
    lattice = LATTICES[name]
    d = len(lattice.steps)
    assert 2**d / len(lattice.words) * np.prod(lattice.steps) == pytest.approx(1)
    lengths = np.sum((lattices.codebook(lattice, 8) * lattice.steps) ** 2, axis=1)
    count, shortest = SHORTEST[name]
    np.testing.assert_allclose(lengths[: count + 1], [0, *[shortest] * count], rtol=1e-6)
    assert lengths[count + 1] > 1.01 * shortest
    if name == "E8":  # the one lattice of this volume and dimension whose vectors all have even lengths
        np.testing.assert_allclose(lengths % 2, 0, atol=1e-9)


@pytest.mark.parametrize("name", LATTICES)
def test_no_neighbour_is_nearer(name):
    """Neighbours: all within twice the covering radius, of which the cell's walls are a part."""
    lattice = LATTICES[name]
    x = 3 * np.random.default_rng(1).normal(size=(300, len(lattice.steps)))
    n = np.asarray(lattices.nearest(lattice, jnp.asarray(x)))
    words = {tuple(row) for row in n % 2}
    assert words <= set(lattice.words) and (len(words) == len(lattice.words))
    neighbours = lattices._points_within(lattice, 2.05) * lattice.steps
    own = x - n * lattice.steps
    distances = np.sum(own**2, axis=1)[:, None] - 2 * own @ neighbours.T + np.sum(neighbours**2, axis=1)
    assert len(neighbours) > len(lattice.steps) and (distances >= np.sum(own**2, axis=1)[:, None] - 1e-5).all()


def test_hexagonal_points_are_those_of_its_generator():
    generator = np.array([[1, 0], [1 / 2, np.sqrt(3) / 2]]) * np.sqrt(2 / np.sqrt(3))
    hexagonal = LATTICES["hexagonal"]
    by_generator = np.array(list(itertools.product(range(-9, 10), repeat=2))) @ generator
    coded = lattices.codebook(hexagonal, 6) * hexagonal.steps
    distances = np.linalg.norm(coded[:, None] - by_generator, axis=2)
    assert distances.min(axis=1).max() < 1e-9
    x = np.random.default_rng(2).uniform(-1, 1, (200, 2))
    best = by_generator[np.argmin(np.linalg.norm(x[:, None] - by_generator, axis=2), axis=1)]
    np.testing.assert_allclose(lattices.nearest(hexagonal, jnp.asarray(x)) * np.array(hexagonal.steps), best, atol=1e-5)


@pytest.mark.parametrize("name", LATTICES)
def test_errors_have_mean_zero_and_the_known_second_moment(name):
    _, error = errors(name)
    per_block = np.mean(error**2, axis=1)
    assert abs(error.mean(axis=0)).max() < 4 * np.sqrt(1 / 12 / BLOCKS)
    assert abs(per_block.mean() - LATTICES[name].second_moment) < 4 * per_block.std() / np.sqrt(BLOCKS)


@pytest.mark.parametrize("name", LATTICES)
def test_errors_do_not_depend_on_the_input(name):
    """Neither they nor their squares correlate with the input or its square; without dither they do."""
    lattice = LATTICES[name]
    x, error = errors(name)
    correlation = lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1]  # noqa: E731
    limit = 4.5 / np.sqrt(x.size)
    assert abs(correlation(x, error)) < limit
    assert abs(correlation(x**2, error**2)) < limit
    far = np.linalg.norm(x, axis=1) > np.median(np.linalg.norm(x, axis=1))
    assert abs(correlation(far, np.sum(error**2, axis=1))) < 4.5 / np.sqrt(BLOCKS)
    plain = lattices.nearest(lattice, jnp.asarray(x)) * np.array(lattice.steps) - x
    assert correlation(x, plain) < -0.3


def test_rounding_coordinates_of_a_hexagonal_basis_is_worse_than_a_scalar():
    """The fast path of public code: coordinates rounded one by one, dither uniform on the parallelogram."""
    basis = np.array([[1, 0], [1 / 2, np.sqrt(3) / 2]]) * np.sqrt(2 / np.sqrt(3))
    generator = np.random.default_rng(0)
    x, dither = generator.normal(size=(BLOCKS, 2)), generator.uniform(-0.5, 0.5, (BLOCKS, 2)) @ basis
    error = np.rint((x + dither) @ np.linalg.inv(basis)) @ basis - dither - x
    assert np.mean(error**2) == pytest.approx(0.0962, abs=0.001)
    assert LATTICES["hexagonal"].second_moment == pytest.approx(0.0802, abs=5e-5)
    assert np.mean(errors("hexagonal")[1] ** 2) < np.mean(errors("scalar")[1] ** 2) < np.mean(error**2)


def test_a_codebook_has_the_points_nearest_to_zero():
    assert lattices.codebook(LATTICES["scalar"], 1).ravel().tolist() == [0, -1]
    book = lattices.codebook(LATTICES["hexagonal"], 4)
    assert book[0].tolist() == [0, 0] and len({tuple(row) for row in book}) == 16
    lengths = np.sum((book * LATTICES["hexagonal"].steps) ** 2, axis=1) * np.sqrt(3) / 2
    np.testing.assert_allclose(lengths, [0, *[1] * 6, *[3] * 6, *[4] * 3], atol=1e-9)
    assert len(lattices.codebook(LATTICES["E8"], 8)) == 256


def test_overloaded_blocks_get_the_nearest_point_of_the_book():
    hexagonal, book = LATTICES["hexagonal"], lattices.codebook(LATTICES["hexagonal"], 3)
    x = 2 * np.random.default_rng(4).normal(size=(100, 2)).astype(np.float32)
    coded = book * np.array(hexagonal.steps)
    expected = book[np.argmin(np.linalg.norm(x[:, None] - coded, axis=2), axis=1)]
    np.testing.assert_array_equal(lattices.nearest_of(hexagonal, book, jnp.asarray(x)), expected)


def test_what_cannot_be_used_is_told_in_one_line():
    with pytest.raises(ValueError, match="choose from scalar, hexagonal, D2, E8"):
        lattices.find_lattice("leech")
    for bits in (0, 17):
        with pytest.raises(ValueError, match="from 1 to 16 bits a block"):
            lattices.codebook(LATTICES["E8"], bits)
