"""Relearning curves: how fast forgotten data come back, against the oracle's own curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unlearn.metrics import checks

LIMIT = 2.0  # spreads of the oracles, within which a model looks like one


class Strength(NamedTuple):
    """How strong an attack is: a rate, and the steps that were taken at it."""

    rate: float
    step: int


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


def separation(curves: np.ndarray, oracle: np.ndarray, grain: float) -> np.ndarray:
    """How far attacked models are from attacked oracles at each strength, in spreads of the oracles.

        |mean over lanes of a - mean over lanes of o| / max(standard deviation over lanes of o, grain)

    Args:
      curves: [rates, lanes, steps + 1] accuracy while relearning.
      oracle: [rates, lanes, steps + 1] that of oracles, which need not be as many.
      grain: the accuracy of one watched example: oracles that all stand at 0 have no smaller spread than that.

    Returns:
      [rates, steps + 1] float64, at least 0.

    Raises:
      ValueError: curves not finite, of other strengths, of fewer than 2 oracles, or a grain that is not above 0.

    Example:
      >>> separation(np.array([[[0.5, 0.9]]]), np.array([[[0.4, 0.9], [0.6, 0.9]]]), 0.01).round(2).tolist()
      [[0.0, 0.0]]
    """
    curves, oracle = checks.finite(curves, "relearning curves"), checks.finite(oracle, "oracles' relearning curves")
    if curves.ndim != 3 or oracle.ndim != 3 or curves.shape[::2] != oracle.shape[::2]:
        raise ValueError(f"curves must be [rates, lanes, steps + 1] of the same strengths: {curves.shape}, {oracle.shape}")
    if oracle.shape[1] < 2 or not grain > 0:
        raise ValueError(f"a spread needs 2 oracles and a grain above 0, got {oracle.shape[1]} and {grain:g}")
    apart: np.ndarray = np.abs(curves.mean(axis=1) - oracle.mean(axis=1))
    return apart / np.maximum(oracle.std(axis=1, ddof=1), grain)


def strongest(separations: np.ndarray, rates: Sequence[float]) -> Strength:
    """The strength at which models are furthest from oracles; of equal ones the weakest.

    A maximum over many strengths is found in noise, too: choose on models that nothing is reported of.

    Args:
      separations: [rates, steps + 1] of `separation`.
      rates: increasing.

    Example:
      >>> strongest(np.array([[0.0, 1.0, 3.0], [0.0, 3.0, 2.0]]), (0.1, 0.3))
      Strength(rate=0.1, step=2)
    """
    order = _by_strength(separations, rates)
    return _strength(order[np.argmax(separations.ravel()[order])], separations, rates)


def weakest(separations: np.ndarray, rates: Sequence[float], limit: float = LIMIT) -> Strength | None:
    """The weakest strength at which models no longer look like oracles; None if they do at all.

    Strengths are ordered by rate x steps, the length of the way that gradients of length 1 would lead; of equal ones the
    lower rate is the weaker.

    Args:
      separations, rates: as for `strongest`.
      limit: spreads within which a model looks like an oracle.

    Example:
      >>> weakest(np.array([[0.0, 1.0, 3.0], [0.0, 3.0, 2.0]]), (0.1, 0.3))
      Strength(rate=0.1, step=2)
    """
    order = _by_strength(separations, rates)
    beyond = np.flatnonzero(separations.ravel()[order] > limit)
    return _strength(order[beyond[0]], separations, rates) if len(beyond) else None


def _by_strength(separations: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Flat positions in increasing strength."""
    length = np.outer(rates, np.arange(separations.shape[1])).round(12)  # .1 x 3 is .3 x 1
    return np.argsort(length, axis=None, kind="stable")


def _strength(position: np.integer, separations: np.ndarray, rates: Sequence[float]) -> Strength:
    rate, step = divmod(int(position), separations.shape[1])
    return Strength(float(rates[rate]), step)
