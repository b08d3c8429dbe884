"""What every metric refuses before it computes: no numbers, numbers that are not finite, too few, all the same.

A metric of a failed model is not a number, and a number computed from one would look like any other. Who calls leaves
failures out and counts them in the report.
"""

from __future__ import annotations

import numpy as np

from unlearn.metrics.intervals import MODELS


def finite(values: np.ndarray, what: str) -> np.ndarray:
    """`values` as float64.

    Raises:
      ValueError: there are none, or some are not finite.
    """
    numbers = np.asarray(values, np.float64)
    if not numbers.size:
        raise ValueError(f"{what}: no values, need at least 1")
    bad = numbers.size - int(np.isfinite(numbers).sum())
    if bad:
        raise ValueError(f"{what}: {bad} of {numbers.size} values are not finite; leave those models out and report them")
    return numbers


def table(values: np.ndarray, what: str, models: int) -> np.ndarray:
    """Finite `values` [models, examples] of at least so many models, as float64.

    Raises:
      ValueError: another number of axes, too few models, or not finite.
    """
    numbers = finite(values, what)
    if numbers.ndim != 2:
        raise ValueError(f"{what}: need an array [models, examples], got shape {numbers.shape}")
    if len(numbers) < models:
        raise ValueError(f"{what}: need at least {models} models, got {len(numbers)}")
    return numbers


def two_fleets(unlearned: np.ndarray, oracle: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Finite values [models, examples] of unlearned models and of oracles, as float64.

    Unlearned models may be copies of each other: an algorithm that gives all of them one answer deserves its score.

    Raises:
      ValueError: fewer than 10 models of a kind, not finite, other examples, or oracles that are copies.
    """
    unlearned, oracle = (table(v, f"{kind} {what}", MODELS) for v, kind in ((unlearned, "unlearned"), (oracle, "oracle")))
    if unlearned.shape[1] != oracle.shape[1]:
        raise ValueError(f"{what} must be of the same examples, got {unlearned.shape[1]} and {oracle.shape[1]}")
    if not np.ptp(oracle, axis=0).any():
        raise ValueError(f"oracle {what}: need at least 2 distinct values of some example; these oracles are copies")
    return unlearned, oracle


def membership(members: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`members` as it is.

    Raises:
      ValueError: not boolean, of another shape than the scores, or one class only.
    """
    mask = np.asarray(members)
    if mask.dtype != bool or mask.shape != shape:
        raise ValueError(f"members must be booleans of the scores' shape {shape}, got {mask.dtype} {mask.shape}")
    if mask.all() or not mask.any():
        raise ValueError(f"need at least 1 member and 1 non-member, got {int(mask.sum())} and {int((~mask).sum())}")
    return mask


def varying(values: np.ndarray, what: str) -> None:
    """Refuse values that are all the same.

    Raises:
      ValueError: there are fewer than 2 distinct values.
    """
    if np.ptp(values) == 0:
        raise ValueError(f"{what}: need at least 2 distinct values, all are {np.ravel(values)[0]:g}")
