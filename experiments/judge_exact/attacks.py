"""What is asked of exact models from their margins alone: attacks, streams of requests that watch what is served.

Margins are `unlearn.metrics.scores.margin`, float64. Intervals resample models, or worlds of one model each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.results import Estimate
from unlearn.metrics import klom
from unlearn.metrics.intervals import percentile_interval, t_interval

TIERS = ("little", "some", "much")  # by memorisation
HOW = ("confident", "mates")  # how an adaptive stream chooses


# --- Membership -------------------------------------------------------------------------------------------------------


def tiers(knowing: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[examples] 0, 1 or 2: thirds of the examples by memorisation, the mean margin of models with it less that without.

    Args:
      knowing, others: [models, examples] margins of models that hold all examples, and none; no shadows among them, or
        the most memorised would be those that an attack happens to find.
    """
    rank = rankdata(knowing.mean(axis=0) - others.mean(axis=0), method="ordinal") - 1
    return (len(TIERS) * rank / len(rank)).astype(int)


def closeness(unlearned: np.ndarray, oracle: np.ndarray) -> dict[str, Any]:
    """KLoM of one set of examples, both [models, examples]: mean and 95th percentile over examples."""
    mean, p95 = klom.summary(unlearned=unlearned, oracle=oracle)
    examples = klom.klom(unlearned=unlearned, oracle=oracle)
    return {"estimate": Estimate.of(mean), "p95": Estimate.of(p95), "examples": examples}


# --- A pair of checkpoints --------------------------------------------------------------------------------------------


def which_deleted(before: np.ndarray, after: np.ndarray, deleted: np.ndarray, others: np.ndarray) -> Estimate:
    """Who sees a model before and after a deletion names the example whose margin fell furthest: was it deleted?

    Args:
      before, after: [models, examples] margins.
      deleted, others: [models, examples] bool, at least one of each in every model.

    Returns:
      the mean over models of the probability that a deleted example's margin fell further than
      that of one of the others, ties counting one half.
    """
    each = [auc(drop[out], drop[rest]) for drop, out, rest in zip(before - after, deleted, others, strict=True)]
    mean, low, high = np.clip(t_interval(np.array(each))[:3], 0.0, 1.0)
    return Estimate.of((mean, low, high, len(each)))


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """The probability that a value of `high` exceeds one of `low`, a tie counting one half."""
    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.mean() - (len(high) + 1) / 2) / len(low))


# --- Adaptive streams -------------------------------------------------------------------------------------------------


class Worlds(NamedTuple):
    """Models that serve and delete without healing, each in a world of its own.

    margins: [2^L, models, examples] of what is served, by the bit mask of the slices that are off.
    depth: [2^L] of the node that is served.
    slice_of: [models, examples] int.
    """

    margins: np.ndarray
    depth: np.ndarray
    slice_of: np.ndarray


class Siblings(NamedTuple):
    """[examples] mean and standard deviation of the margins of models that nothing was deleted from."""

    mean: np.ndarray
    deviation: np.ndarray


def siblings(margins: np.ndarray) -> Siblings:
    """What somebody knows who has trained [models, examples] of the same kind."""
    return Siblings(margins.mean(axis=0), np.maximum(margins.std(axis=0, ddof=1), 1e-9))


def stream(worlds: Worlds, known: Siblings, allowed: np.ndarray, how: str, requests: int) -> np.ndarray:
    """[models, requests] int: whom somebody asks to delete, one after the other, who sees the margins that are served.

    "confident" asks for the example that is answered most confidently beside its siblings'. "mates" does so once and then
    asks for the example that has lost most since the start: the next of a slice that is off.

    Args:
      allowed: [examples] bool, whom one may ask for; at least so many.
    """
    models = np.arange(len(worlds.slice_of))
    hit, left = np.zeros(len(models), int), np.tile(allowed, (len(models), 1))
    start = surprise(worlds.margins[0], known)
    chosen = np.empty((len(models), requests), int)
    for number in range(requests):
        seen = surprise(worlds.margins[hit, models], known)
        wanted = start - seen if how == "mates" and number else seen
        chosen[:, number] = pick = np.where(left, wanted, -np.inf).argmax(axis=1)
        left[models, pick] = False
        hit |= 1 << worlds.slice_of[models, pick]
    return chosen


def neighbours(chosen: np.ndarray) -> np.ndarray:
    """To each model the requests that another's answers gave rise to."""
    return np.roll(chosen, 1, axis=0)


def surprise(margins: np.ndarray, known: Siblings) -> np.ndarray:
    """[models, examples] margins in standard deviations from the siblings' mean."""
    return (margins - known.mean) / known.deviation


def off(worlds: Worlds, chosen: np.ndarray) -> np.ndarray:
    """[models] bit masks of the slices in which the chosen examples [models, requests] lie."""
    models = np.arange(len(chosen))[:, None]
    return np.bitwise_or.reduce(1 << worlds.slice_of[models, chosen], axis=1)


def seen(worlds: Worlds, known: Siblings, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """[models] depth that is served while the slices of the chosen are off, and how confidently these are answered."""
    mask = off(worlds, chosen)
    margins = worlds.margins[mask, np.arange(len(mask))]
    return {"depth": worlds.depth[mask], "margin": told_by(margins, known, chosen)}


def told_by(margins: np.ndarray, known: Siblings, chosen: np.ndarray) -> np.ndarray:
    """[models] how confidently the chosen examples are answered still: their mean surprise."""
    return np.take_along_axis(surprise(margins, known), chosen, axis=1).mean(axis=1)


def apart(served: np.ndarray, oracle: np.ndarray, seed: int, resamples: int) -> Estimate:
    """How well a number tells what serves after a stream from what never saw the deleted examples.

    Args:
      served, oracle: [worlds] of either, after the same requests; worlds are drawn together.

    Returns:
      the AUC.
    """
    draws = keys.generator(seed, Purpose.RESAMPLES).integers(0, len(served), (resamples, len(served)))
    found = np.array([auc(served[rows], oracle[rows]) for rows in draws])
    return Estimate.of(percentile_interval(auc(served, oracle), found, len(served)))
