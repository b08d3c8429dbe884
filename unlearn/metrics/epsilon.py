"""The score of the NeurIPS 2023 unlearning competition: how well unlearned models pass for retrained ones.

From its write-up (2406.09073) and evaluation code. Read it beside a held-out oracle's: with N models of each kind an
epsilon of up to about log N can be seen, and noise alone gives some.
"""

from __future__ import annotations

import numpy as np

from unlearn.metrics import checks

MODELS = 10  # of each kind, at least; the competition had 512
DELTA = 1e-5
CAP = 50.0  # of two kinds that a threshold separates: infinity, but finite in tables
WIDTH = 0.5


def epsilon(*, unlearned: np.ndarray, oracle: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """Per example the smallest epsilon that excuses no attack seen: max over attacks of

        max(log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR), at least 0.

    Attacks call a score unlearned (or retrained: both directions) if it is at or above any of the scores seen, or if it
    lies within the k-th smallest and k-th largest score of either kind for any k, which catches a peak inside a wide
    distribution. One with FPR = FNR = 0 gives 50 for infinity; one with a single rate of 0 has too few models to say and is
    left out. The competition's code searches the two-sided attacks, and thresholds, on a grid.

    Args:
      unlearned, oracle: [models, examples] `scores.margin` of the forget set, as many models of each kind or not.
      delta: in [0, 1).

    Returns:
      [examples] float64 in [0, 50]; the same if the kinds are swapped.

    Raises:
      ValueError: scores not finite, fewer than 10 models of a kind, other examples, or oracles that are copies.
    """
    unlearned = checks.table(unlearned, "unlearned scores", MODELS)
    oracle = checks.table(oracle, "oracle scores", MODELS)
    if unlearned.shape[1] != oracle.shape[1]:
        raise ValueError(f"scores must be of the same examples, got {unlearned.shape[1]} and {oracle.shape[1]}")
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be at least 0 and below 1, got {delta}")
    if not np.ptp(oracle, axis=0).any():
        raise ValueError("oracle scores: need at least 2 distinct values of some example; these oracles are copies")
    inside, outside = _shares(unlearned, oracle)
    rates = [(outside, 1 - inside), (1 - outside, inside)]  # (FPR, FNR) if what lies within is called unlearned, or not
    return np.clip(np.maximum(*(_of_rates(fpr, fnr, delta).max(axis=0) for fpr, fnr in rates)), 0.0, CAP)


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


def _shares(unlearned: np.ndarray, oracle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of either kind that lie within each attack's set: two arrays [attacks, examples]."""
    kinds = np.sort(unlearned, axis=0), np.sort(oracle, axis=0)
    low, high = [], []
    for kind in kinds:
        half = (len(kind) + 1) // 2
        low += [kind, kind[:half]]
        high += [np.full_like(kind, np.inf), kind[::-1][:half]]
    lows, highs = np.concatenate(low), np.concatenate(high)
    shares = [(_count(kind, highs, "right") - _count(kind, lows, "left")) / len(kind) for kind in kinds]
    return shares[0], shares[1]


def _count(kind: np.ndarray, thresholds: np.ndarray, side: str) -> np.ndarray:
    """How many of a sorted kind [models, examples] lie below ("left") or up to ("right") thresholds [attacks, examples]."""
    columns = range(kind.shape[1])
    return np.stack([np.searchsorted(kind[:, i], thresholds[:, i], side=side) for i in columns], axis=1)  # type: ignore[call-overload]


def _of_rates(fpr: np.ndarray, fnr: np.ndarray, delta: float) -> np.ndarray:
    """The epsilon that a pair of rates proves; -inf where one of them is 0."""
    log = lambda x: np.log(np.where(x > 0, x, 1.0))  # noqa: E731
    proved = np.maximum(
        np.where(1 - delta - fpr > 0, log(1 - delta - fpr) - log(fnr), -np.inf),
        np.where(1 - delta - fnr > 0, log(1 - delta - fnr) - log(fpr), -np.inf),
    )
    return np.where((fpr > 0) & (fnr > 0), proved, np.where((fpr <= 0) & (fnr <= 0), np.inf, -np.inf))
