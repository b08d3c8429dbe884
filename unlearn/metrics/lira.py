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

from unlearn.metrics import checks

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
    return Shadows(_gaussian(scores, members, own), _gaussian(scores, ~members, own))


def own_variances(members: np.ndarray) -> bool:
    """Whether there are shadows enough, [models, examples], for variances of each example's own."""
    return bool(min(members.sum(axis=0).min(), (~members).sum(axis=0).min()) >= PER_EXAMPLE)


def halves(scores: np.ndarray, members: np.ndarray, second: np.ndarray, own: bool | None = None) -> np.ndarray:
    """Log-likelihood ratios of a fleet whose halves attack each other, so that no target is a shadow of its own.

    Intervals are to leave models out of both roles (`intervals.jackknife`): a bootstrap of these ratios is too narrow.

    Args:
      scores, members: [models, examples], as for `fit`.
      second: [models] bool, which half a model belongs to.
      own: see `fit`.

    Returns:
      [models, examples] float64, to be read by `rates.rates` with the same `members`.

    Raises:
      ValueError: what `fit` refuses of either half, or halves that are none.
    """
    scores, members = _checked(scores, members)
    if np.shape(second) != scores.shape[:1] or np.asarray(second).dtype != bool:
        raise ValueError(
            f"the second half must be {scores.shape[:1]} bool, got {np.shape(second)} {np.asarray(second).dtype}"
        )
    ratios = np.empty_like(scores)
    for target in (second, ~second):
        ratios[target] = log_ratio(scores[target], fit(scores[~target], members[~target], own))
    return ratios


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


def _gaussian(scores: np.ndarray, chosen: np.ndarray, own: bool) -> Gaussian:
    """Moments over the chosen models, [examples]; `own`: variances of each example's own, instead of pooled ones."""
    count = chosen.sum(axis=0)
    if count.min() < 2:
        raise ValueError(
            f"LiRA needs at least 2 models with and 2 without each example; {(count < 2).sum()} of {len(count)} examples "
            f"have only {count.min()} on one side"
        )
    mean = np.where(chosen, scores, 0.0).sum(axis=0) / count
    squares = (np.where(chosen, scores - mean, 0.0) ** 2).sum(axis=0)
    variance, pooled = squares / (count - 1), squares.sum() / (count - 1).sum()
    if pooled <= FLAT**2:
        raise ValueError("LiRA needs at least 2 distinct scores on each side of some example; these shadows are copies")
    return Gaussian(mean, np.where(own & (variance > FLAT**2), variance, pooled))
