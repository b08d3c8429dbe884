"""Is the judge itself fair? Attacks on oracles and held-out oracles, where there is nothing to find.

An AUC over all pairs of a member and a non-member is a quotient of two quadratic forms in how often each model counts,

    AUC(w) = w' H w / w' N w,    H_ij = #{member pairs of model i above non-member pairs of model j},  N_ij = #{both},

so that a bootstrap over models needs both matrices once. Models of one seed start and shuffle alike whatever they are not
trained on, so the forget sets of a judgement are resampled together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.judge_metrics import NOTHING, Kept, Labels, margins_of, ulira_ratios
from unlearn.metrics import lira

LEVEL, DRAWS = 0.9, 1000
BAND = (0.47, 0.53)  # a fair judge's interval lies in here


class Pairs(NamedTuple):
    """H and N of one group of pairs, [models, models]; strata: models of one kind, which are resampled apart."""

    above: np.ndarray
    count: np.ndarray
    strata: tuple[int, ...]

    def auc(self, weights: np.ndarray) -> float:
        """AUC where each model counts `weights` [models] times; NaN if no pair is left."""
        pairs = weights @ self.count @ weights
        return float(weights @ self.above @ weights / pairs) if pairs else float("nan")


def pairs(scores: np.ndarray, members: np.ndarray, strata: tuple[int, ...] | None = None) -> Pairs:
    """Compare every model's members with every model's non-members; a tie counts one half.

    Args:
      scores, members: [models, examples].
      strata: how many models there are of each kind, in order; None: all are of one.
    """
    models = len(scores)
    above = np.zeros((models, models))
    inside = [scores[i][members[i]] for i in range(models)]
    for j in range(models):
        outside = np.sort(scores[j][~members[j]])
        for i in range(models):
            ends = [np.searchsorted(outside, inside[i], side=side) for side in ("left", "right")]
            above[i, j] = np.sum(ends) / 2
    count = members.sum(axis=1)[:, None] * (~members).sum(axis=1)[None, :]
    return Pairs(above, count.astype(float), strata or (models,))


def by_shadows(held_out: Kept, labels: Labels) -> Pairs:
    """U-LiRA on held-out oracles: each is asked of examples that none of them saw, half of which are called members."""
    return pairs(ulira_ratios(held_out, labels), held_out.included)


def by_fleets(held_out: Kept, oracle: Kept, labels: Labels) -> Pairs:
    """LiRA on the forget set, where the held-out oracles are called members and the oracles are not.

    Either half of both fleets is attacked with the other half. All examples of a model are on one side, so that the models
    are the observations: the interval is wider than that of the shadows.
    """
    fleets = [margins_of(one, labels, "forget") for one in (held_out, oracle)]
    margins = np.concatenate(fleets)
    member = np.arange(len(margins)) < len(fleets[0])
    members = np.broadcast_to(member[:, None], margins.shape)
    second = np.concatenate([np.arange(len(one)) >= len(one) // 2 for one in fleets])
    ratios = np.empty_like(margins)
    for target in (second, ~second):
        ratios[target] = lira.log_ratio(margins[target], lira.fit(margins[~target], members[~target]))
    return pairs(ratios, members, (len(fleets[0]), len(fleets[1])))


def pooled(groups: dict[str, Pairs], seed: int) -> dict[str, dict[str, Any]]:
    """The AUC of each group and their mean, "pooled", with 90% intervals of a bootstrap over models.

    One draw serves all groups whose strata are alike, model by model; a group that lost models has draws of its own.
    """
    if not groups:
        return {"pooled": dict(NOTHING)}
    draws: dict[tuple[int, ...], np.ndarray] = {}
    for one in groups.values():
        rng = np.random.default_rng(seed)
        if one.strata not in draws:
            drawn = [rng.multinomial(count, np.full(count, 1 / count), DRAWS) for count in one.strata]
            draws[one.strata] = np.concatenate(drawn, axis=1).astype(float)
    each = np.array([[one.auc(weights) for weights in draws[one.strata]] for one in groups.values()])
    points = [one.auc(np.ones(len(one.count))) for one in groups.values()]
    found = {name: _valued(point, draw) for name, point, draw in zip(groups, points, each, strict=True)}
    return found | {"pooled": _valued(float(np.mean(points)), each.mean(axis=0))}


def inside(found: dict[str, Any]) -> bool:
    """Whether an interval lies in the band."""
    low, high = found["interval"]
    return low is not None and BAND[0] <= low and high <= BAND[1]


def _valued(point: float, draws: np.ndarray) -> dict[str, Any]:
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": point, "interval": [float(low), float(high)]}
