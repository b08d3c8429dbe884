"""Distances to the oracle: what a model retrained without the forget set would have scored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ROUNDING = 1e-5  # of a mean in single precision
FACTORS = ("forget_accuracy", "retain_accuracy", "test_accuracy")
LOSSES = ("forget_token_loss", "retain_token_loss", "test_token_loss")


def average_gap(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Mean absolute difference to the oracle over forget, retain and test accuracy: 0 is indistinguishable.

    Raises:
      ValueError: a score that is missing, or no share of 1.
    """
    return float(np.mean([_gap(scores, oracle, name) for name in FACTORS]))


def loss_gap(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Mean absolute difference to the oracle over the token losses of forget, retain and test documents, in nats.

    It is what `average_gap` is to a classifier. The share of a text's tokens that are told right says little: it moves
    most with how well what stays was learnt by heart, and that differs from seed to seed.

    Raises:
      ValueError: a loss that is missing.
    """
    for name in LOSSES:
        for whose in (scores, oracle):
            if name not in whose:
                raise ValueError(f"scores have no {name!r}: give one for the model and one for the oracle")
    return float(np.mean([abs(scores[name] - oracle[name]) for name in LOSSES]))


def tow(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Tug of war, prod over {forget, retain, test} of (1 - |a - a_oracle|): 1 is indistinguishable (RUM, 2406.01257).

    Raises:
      ValueError: a score that is missing, or no share of 1: percentages give numbers that look like a result.
    """
    return _product(scores, oracle, FACTORS)


def tow_mia(scores: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """ToW with the loss attack's AUC in place of forget accuracy: 1 if the attack finds what it finds in the oracle (RUM).

    The AUC and not an accuracy: it falls below .5 where forgetting went too far.
    """
    return _product(scores, oracle, ("mia_auc", *FACTORS[1:]))


def _product(scores: Mapping[str, float], oracle: Mapping[str, float], names: tuple[str, ...]) -> float:
    return float(np.prod([1 - _gap(scores, oracle, name) for name in names]))


def _gap(scores: Mapping[str, float], oracle: Mapping[str, float], name: str) -> float:
    for whose in (scores, oracle):
        if name not in whose:
            raise ValueError(f"scores have no {name!r}: give one for the model and one for the oracle")
        if abs(whose[name] - 0.5) > 0.5 + ROUNDING:  # a failed model's NaN stays one
            raise ValueError(f"{name} is {whose[name]:g}: give shares from 0 to 1, not percentages")
    return abs(scores[name] - oracle[name])
