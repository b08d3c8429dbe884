"""The frozen prefix: activations below the trained slot, which depend on the backbone and the example alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from s3t.training.backbone import Backbone, owned, run_blocks

Array = jax.Array
Tree = Any


def boundary(backbone: Backbone, slices: int, depth: int) -> int:
    """The lowest block of the slot that a depth trains: how many blocks lie below it."""
    return owned(backbone.depth, slices)[depth - 1].start


def make_prefixes(backbone: Backbone, boundaries: Sequence[int], chunk: int) -> jax.stages.Wrapped:
    """A compiled function (frozen, x [capacity, ...]) -> the activations before each of the given blocks, [capacity, ...].

    One forward pass serves all boundaries. A call takes one slice, in chunks of a fixed size, so what it gives is a
    function of that slice alone, and of nothing that other slices hold.

    Args:
      backbone: one that is not random.
      boundaries: ascending numbers of blocks.
      chunk: examples that run at once; divides the capacity.

    Raises:
      ValueError: a backbone whose embedding is drawn anew in each epoch.
    """
    if backbone.random:
        raise ValueError("a backbone that draws random keys has no activations to keep: train it uncached")

    def run(frozen: Tree, x: Tree) -> tuple[Tree, ...]:
        h, at_boundary, below = backbone.embed(frozen, x, None), [], 0
        for start in boundaries:
            h, below = run_blocks(backbone, frozen, h, range(below, start)), start
            at_boundary.append(h)
        return tuple(at_boundary)

    def prefixes(frozen: Tree, x: Tree) -> tuple[Tree, ...]:
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), x)
        parts = jax.lax.map(lambda part: run(frozen, part), chunks)
        whole: tuple[Tree, ...] = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)
        return whole

    return jax.jit(prefixes)


def fill_cache(
    prefixes: Callable[[Tree, Tree], tuple[Tree, ...]], frozen: Tree, x: Tree, groups: Sequence[int]
) -> tuple[Tree, ...]:
    """The activations of slices on the host: for each boundary what takes the place of `Slices.x`.

    Args:
      prefixes: from `make_prefixes`.
      frozen: the backbone's parameters.
      x: a pytree of [shards * slices, capacity, ...] examples.
      groups: which of the shards * slices are needed, at least one; the others are left 0.
    """
    cache: Any = None
    total = len(jax.tree.leaves(x)[0])
    for group in groups:
        activations = prefixes(frozen, compartment(x, group))
        if cache is None:
            cache = jax.tree.map(lambda leaf: np.zeros((total, *leaf.shape), leaf.dtype), activations)
        for whole, part in zip(jax.tree.leaves(cache), jax.tree.leaves(activations), strict=True):
            whole[group] = part
    filled: tuple[Tree, ...] = cache
    return filled


def compartment(x: Tree, group: int) -> Tree:
    """The examples of one slice, [capacity, ...]."""
    return jax.tree.map(lambda leaf: leaf[group], x)
