"""Lattices, their nearest points, dither that is uniform on a cell, and finite codebooks.

All four lattices are of one form (construction A): points steps * n for integers n whose remainders mod 2 are a word of a
binary code. So a nearest point is the best of one rounding per word, exactly, and no search over neighbours is left. Cells
have volume 1, so that at one scale the lattices take about the same bits, and E|error|^2 / d tells them apart.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from federated.history import Array

LARGEST_CODEBOOK = 1 << 16


class Lattice(NamedTuple):
    """The points steps * n, n integer, n mod 2 in words; one cell has volume 2^d / len(words) * prod(steps) = 1.

    words: of a linear binary code, each of d bits.
    steps: [d].
    second_moment: E|e|^2 / d for e uniform on the cell of the points nearest to 0.
    """

    words: tuple[tuple[int, ...], ...]
    steps: tuple[float, ...]
    second_moment: float


def _lattice(generators: tuple[tuple[int, ...], ...], sides: tuple[float, ...], second_moment: float) -> Lattice:
    """A lattice from generators of its code and steps up to a factor."""
    choices = itertools.product((0, 1), repeat=len(generators))
    words = sorted({tuple(np.dot(choice, generators) % 2) for choice in choices})
    volume = 2 ** len(sides) / len(words) * math.prod(sides)
    scale = volume ** (-1 / len(sides))
    return Lattice(tuple(tuple(map(int, word)) for word in words), tuple(scale * side for side in sides), second_moment)


# The extended Hamming code, whose construction A is E8.
_HAMMING = ((1,) * 8, (0, 0, 0, 0, 1, 1, 1, 1), (0, 0, 1, 1, 0, 0, 1, 1), (0, 1, 0, 1, 0, 1, 0, 1))

# Second moments: Conway and Sloane, Sphere Packings, Lattices and Groups, chapter 21. D2 is the square lattice, turned.
LATTICES = {
    "scalar": _lattice(((1,),), (1.0,), 1 / 12),
    "hexagonal": _lattice(((1, 1),), (1.0, math.sqrt(3)), 5 / (36 * math.sqrt(3))),
    "D2": _lattice(((1, 1),), (1.0, 1.0), 1 / 12),
    "E8": _lattice(_HAMMING, (1.0,) * 8, 929 / 12960),
}


def find_lattice(name: str) -> Lattice:
    """A lattice by its name.

    Raises:
      ValueError: there is none of that name.
    """
    if name not in LATTICES:
        raise ValueError(f"there is no lattice {name!r}: choose from {', '.join(LATTICES)}")
    return LATTICES[name]


def nearest(lattice: Lattice, x: Array) -> Array:
    """The integers n of the lattice point nearest to x, [..., d] -> [..., d] int32.

    Example:
      >>> hexagonal = LATTICES["hexagonal"]
      >>> print(nearest(hexagonal, points(hexagonal, jnp.array([3, -1])) + 0.3))
      [ 3 -1]
    """
    steps = jnp.asarray(lattice.steps, x.dtype)
    scaled = x / steps
    best, least = jnp.zeros_like(x), jnp.full(x.shape[:-1], jnp.inf, x.dtype)
    for word in lattice.words:
        bits = jnp.asarray(word, x.dtype)
        candidate = 2 * jnp.round((scaled - bits) / 2) + bits
        distance = jnp.sum((steps * (scaled - candidate)) ** 2, axis=-1)
        best = jnp.where((distance < least)[..., None], candidate, best)
        least = jnp.minimum(distance, least)
    return best.astype(jnp.int32)


def points(lattice: Lattice, n: Array, dtype: Any = None) -> Array:
    """The lattice points of integers n, [..., d]."""
    return n * jnp.asarray(lattice.steps, dtype)


def cell_dither(lattice: Lattice, key: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """Draws that are uniform on the cell of 0, [*shape, d].

    Uniform on a box that holds one point of each class modulo the lattice equally often, then less the nearest point.
    """
    steps = jnp.asarray(lattice.steps, dtype)
    box = 2 * steps * jax.random.uniform(key, (*shape, len(lattice.steps)), steps.dtype)
    return box - points(lattice, nearest(lattice, box), steps.dtype)


# --- Finite codebooks -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def codebook(lattice: Lattice, bits: int) -> np.ndarray:
    """The integers n of the 2^bits lattice points nearest to 0, [2^bits, d] int32, from the nearest outwards.

    Points as far from 0 as the last are taken in the order of their integers, so that the outermost shell may be lopsided:
    of the scalar lattice, one bit has 0 and -1.

    Raises:
      ValueError: no bit, or more points than can be searched.

    Example:
      >>> codebook(LATTICES["scalar"], 2).ravel().tolist()
      [0, -1, 1, -2]
    """
    if not 1 <= bits <= LARGEST_CODEBOOK.bit_length() - 1:
        raise ValueError(f"a codebook of 2^{bits} points cannot be searched: give from 1 to 16 bits a block, or all points")
    d = len(lattice.steps)
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)  # the volume of radius 1
    radius = (2**bits / ball) ** (1 / d)
    while len(inside := _points_within(lattice, radius)) < 2**bits:
        radius *= 1.1
    lengths = np.round(np.sum((inside * lattice.steps) ** 2, axis=1), 9)  # equal ones are equal, whatever was rounded
    order = np.lexsort((*inside.T[::-1], lengths))
    return inside[order[: 2**bits]]


def _points_within(lattice: Lattice, radius: float) -> np.ndarray:
    """The integers of all lattice points within a radius of 0, coordinate by coordinate."""
    inside, room = np.zeros((1, 0), np.int32), np.array([radius**2 + 1e-9])
    for step in lattice.steps:
        most = int(radius / step)
        more = np.arange(-most, most + 1, dtype=np.int32)
        left = room[:, None] - (step * more) ** 2
        rows, columns = np.nonzero(left >= 0)
        inside, room = np.column_stack([inside[rows], more[columns]]), left[rows, columns]
    words = set(lattice.words)
    return inside[[tuple(row) in words for row in (inside % 2).tolist()]]


def nearest_of(lattice: Lattice, book: np.ndarray, x: Array) -> Array:
    """The integers n of the point of a codebook nearest to x, [blocks, d] -> [blocks, d] int32.

    Where the nearest of all lattice points is not in the book, x is overloaded: its error depends on it.
    """
    coded = points(lattice, jnp.asarray(book), x.dtype)
    lengths = jnp.sum(coded**2, axis=1)
    closest = lambda block: jnp.argmin(lengths - 2 * coded @ block)  # noqa: E731
    together = max(1, (1 << 22) // len(book))  # blocks whose distances are in memory at once
    return jnp.asarray(book)[jax.lax.map(closest, x, batch_size=together)]
