"""The examples of all shards as arrays: each slice in a compartment of its own, in the order of the examples' ids.

A slice's compartment depends on its own examples alone, so that no other compartment changes when one of them is deleted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from s3t.plans.partition import Places

HostOrDevice = jax.Array | np.ndarray
Tree = Any


class Slices(NamedTuple):
    """The examples of all shards, each slice in a compartment of its own.

    x: a pytree of [shards * slices, capacity, ...]: examples, or activations.
    y: a pytree of [shards * slices, capacity, ...]: what the backbone's loss reads; of a classifier int32 labels.
    id: [shards * slices, capacity] uint32, ascending.
    used: [shards * slices] int32, how much of a compartment is taken; the rest is 0.
    """

    x: Tree
    y: Tree
    id: HostOrDevice
    used: HostOrDevice


def arrange(x: Tree, y: Tree, ids: np.ndarray, places: Places, shards: int, slices: int, capacity: int) -> Slices:
    """Examples in the compartments of their slices, in the order of their ids.

    Args:
      x: a pytree of [examples, ...], each leaf anything that gives an array for an array of positions.
      y: the same of labels; integers are held as int32.
      ids: [examples] distinct integers from 0 to 2^32 - 1.
      places: where each example belongs.
      shards: m.
      slices: L.
      capacity: room for examples in a slice; see `capacity_for`.

    Raises:
      ValueError: an id out of range or given twice; a slice with more examples than its room.
    """
    ids = check_ids(ids)
    count = counts(places, shards, slices).ravel()
    if count.max(initial=0) > capacity:
        group = int(count.argmax())
        where = f"slice {group % slices} of shard {group // slices}"
        raise ValueError(f"{where} has {count[group]} examples, room is for {capacity}: rebuild")
    group_of = places.shard.astype(np.int64) * slices + places.slice
    rows_of = np.split(np.lexsort((ids, group_of)), np.cumsum(count)[:-1])

    def compartments(leaf: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        arranged = np.zeros((shards * slices, capacity, *shape), dtype)
        for group, rows in enumerate(rows_of):
            arranged[group, : len(rows)] = leaf[rows]
        return arranged

    def inputs(leaf: Any) -> np.ndarray:
        example = np.asarray(leaf[:1])
        return compartments(leaf, example.dtype, example.shape[1:])

    def labels(leaf: Any) -> np.ndarray:
        example = np.asarray(leaf[:1])
        return compartments(leaf, label_dtype(example.dtype), example.shape[1:])

    id_ = compartments(ids, np.dtype(np.uint32), ())
    return Slices(jax.tree.map(inputs, x), jax.tree.map(labels, y), id_, count.astype(np.int32))


def label_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which labels are held: int32 for integers, as they are otherwise."""
    return np.dtype(np.int32) if dtype.kind in "iu" else dtype


def check_ids(ids: Any) -> np.ndarray:
    """Ids that keys can fold in and that name one example each.

    Raises:
      ValueError: ids out of range, or one given twice.
    """
    values: np.ndarray = np.asarray(ids)
    if values.dtype.kind not in "iu" or (len(values) and not 0 <= values.min() <= values.max() < 1 << 32):
        raise ValueError("ids must be integers from 0 to 2^32 - 1: keys fold them in")
    if len(np.unique(values)) < len(values):
        raise ValueError("ids must be distinct: drop the repeated examples")
    return values


def counts(places: Places, shards: int, slices: int) -> np.ndarray:
    """[shards, slices] examples in each slice."""
    group = places.shard.astype(np.int64) * slices + places.slice
    count: np.ndarray = np.bincount(group, minlength=shards * slices).reshape(shards, slices)
    return count


def capacity_for(count: np.ndarray, batch_size: int) -> int:
    """Room for the largest slice in whole batches, so that a few examples more or less leave the program as it is."""
    return batch_size * max(1, -(-int(count.max()) // batch_size))
