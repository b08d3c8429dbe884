"""What every reader gives: examples by their ids, before anybody splits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array


class Source(NamedTuple):
    """A data set before it is split.

    read: ids [examples] -> (images [examples, height, width, channels] or rows [examples, features]; labels [examples]
      int32).
    ids: of all examples, increasing.
    official: ids of the test examples, increasing; None: there are none by convention, and a share is taken by hash.
    classes: how many labels there are.
    names: what the user calls examples whose ids are hashes of it, by id; None: all ids are numbers or of contents.
    """

    read: Callable[[Array], tuple[Array, Array]]
    ids: Array
    official: Array | None
    classes: int
    names: Mapping[int, str] | None = None


def held(
    x: Array, y: Array, ids: Array, official: Array | None, classes: int, names: Mapping[int, str] | None = None
) -> Source:
    """A source of arrays in memory.

    Args:
      ids: [examples] in the order of x and y, distinct.
      official: [examples] bool, who is for testing; None: nobody by convention.
      names: as in `Source`.
    """
    order = np.argsort(ids)
    x, y, ids = x[order], y[order], ids[order]

    def read(asked: Array) -> tuple[Array, Array]:
        rows = np.searchsorted(ids, asked)
        return x[rows], y[rows]

    return Source(read, ids, None if official is None else ids[official[order]], classes, names)


def check_labels(where: str, ids: Array, labels: Array, classes: int) -> None:
    """Refuse labels that no class has.

    Args:
      where: the data, for an error.

    Raises:
      DataError: a label that is not in 0..classes-1.
    """
    if (bad := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        raise DataError(
            f"example {ids[bad[0]]} of {where} has label {labels[bad[0]]}, labels are 0..{classes - 1}: mend the data, or "
            "how many classes they say they have"
        )


def check_classes(where: str, names: Sequence[str], labels: Array, test: Array) -> None:
    """Refuse labels that nothing can be learned from.

    Args:
      where: the data, for an error.
      names: of the classes, by number.
      labels: [examples] int.
      test: [examples] bool, who is for testing.

    Raises:
      DataError: one class, a class of one example, or a class that is for testing alone.
    """
    if len(names) < 2:
        raise DataError(f"{where} has one class, {names[0]!r}: a classifier needs two or more")
    counts, trained = (np.bincount(some, minlength=len(names)) for some in (labels, labels[~test]))
    if (few := np.flatnonzero(counts < 2)).size:
        raise DataError(
            f"{where} has one example of class {names[few[0]]!r}: give each class two or more, a dozen to compare anything"
        )
    if (absent := np.flatnonzero(trained == 0)).size:
        raise DataError(f"{where} has class {names[absent[0]]!r} among test examples alone: give it training examples, too")
