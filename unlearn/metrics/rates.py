"""How well scores tell members from non-members, over all pairs of a model and an example, and how sure that is.

A higher score says "member". Intervals resample models: the examples of one model share its training run, so thousands of
them are no thousands of independent observations.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np
from scipy.stats import rankdata

from unlearn.metrics import checks
from unlearn.metrics.intervals import MODELS, Interval, percentile_interval

FPRS = (0.001, 0.01)

Value = TypeVar("Value")


class Rates(NamedTuple, Generic[Value]):
    """An attack's success; .5 is chance for the first two, the false-positive rate itself for the last.

    auc: probability that a member outscores a non-member, a tie counting one half.
    balanced_accuracy: mean of the true-positive and true-negative rate at a threshold that was not chosen on these scores.
    tpr: the highest true-positive rate at a false-positive rate of at most each of `fprs`.
    """

    auc: Value
    balanced_accuracy: Value
    tpr: tuple[Value, ...]


def rates(
    scores: np.ndarray, members: np.ndarray, *, threshold: float = 0.0, fprs: tuple[float, ...] = FPRS
) -> Rates[float]:
    """AUC, balanced accuracy and true-positive rates at low false-positive rates, all pairs pooled.

    Args:
      scores: [models, examples] or any other shape; comparable across examples, as likelihood ratios are.
      members: the same shape, bool: whether the model was trained on the example.
      threshold: a score above it is called a member; 0 is where a log-likelihood ratio favours neither.
      fprs: each in (0, 1).

    Raises:
      ValueError: scores not finite or all the same; one class; fewer than 1 / fpr non-members, with which that rate
        cannot be told from 0 (pass fewer `fprs` for a small group).
    """
    ranked = _rank(scores, members, threshold, fprs)
    return _rates(ranked, np.ones(ranked.models), fprs)


def rates_intervals(
    scores: np.ndarray,
    members: np.ndarray,
    *,
    seed: int,
    threshold: float = 0.0,
    fprs: tuple[float, ...] = FPRS,
    resamples: int = 1000,
    level: float = 0.95,
) -> Rates[Interval]:
    """`rates` of targets, each with a percentile interval of a bootstrap over these models.

    Scores stay as they are, so this is for targets that were no shadows of each other (`lira.fit`, `rmia.rmia`), and says
    what other targets would give under the same shadows. For a fleet that attacks itself it is too narrow: see
    `lira.halves`. Draws that hold only members, or none, are left out.

    Args:
      scores, members: [models, examples]; see `rates`.
      seed: of the draws.

    Raises:
      ValueError: as `rates`, and fewer than 10 models.
    """
    scores = checks.table(scores, "scores", MODELS)
    ranked = _rank(scores, members, threshold, fprs)
    point = _rates(ranked, np.ones(ranked.models), fprs)
    draws = np.random.default_rng(seed).multinomial(ranked.models, np.full(ranked.models, 1 / ranked.models), resamples)
    inside = np.sum(members, axis=1)
    both = (draws @ inside > 0) & (draws @ (scores.shape[1] - inside) > 0)
    found = [_rates(ranked, weights, fprs) for weights in draws[both].astype(np.float64)]
    flat = np.array([[one.auc, one.balanced_accuracy, *one.tpr] for one in found])
    auc, accuracy, *tpr = (
        percentile_interval(value, flat[:, i], ranked.models, level)
        for i, value in enumerate([point.auc, point.balanced_accuracy, *point.tpr])
    )
    return Rates(auc, accuracy, tuple(tpr))


def per_example_auc(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The AUC of each example over models: for scatter plots and for groups of examples.

    Give it scores, not likelihood ratios of a fleet that attacks itself: a model's ratio is a function of the other models'
    scores for the same example, and comparing it with theirs is no comparison of independent values.

    Args:
      scores, members: [models, examples].

    Returns:
      [examples] float64 in [0, 1].

    Raises:
      ValueError: scores not finite, or an example that is in all models or in none.
    """
    scores = checks.table(scores, "scores", 2)
    members = checks.membership(members, scores.shape)
    inside = members.sum(axis=0)
    outside = len(members) - inside
    if min(inside.min(), outside.min()) < 1:
        raise ValueError("need at least 1 model with and 1 without each example")
    ranks = rankdata(scores, axis=0)
    return ((ranks * members).sum(axis=0) - inside * (inside + 1) / 2) / (inside * outside)


class _Ranked(NamedTuple):
    """Pairs in descending order of score: whose they are, their membership, where ties end, how many are called members."""

    models: int
    model: np.ndarray
    member: np.ndarray
    ends: np.ndarray
    called: int


def _rank(scores: np.ndarray, members: np.ndarray, threshold: float, fprs: tuple[float, ...]) -> _Ranked:
    scores = checks.finite(scores, "scores")
    members = checks.membership(members, scores.shape)
    checks.varying(scores, "scores")
    others = int((~members).sum())
    for fpr in fprs:
        if not 0 < fpr < 1:
            raise ValueError(f"a false-positive rate must lie between 0 and 1, got {fpr}")
        if others < np.ceil(1 / fpr):
            raise ValueError(
                f"a false-positive rate of {fpr:g} needs at least {np.ceil(1 / fpr):.0f} non-members, got {others}"
            )
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    ranked = flat[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    called = int((flat > threshold).sum())
    width = scores[0].size
    return _Ranked(len(scores), order // width, members.ravel()[order], ends, called)


def _rates(ranked: _Ranked, weights: np.ndarray, fprs: tuple[float, ...]) -> Rates[float]:
    """The rates where each model counts `weights` [models] times."""
    weight = weights[ranked.model]
    hits = np.concatenate([[0.0], np.cumsum(weight * ranked.member)])
    alarms = np.concatenate([[0.0], np.cumsum(weight * ~ranked.member)])
    accuracy = (hits[ranked.called] / hits[-1] + 1 - alarms[ranked.called] / alarms[-1]) / 2
    corners = np.concatenate([[0], ranked.ends + 1])  # ties are called together
    tpr, fpr = hits[corners] / hits[-1], alarms[corners] / alarms[-1]
    auc = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
    highest = [tpr[np.searchsorted(fpr, limit * (1 + 1e-9), side="right") - 1] for limit in fprs]
    return Rates(float(auc), float(accuracy), tuple(map(float, highest)))
