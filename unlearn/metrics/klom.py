"""KLoM: per example, how far the margins of unlearned models are from those of oracles (2410.23232)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlearn.metrics import checks
from unlearn.metrics.intervals import Interval, jackknife

BINS = 20
CLIP = 100.0
FLOOR = 1e-5


class Summary(NamedTuple):
    """What is reported of a set of examples."""

    mean: Interval
    p95: Interval


def klom(*, unlearned: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """KL(histogram of unlearned margins || histogram of oracle margins) of each example, in nats.

    Margins (`scores.margin`) are clipped to +-100 and counted in 20 equal bins on the joint range of both kinds, the
    largest in the last bin; the oracles' share of a bin that holds an unlearned margin is at least 1e-5, and shares are
    then made to sum to 1. KL is not symmetric: arguments have names. Bins, floor and finite fleets give exact unlearning
    a value above 0, so read it beside that of held-out oracles in as many models. Published tables may bin and clip in
    other ways, by which the same margins have other values: compare values of one code alone.

    Args:
      unlearned: [models, examples] margins of models that were trained on the forget set and unlearned it.
      oracle: [models, examples] margins of models trained without it, for the same examples.

    Returns:
      [examples] float64, 0 where the histograms agree and at most about log(1 / 1e-5) = 11.5.

    Raises:
      ValueError: margins not finite, fewer than 10 models of a kind, other examples, or oracles that are copies.
    """
    return _klom(*checks.two_fleets(unlearned, oracle, "margins"))


def klom_published(*, unlearned: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """KLoM as the code of its paper counts it (RoyRin/data-unlearning-bench, `src/eval.py`), to compare with its tables.

    It is `klom` but for one thing: the margin at the upper end of the joint range, that is the largest, is in no bin. So
    the kind that holds it (and any model that was clipped at 100) counts fewer models, and shares are of those that are
    counted. Arguments have the order of that file, KL(unlearned || oracle); others of the same code swap them, and an older
    one has 19 bins.

    Args:
      unlearned, oracle: [models, examples], as for `klom`.

    Returns:
      [examples] float64; NaN, as there, where every unlearned margin is the largest and none is counted.

    Raises:
      ValueError: see `klom`.
    """
    return _klom(*checks.two_fleets(unlearned, oracle, "margins"), largest=False)


def summary(*, unlearned: np.ndarray, oracle: np.ndarray, level: float = 0.95) -> Summary:
    """Mean and 95th percentile of `klom` over the examples of one set (forget, retain, validation), with intervals.

    Intervals leave out groups of models of either kind (`intervals.jackknife`). A bootstrap is no choice here: it doubled
    the value of two fleets of 64 alike, since a model drawn twice leaves a bin of the other kind empty.

    Args:
      unlearned, oracle: [models, examples], see `klom`.
      level: coverage.

    Raises:
      ValueError: see `klom`.
    """
    unlearned, oracle = checks.two_fleets(unlearned, oracle, "margins")

    def statistic(rows: np.ndarray, oracle_rows: np.ndarray) -> np.ndarray:
        values = _klom(unlearned[rows], oracle[oracle_rows])
        return np.array([values.mean(), np.percentile(values, 95)])

    return Summary(*jackknife(statistic, (len(unlearned), len(oracle))).intervals(level))


def _klom(unlearned: np.ndarray, oracle: np.ndarray, largest: bool = True) -> np.ndarray:
    """KLoM of each example; without `largest`, margins at the upper end of the joint range count for nothing."""
    unlearned, oracle = np.clip(unlearned, -CLIP, CLIP), np.clip(oracle, -CLIP, CLIP)
    low = np.minimum(unlearned.min(axis=0), oracle.min(axis=0))
    high = np.maximum(unlearned.max(axis=0), oracle.max(axis=0))
    width = high - low
    scale = BINS / np.where(width > 0, width, 1.0)
    p, q = (_histogram((kind - low) * scale, largest | (kind < high) | (width == 0)) for kind in (unlearned, oracle))
    q = np.where(p > 0, np.maximum(q, FLOOR), q)
    q /= q.sum(axis=1, keepdims=True)
    log_ratio = np.log(np.where(p > 0, p, 1.0)) - np.log(np.where(p > 0, q, 1.0))
    found = np.maximum(np.sum(p * log_ratio, axis=1), 0.0)  # rounding
    return np.where(p.any(axis=1), found, np.nan)


def _histogram(position: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Shares [examples, bins] of the counted positions, [models, examples] in [0, bins]; zeros where none is counted."""
    examples = position.shape[1]
    index = np.minimum(position.astype(np.intp), BINS - 1) + BINS * np.arange(examples)
    counts = np.bincount(index[counted], minlength=BINS * examples).reshape(examples, BINS)
    shares: np.ndarray = counts / np.maximum(counted.sum(axis=0), 1)[:, None]
    return shares
