"""The sets of examples that models are scored on, samples of them, and sets made as large as others."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from experiments.data.ids import Array, lowest
from unlearn.base import Batch

PARTS = {"test_retain": "test", "others": "test", "validation_retain": "validation"}  # sets that lie within another


class Sets(NamedTuple):
    """Who is scored; every field a host-side Batch.

    forget, retain: training examples, a sample where there are many.  test, validation: held out.
    test_retain, validation_retain: without the forgotten class; for random forget sets the same as test, validation.
    others: never trained on and like the forget set: test images of its class, or the test set.
    fresh: new data for fine-tuning between training and request, held out and apart from validation; may be empty.
    """

    forget: Batch
    retain: Batch
    test: Batch
    test_retain: Batch
    validation: Batch
    validation_retain: Batch
    others: Batch
    fresh: Batch


def subsample(batch: Batch, most: int, purpose: str) -> Batch:
    """At most `most` examples (0: all), in the order they stand; which, follows from purpose and ids alone."""
    if not most or len(batch["id"]) <= most:
        return batch
    positions = lowest(batch["id"], most, purpose, 0)
    return jax.tree.map(lambda leaf: leaf[positions], dict(batch))


def of_units(units: Array, most: int, purpose: str) -> Array:
    """Positions, increasing, of all examples of at most `most` units (0: all); which, follows from purpose and ids alone.

    Args:
      units: [examples], what each is part of: of text its document, of images itself.

    Example:
      >>> of_units(np.array([7, 8, 7, 9]), 0, "score").tolist()
      [0, 1, 2, 3]
    """
    distinct = np.unique(units)
    return np.flatnonzero(np.isin(units, distinct[lowest(distinct, most or len(distinct), purpose, 0)]))


def padded(batch: Batch, size: int) -> Batch:
    """The batch filled up to `size` rows with zeros of weight 0."""
    missing = size - len(batch["id"])
    zeros = lambda leaf: np.zeros((missing, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    return jax.tree.map(lambda leaf: np.concatenate([leaf, zeros(leaf)]), dict(batch))
