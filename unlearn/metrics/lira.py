"""LiRA and U-LiRA: was this model trained on this example, asked of shadow models that know?

A likelihood ratio per example between two Gaussians, fitted to the scores of shadows trained with it ("in") and without
it ("out") (Carlini et al., 2112.03570). In U-LiRA (Hayes et al., 2403.01218) "in" shadows were trained with the example
and then unlearned it by the algorithm under judgement, so the ratio asks whether it was ever there; the mathematics is
the same. The score is `scores.margin`. Read the rates beside a held-out oracle's, and beside KLoM: an algorithm that gives
all examples one margin deceives this attack (2602.16400).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlearn.metrics import checks, rates
from unlearn.metrics.intervals import Interval, jackknife

PER_EXAMPLE = 32  # shadows on both sides of all examples, from which on each has variances of its own
FLAT = 1e-9  # a standard deviation that no float32 score can have


class Gaussian(NamedTuple):
    """Mean and variance of each example's scores, [..., examples]."""

    mean: np.ndarray
    variance: np.ndarray


class Shadows(NamedTuple):
    """The scores that examples have under models trained with them, and under models trained without."""

    inside: Gaussian
    outside: Gaussian


def fit(scores: np.ndarray, members: np.ndarray, own: bool | None = None) -> Shadows:
    """Gaussians of each example's shadow scores.

    Each example has variances of its own (unbiased) if all have at least 32 shadows with them and 32 without. With fewer,
    and for an example whose scores do not vary, a side's variance is pooled over examples: the sum of their squares over
    that of their degrees of freedom.

    Args:
      scores: [models, examples] of shadows, apart from every target.
      members: [models, examples] bool: whether the shadow was trained on the example.
      own: whether examples have variances of their own, where these are a part of a fleet that is to be fitted as the
        whole is (`own_variances`); None: as these shadows allow.

    Raises:
      ValueError: scores not finite, fewer than 2 shadows on a side of an example, or no example whose scores vary.
    """
    scores, members = _checked(scores, members)
    own = own_variances(members) if own is None else own
    return Shadows(_gaussian(scores, members, own, False), _gaussian(scores, ~members, own, False))


def own_variances(members: np.ndarray) -> bool:
    """Whether there are shadows enough, [models, examples], for variances of each example's own."""
    return bool(min(members.sum(axis=0).min(), (~members).sum(axis=0).min()) >= PER_EXAMPLE)


def leave_one_out(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Log-likelihood ratios of a fleet in which each model in turn is the target and all others are its shadows.

    Where each model drew its own members, its ratios do not depend on its membership under the null, so that pooled rates
    are fair. The ratios of one example are not: each is a function of the others' scores, and the AUC of one example
    alone falls below .5 under the null (to .45 with 64 models).

    Args:
      scores, members: [models, examples], as for `fit`.

    Returns:
      [models, examples] float64, to be read by `rates.rates` with the same `members`.

    Raises:
      ValueError: as `fit`, but fewer than 3 on a side, since one of them may be the target.
    """
    scores, members = _checked(scores, members)
    return _leave_one_out(scores, members, own_variances(members))


def leave_one_out_rates(
    scores: np.ndarray,
    members: np.ndarray,
    *,
    threshold: float = 0.0,
    fprs: tuple[float, ...] = rates.FPRS,
    level: float = 0.95,
) -> rates.Rates[Interval]:
    """The rates of `leave_one_out`, with intervals that leave groups of models out, as targets and as shadows.

    They are up to twice too wide where there is nothing to detect (measured: Gaussian scores, 64 models), and fair where
    there is; with a bootstrap of the targets alone 95% intervals would hold 78% of the time. To show that nothing is
    there, keep targets and shadows apart and use `rates.rates_intervals`.

    Args:
      scores, members: [models, examples], as for `leave_one_out`.
      threshold, fprs: as for `rates.rates`.
      level: coverage.

    Raises:
      ValueError: as `leave_one_out`, `rates.rates` and `intervals.jackknife`, also where that is so without some models.
    """
    scores, members = _checked(scores, members)

    own = own_variances(members)  # of the whole fleet: its parts are to be fitted as it is

    def statistic(rows: np.ndarray) -> np.ndarray:
        part = members[rows]
        found = rates.rates(_leave_one_out(scores[rows], part, own), part, threshold=threshold, fprs=fprs)
        return np.array([found.auc, found.balanced_accuracy, *found.tpr])

    auc, accuracy, *tpr = jackknife(statistic, (len(scores),), level)
    return rates.Rates(auc, accuracy, tuple(tpr))


def log_ratio(scores: np.ndarray, shadows: Shadows) -> np.ndarray:
    """The log-likelihood ratio log N(s; in) - log N(s; out): positive where "trained on it" explains the score better.

    Args:
      scores: [..., examples] of targets, for the shadows' examples.

    Raises:
      ValueError: scores not finite, or of other examples than the shadows'.
    """
    scores = checks.finite(scores, "target scores")
    if scores.shape[-1:] != shadows.inside.mean.shape[-1:]:
        raise ValueError(f"targets have {scores.shape[-1:]} examples, their shadows {shadows.inside.mean.shape[-1:]}")
    return _log_density(scores, shadows.inside) - _log_density(scores, shadows.outside)


def _log_density(scores: np.ndarray, gaussian: Gaussian) -> np.ndarray:
    """Up to a constant that all Gaussians share."""
    return -((scores - gaussian.mean) ** 2 / gaussian.variance + np.log(gaussian.variance)) / 2


def _checked(scores: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = checks.table(scores, "shadow scores", 2)
    return scores, checks.membership(members, scores.shape)


def _leave_one_out(scores: np.ndarray, members: np.ndarray, own: bool) -> np.ndarray:
    return log_ratio(scores, Shadows(_gaussian(scores, members, own, True), _gaussian(scores, ~members, own, True)))


def _gaussian(scores: np.ndarray, chosen: np.ndarray, own: bool, one_out: bool) -> Gaussian:
    """Moments over the chosen models, [examples]; `one_out`: for each model without itself, [models, examples].

    own: variances of each example's own, instead of pooled ones.
    """
    count = chosen.sum(axis=0)
    if count.min() < 2 + one_out:
        short = int((count < 2 + one_out).sum())
        raise ValueError(
            f"LiRA needs at least {2 + one_out} models with and {2 + one_out} without each example; "
            f"{short} of {len(count)} examples have only {count.min()} on one side"
        )
    mean = np.where(chosen, scores, 0.0).sum(axis=0) / count
    deviation = np.where(chosen, scores - mean, 0.0)
    squares, rest = (deviation**2).sum(axis=0), count
    if one_out:  # a model's own share is taken back; nothing changes where it is not among the chosen
        rest = count - chosen
        mean = mean - deviation / rest
        squares = np.maximum(squares - deviation**2 * count / rest, 0.0)
    variance = squares / (rest - 1)
    pooled = squares.sum(axis=-1, keepdims=True) / (rest - 1).sum(axis=-1, keepdims=True)
    if pooled.min() <= FLAT**2:
        raise ValueError("LiRA needs at least 2 distinct scores on each side of some example; these shadows are copies")
    return Gaussian(mean, np.where(own & (variance > FLAT**2), variance, pooled))
