"""Relearning curves: how fast forgotten data come back, against the oracle's own curve."""

from __future__ import annotations

import numpy as np

from unlearn.metrics import checks


def steps_to_recover(curve: np.ndarray, level: float) -> float:
    """The first step at which a curve is at `level` or above, 0 if it starts there.

    Args:
      curve: [steps + 1] forget accuracy while relearning, before the first step and after each.
      level: an accuracy, such as half way from the oracle's to the original's. Read the oracle's steps beside it: it
        relearns what it never knew.

    Returns:
      A whole number, or infinity if the curve does not get there within its steps.

    Raises:
      ValueError: curve or level not finite, or a curve of no steps.
    """
    curve = checks.finite(curve, "relearning curve")
    checks.finite(np.array(level), "level to recover")
    if curve.ndim != 1 or len(curve) < 2:
        raise ValueError(f"a relearning curve needs [steps + 1] values and at least 1 step, got shape {curve.shape}")
    reached = np.flatnonzero(curve >= level)
    return float(reached[0]) if len(reached) else float("inf")


def normalised_area(curve: np.ndarray, oracle: np.ndarray, original: float) -> float:
    """Area between a recovery curve and the oracle's, as a share of that between `original` and the oracle's.

    Args:
      curve, oracle: [steps + 1] forget accuracy while relearning.
      original: forget accuracy before the request, where nothing was forgotten.

    Returns:
      0 for a model that relearns as the oracle does, 1 for one that never forgot; NaN if the oracle is already there.
    """
    room = float(np.mean(original - np.asarray(oracle, np.float64)))
    return float(np.mean(np.asarray(curve, np.float64) - oracle)) / room if room > 0 else float("nan")
