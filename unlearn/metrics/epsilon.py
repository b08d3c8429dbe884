"""The score of the NeurIPS 2023 unlearning competition: how well unlearned models pass for retrained ones.

From its write-up (2406.09073) and evaluation code. Read it beside a held-out oracle's: with N models of each kind an
epsilon of up to about log N can be seen, and noise alone gives about 1.6, so that F is near .19 for models that are alike
(measured: Gaussian scores, N from 64 to 512).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from unlearn.metrics import checks
from unlearn.metrics.intervals import MODELS

DELTA = 1e-5
CAP = 50.0  # of two kinds that a threshold separates: infinity, but finite in tables
WIDTH = 0.5

# Of the competition's code
PER_UNIT = 100  # thresholds
BUFFER = 2.0  # beyond either end of the narrower kind
PEAK = 0.01  # a kind whose range is a smaller share of the other's is called a peak


def epsilon(*, unlearned: np.ndarray, oracle: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """The epsilon of each example: the least for which (epsilon, delta) would allow every attack seen.

        max over attacks of max(log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR), and at least 0

    Attacks call a score unlearned (or retrained: both directions) if it is at or above any of the scores seen, or if it
    lies within the k-th smallest and k-th largest score of either kind for any k, which catches a peak inside a wide
    distribution. One with FPR = FNR = 0 gives 50 for infinity; one with a single rate of 0 has too few models to say and is
    left out. The competition's code searches the two-sided attacks, and thresholds, on a grid (`epsilon_published`). Where
    a fleet has a peak off the middle of the other, its windows may find more than these, whose two ends lie at equal
    ranks (4.08 against 3.80 was seen), so compare values of one code alone.

    Args:
      unlearned, oracle: [models, examples] `scores.margin` of the forget set, as many models of each kind or not.
      delta: in [0, 1).

    Returns:
      [examples] float64 in [0, 50]; the same if the kinds are swapped.

    Raises:
      ValueError: scores not finite, fewer than 10 models of a kind, other examples, or oracles that are copies.
    """
    unlearned, oracle = _checked(unlearned, oracle, delta)
    hit, alarm = _shares(unlearned, oracle)
    called_unlearned, called_retrained = _of_rates(alarm, 1 - hit, delta), _of_rates(1 - alarm, hit, delta)
    return np.clip(np.maximum(called_unlearned, called_retrained).max(axis=1), 0.0, CAP)


def epsilon_published(*, unlearned: np.ndarray, oracle: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """The epsilon of each example as the competition's code searches it (google-deepmind/unlearning_evaluation).

    What an attack proves is as in `epsilon`; the attacks are others. Thresholds lie on a grid of 100 to the unit of the
    joint range instead of at the scores, and the kind of the larger median alone is called above them. Windows have ends
    on grids of 400: the upper within 2 of the narrower kind's largest score, the lower within 2 of as far below as its
    range is wide, so that they need not lie at equal ranks; the narrower kind alone is called inside. Where one kind's
    range is below 1% of the other's, the value is 50 at once. It knows no intervals. That code (`metric.py`) refuses more
    than one threshold that is left (it asserts on an array) and compares in float32; here are doubles, and 0 where no
    attack has two rates above 0.

    Args:
      unlearned, oracle, delta: as for `epsilon`; the scores' unit matters here.

    Returns:
      [examples] float64 in [0, 50]; also 50 where neither kind varies.

    Raises:
      ValueError: see `epsilon`.
    """
    unlearned, oracle = _checked(unlearned, oracle, delta)
    return np.array([_searched(*pair, delta) for pair in zip(unlearned.T, oracle.T, strict=True)])


def points(values: np.ndarray, models: int) -> np.ndarray:
    """2^-b for an epsilon in the b-th bucket of width 1/2, from [0, 1/2) on; 0 from ceil(log(models - 1)) on.

    Args:
      values: [examples] of `epsilon`.
      models: how many there were of each kind.

    Raises:
      ValueError: values not finite or negative, or fewer than 10 models.
    """
    values = checks.finite(values, "epsilons")
    if values.min() < 0 or models < MODELS:
        raise ValueError(f"points need epsilons of at least 0 and {MODELS} models, got {values.min():g} and {models}")
    return np.where(values < np.ceil(np.log(models - 1)), 2.0 ** -np.floor(np.minimum(values, CAP) / WIDTH), 0.0)


def forgetting_quality(values: np.ndarray, models: int) -> float:
    """F, the mean of `points`: 1 if every example's epsilon is below 1/2."""
    return float(points(values, models).mean())


