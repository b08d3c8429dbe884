"""Distances to the oracle: what a model retrained without the forget set would have scored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FACTORS = ("forget_accuracy", "retain_accuracy", "test_accuracy")


def average_gap(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Mean absolute difference to the oracle over forget, retain and test accuracy: 0 is indistinguishable."""
    return float(np.mean([abs(scores[name] - oracle[name]) for name in FACTORS]))


def tow(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Tug of war, prod over {forget, retain, test} of (1 - |a - a_oracle|): 1 is indistinguishable (RUM, 2406.01257)."""
    return _product(scores, oracle, FACTORS)


def tow_mia(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """ToW with the loss attack's AUC in place of forget accuracy: 1 if the attack finds what it finds in the oracle (RUM).

    The AUC and not an accuracy: it falls below .5 where forgetting went too far.
    """
    return _product(scores, oracle, ("mia_auc", *FACTORS[1:]))


def _product(scores: Mapping[str, float], oracle: Mapping[str, float], names: tuple[str, ...]) -> float:
    return float(np.prod([1 - abs(scores[name] - oracle[name]) for name in names]))
