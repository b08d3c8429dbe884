"""Relearning curves: how fast forgotten data come back, against the oracle's own curve."""

from __future__ import annotations

import numpy as np


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