def final_score(quality: float, *, retain: float, oracle_retain: float, test: float, oracle_test: float) -> float:
    """F (RA / RA of the oracle) (TA / TA of the oracle), of mean retain and test accuracies.

    Raises:
      ValueError: a value not finite, or an oracle's accuracy of 0.
    """
    checks.finite(np.array([quality, retain, oracle_retain, test, oracle_test]), "quality and accuracies")
    if oracle_retain <= 0 or oracle_test <= 0:
        raise ValueError(f"oracle accuracies must be above 0, got {oracle_retain:g} and {oracle_test:g}")
    return quality * (retain / oracle_retain) * (test / oracle_test)


def _checked(unlearned: np.ndarray, oracle: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be at least 0 and below 1, got {delta}")
    return checks.two_fleets(unlearned, oracle, "scores")


def _searched(unlearned: np.ndarray, oracle: np.ndarray, delta: float) -> float:
    """The published search for one example, [models] each."""
    ranges = np.ptp(unlearned), np.ptp(oracle)
    if min(ranges) < PEAK * max(ranges) or not max(ranges):
        return CAP
    unlearned, oracle = np.sort(unlearned), np.sort(oracle)
    lower, upper = sorted((unlearned, oracle), key=np.median)
    narrow, wide = (oracle, unlearned) if ranges[0] >= ranges[1] else (unlearned, oracle)
    found = _proved(upper, lower, _above, delta), _proved(narrow, wide, _inside, delta)
    return float(np.clip(max(found), 0.0, CAP))


def _proved(
    called: np.ndarray, other: np.ndarray, family: Callable[[np.ndarray, np.ndarray], list[np.ndarray]], delta: float
) -> float:
    """The most that a family of attacks proves, where models of the sorted `called` are hits and others false alarms."""
    hits, alarms = family(called, other)
    pairs = np.flatnonzero(np.bincount((hits * (len(other) + 1) + alarms).ravel()))  # each once
    hit, alarm = np.divmod(pairs, len(other) + 1)
    return float(_of_rates(alarm / len(other), 1 - hit / len(called), delta).max())


def _above(upper: np.ndarray, lower: np.ndarray) -> list[np.ndarray]:
    """How many of both sorted kinds lie at or above each threshold."""
    low, high = min(upper[0], lower[0]), max(upper[-1], lower[-1])
    grid = np.linspace(low, high, int(np.ceil((high - low) * PER_UNIT)))
    return [len(kind) - np.searchsorted(kind, grid, "left") for kind in (upper, lower)]


def _inside(narrow: np.ndarray, wide: np.ndarray) -> list[np.ndarray]:
    """How many of both sorted kinds lie in each window: [uppers, lowers]. Sums of two equal grids have few values."""
    size = int(2 * BUFFER * PER_UNIT)
    highs = narrow[-1] + np.linspace(-BUFFER, BUFFER, size)
    lows = narrow[0] + np.linspace(-2 * BUFFER, 2 * BUFFER, 2 * size - 1)
    low_of = np.arange(size)[:, None] + np.arange(size)
    ends = [(np.searchsorted(kind, highs, "right"), np.searchsorted(kind, lows, "left")) for kind in (narrow, wide)]
    return [np.maximum(up_to[:, None] - below[low_of], 0) for up_to, below in ends]


def _shares(unlearned: np.ndarray, oracle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of either kind that lie within each attack's set: two arrays [examples, attacks]."""
    kinds = np.sort(unlearned.T, axis=1), np.sort(oracle.T, axis=1)
    low, high = [], []
    for kind in kinds:
        half = (kind.shape[1] + 1) // 2
        low += [kind, kind[:, :half]]
        high += [np.full_like(kind, np.inf), kind[:, ::-1][:, :half]]
    lows, highs = np.concatenate(low, axis=1), np.concatenate(high, axis=1)
    within = (_count(kind, highs, "right") - _count(kind, lows, "left") for kind in kinds)
    hit, alarm = (count / kind.shape[1] for count, kind in zip(within, kinds, strict=True))
    return hit, alarm


def _count(kind: np.ndarray, thresholds: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """How many of each sorted row lie below ("left") or up to ("right") each of the same row's thresholds."""
    return np.stack([np.searchsorted(row, limits, side) for row, limits in zip(kind, thresholds, strict=True)])


def _of_rates(fpr: np.ndarray, fnr: np.ndarray, delta: float) -> np.ndarray:
    """The epsilon that a pair of rates proves; -inf where one of them is 0."""
    log = lambda x: np.log(np.where(x > 0, x, 1.0))  # noqa: E731
    proved = np.maximum(
        np.where(1 - delta - fpr > 0, log(1 - delta - fpr) - log(fnr), -np.inf),
        np.where(1 - delta - fnr > 0, log(1 - delta - fnr) - log(fpr), -np.inf),
    )
    return np.where((fpr > 0) & (fnr > 0), proved, np.where((fpr <= 0) & (fnr <= 0), np.inf, -np.inf))
