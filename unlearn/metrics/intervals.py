"""Intervals over seeds and over models of a fleet, and paired comparisons of two ways on the same seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

MODELS = 10  # an interval over fewer would be a guess


class Interval(NamedTuple):
    """An estimate with its interval (95% unless said otherwise).

    Over seeds `mean` is their mean and `count` how many were finite, the others being left out; over a fleet `mean` is the
    metric of the whole fleet and `count` its number of models.
    """

    mean: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # hides tuple.count


def t_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Mean and t-interval of independent values, one per seed.

    Args:
      values: [seeds] float; NaN and infinities are failures: they are dropped and show in `count`.
      level: coverage.

    Returns:
      An Interval; its bounds are NaN for fewer than two values, its mean too for none.
    """
    kept = np.asarray(values, np.float64)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(kept.mean())
    if len(kept) < 2:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(stats.t.ppf((1 + level) / 2, len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept)))
    return Interval(mean, mean - half, mean + half, len(kept))


def percentile_interval(estimate: float, draws: np.ndarray, count: int, level: float = 0.95) -> Interval:
    """The percentile interval of a bootstrap.

    Args:
      estimate: from all models.
      draws: [resamples] the same from models drawn with replacement.
      count: how many models there are.
      level: coverage.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), count)


GROUPS = 16  # of models that are left out together: enough for a variance, few enough to compute a metric anew for each


class Spread(NamedTuple):
    """What was computed from fleets of models, and how sure it is.

    estimate, error: [values] of all models, and standard errors.
    freedom: degrees of freedom of the errors.
    models: of the smallest fleet.
    """

    estimate: np.ndarray
    error: np.ndarray
    freedom: int
    models: int

    def intervals(self, level: float = 0.95) -> list[Interval]:
        """t-intervals of that coverage, one for each value."""
        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        values = np.stack([self.estimate, self.estimate - half, self.estimate + half], axis=1)
        return [Interval(float(mean), float(low), float(high), self.models) for mean, low, high in values]


def jackknife(statistic: Callable[..., np.ndarray], models: tuple[int, ...], together: int = 1) -> Spread:
    """How sure what is computed from one or more independent fleets is, by leaving out groups of models.

        variance = sum over fleets of (g - 1) / g sum_i (estimate without group i - their mean)^2

    Everything is computed anew from the models that are left. A bootstrap would draw models twice, which histograms and
    shadow models do not forgive: their values move away from the estimate.

    Args:
      statistic: (rows of the first fleet, rows of the second, ...) -> [values]; rows are indices of models.
      models: how many each fleet has; it falls into that many groups of neighbours, at most 16.
      together: so many neighbours are no independent models, such as those of one seed, and are left out together.

    Raises:
      ValueError: fewer than 10 models in a fleet, or such as do not divide.
    """
    if any(count % together for count in models):
        raise ValueError(f"{models} models do not divide by {together}: give whole sets of those that belong together")
    if min(models) < MODELS:
        raise ValueError(f"an interval over models needs at least {MODELS} of each kind, got {min(models)}")
    everyone = [np.arange(count) for count in models]
    estimate = np.asarray(statistic(*everyone), np.float64)
    variance, freedom = np.zeros_like(estimate), 0
    for which in range(len(models)):
        sets = everyone[which].reshape(-1, together)
        groups = min(len(sets), GROUPS)
        kept = [np.setdiff1d(everyone[which], group) for group in np.array_split(sets, groups)]
        found = np.array([statistic(*everyone[:which], rows, *everyone[which + 1 :]) for rows in kept])
        variance += (groups - 1) * found.var(axis=0)
        freedom += groups - 1
    return Spread(estimate, np.sqrt(variance), freedom, min(models))


class Paired(NamedTuple):
    """The mean difference a - b over common seeds, its 95% interval, and the two-sided p-value of a paired t-test."""

    difference: Interval
    p_value: float


def paired(a: np.ndarray, b: np.ndarray) -> Paired:
    """Compare two ways seed by seed; identical pairs give p = 1.

    Args:
      a, b: [seeds] float, in the same order of seeds; pairs with a non-finite member are dropped.

    Raises:
      ValueError: lengths differ.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values must match seed by seed, got {a.shape} and {b.shape}")
    difference = (a - b)[np.isfinite(a - b)]
    interval = t_interval(difference)
    if len(difference) < 2:
        return Paired(interval, float("nan"))
    if np.ptp(difference) == 0:
        return Paired(interval, 1.0 if difference[0] == 0 else 0.0)
    return Paired(interval, float(stats.ttest_1samp(difference, 0.0).pvalue))
