"""Images as arrays: standardised by their moments, left on disk, or decoded from the files of a user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array

DECODE_AT_ONCE = 512
MOMENTS_AT_ONCE = 64  # few enough to stay in the processor's cache; divides DECODE_AT_ONCE, so parts sum as the whole


class Moments(NamedTuple):
    """Mean and standard deviation per channel, [channels] float32 each; of a table, per feature and in float64."""

    mean: Array
    std: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images that stay on disk and stand where an array would: decoded and standardised each time they are asked for.

    read: of the Source.  id: [examples].  scale: how to standardise.
    shape: (examples, height, width, channels).
    """

    read: Callable[[Array], tuple[Array, Array]]
    id: Array
    scale: Moments
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, positions: Any) -> Array:
        """The images at positions (integers, a slice or a mask), [examples, height, width, channels] float32."""
        return standardise(self.read(self.id[positions])[0], self.scale)


def moments(parts: Iterable[Array]) -> Moments:
    """Mean and standard deviation per channel over all parts; 1 for a constant channel.

    Args:
      parts: at least one; each [examples, height, width, channels].
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for images in parts:
        flat = images.reshape(len(images), -1)
        for start in range(0, len(flat), MOMENTS_AT_ONCE):
            few = flat[start : start + MOMENTS_AT_ONCE].astype(np.float64)
            total = total + few.sum(axis=0)
            squares = squares + np.einsum("ep,ep->p", few, few)
        count += len(images) * images.shape[1] * images.shape[2]
    mean, square = (sums.reshape(-1, images.shape[-1]).sum(axis=0) / count for sums in (total, squares))
    variance = square - mean**2
    constant = variance <= 1e-12 * square  # what rounding leaves
    return Moments(mean.astype(np.float32), np.sqrt(np.where(constant, 1.0, variance)).astype(np.float32))


def spread(table: Array) -> Moments:
    """Mean and standard deviation of each feature, in two passes and float64: a year or a price lies far from 0.

    Args:
      table: [examples, features]; the deviation of a constant feature is given as 1.
    """
    mean = table.mean(axis=0, dtype=np.float64)
    std = table.std(axis=0, dtype=np.float64)
    return Moments(mean, np.where(std <= 1e-12 * np.abs(mean), 1.0, std))


def standardise(images: Array, scale: Moments) -> Array:
    """(images - mean) / std per channel or, of a table, per feature, in float32.

    Raises:
      DataError: a mean or a std that has neither one number for all channels nor one for each.
    """
    channels = images.shape[-1]
    for name, leaf in zip(scale._fields, scale, strict=True):
        if leaf.size not in (1, channels):
            raise DataError(f"{name} has {leaf.size} numbers, images have {channels} channels: give one, or one for each")
    if images.ndim == 2:
        return ((images - scale.mean) / scale.std).astype(np.float32)
    # Spread over the pixels, a channel's number costs half as much to apply as broadcast.
    mean, std = (np.broadcast_to(leaf, images.shape[1:]).copy() for leaf in scale)
    result = np.subtract(images, mean, dtype=np.float32)
    result /= std
    return result
