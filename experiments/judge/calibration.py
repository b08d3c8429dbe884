"""Is the judge itself fair? Attacks on oracles and held-out oracles, where there is nothing to find.

Intervals leave out groups of models, as targets and as shadows, and compute all anew, as those of `judge.ulira` do.
Models of one seed start alike in every forget set, so that they leave together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.configs.judge import POOLED
from experiments.core.errors import line
from experiments.core.results import Estimate
from experiments.judge.metrics import Kept, Masks, margins_of, some_shadows, wide
from experiments.judge.ulira import second_half
from unlearn.metrics import lira, rates
from unlearn.metrics.intervals import jackknife

LEVEL = 0.9


class Group(NamedTuple):
    """The oracles of one forget set."""

    held_out: Kept
    oracle: Kept
    masks: Masks


def calibrated(groups: dict[str, Group]) -> dict[str, dict[str, Estimate]]:
    """attack -> the AUC of each group and their mean, "pooled", with 90% intervals; 0.5 is fair.

    A group that lost models to failures shortens all of them; an attack that cannot be computed says why.
    """
    every = groups.values()
    kinds = list(zip(*(one[:2] for one in every), strict=True))
    shadows = tuple(min(len(fleet.shadows.margin) for fleet in kind) for kind in kinds)
    fleets = tuple(min(len(fleet.pool.margin) for fleet in kind) for kind in kinds)
    return {"shadows": _pooled(by_shadows, groups, shadows), "fleets": _pooled(by_fleets, groups, fleets)}


def by_shadows(group: Group, rows: np.ndarray, oracle_rows: np.ndarray) -> float:
    """U-LiRA on both fleets of oracles, each with the other as shadows: they are asked of examples that none of them saw,
    half of which are called members."""
    fleets = [some_shadows(kept, some) for kept, some in zip(group[:2], (rows, oracle_rows), strict=True)]
    margins = np.concatenate([wide(kept.shadows.margin) for kept in fleets])
    members = np.concatenate([kept.included for kept in fleets])
    own = all(lira.own_variances(kept.included) for kept in group[:2])
    second = np.arange(len(margins)) >= len(rows)
    return rates.rates(lira.halves(margins, members, second, own), members, fprs=()).auc


def by_fleets(group: Group, rows: np.ndarray, oracle_rows: np.ndarray) -> float:
    """LiRA on the forget set, where the held-out oracles are called members and the oracles are not.

    Either half of both fleets is attacked with the other half. All examples of a model are on one side, so that the models
    are the observations: the interval is wider than that of the shadows.
    """
    fleets = [margins_of(kept, group.masks, "forget") for kept in group[:2]]
    second = np.concatenate([second_half(len(one))[some] for one, some in zip(fleets, (rows, oracle_rows), strict=True)])
    margins = np.concatenate([fleets[0][rows], fleets[1][oracle_rows]])
    members = np.broadcast_to((np.arange(len(margins)) < len(rows))[:, None], margins.shape)
    own = min(len(one) // 2 for one in fleets) >= lira.PER_EXAMPLE
    return rates.rates(lira.halves(margins, members, second, own), members, fprs=()).auc


def _pooled(attack: Callable[..., float], groups: dict[str, Group], models: tuple[int, ...]) -> dict[str, Estimate]:
    def statistic(*rows: np.ndarray) -> np.ndarray:
        each = [attack(group, *rows) for group in groups.values()]
        return np.array([*each, np.mean(each)])

    try:
        found = jackknife(statistic, models).intervals(LEVEL)
    except ValueError as refused:
        return {POOLED: Estimate(reason=line(refused))}
    return dict(zip([*groups, POOLED], map(Estimate.of, found), strict=True))
