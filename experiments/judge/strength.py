"""The strong relearning attack of a judgement: what suits an attacker best, and up to where models look like oracles.

An attacker knows how a model was trained and unlearned, so that every row has a strength of its own. It is chosen where
models and oracles lie furthest apart, on repeats that relearning reports nothing of; what is reported are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.machines import fleet
from experiments.core.results import Estimate
from experiments.judge import fleets
from experiments.judge.cases import Case
from experiments.judge.metrics import over_lanes
from experiments.scoring.relearning import relearn_strongly
from unlearn.metrics.relearning import LIMIT, separation, strongest, weakest


def attacked(case: Case, params: Any) -> dict[str, Any]:
    """Curves of the repeats that are reported and of as many that are tuned on, if there are; nothing without rates.

    Args:
      params: of all repeats.
    """
    if not case.shared.relearn.rates:
        return {}
    few = fleet.lane(params, slice(2 * len(case.shared.seeds)))
    raw = keys.raw(range(case.seed, case.seed + fleet.lane_count(few)), Purpose.RELEARNING)
    found = relearn_strongly(case.scorer, case.shared.relearn, case.problem, few, raw)
    return {name: attack._asdict() for name, attack in found.items()}


def reference(training: str) -> str:
    """Who a row is compared with: as by every metric, and the oracles with the held-out ones, as a check."""
    return fleets.reference(training) or fleets.ORACLES[1]


def judged(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], rates: Sequence[float], reported: int
) -> dict[str, dict[str, Any]]:
    """What the strong attack tells, by attack set.

    Args:
      mine, theirs: what `attacked` gave of the row and of the oracles it is compared with.
      rates: of the grid.
      reported: how many of the first models are reported; the others are tuned on.

    Returns:
      attack -> {"estimate": spreads from the oracles at the strength that was chosen, "rate" and "step" of that,
      "accuracy" and "oracle" there, "unlike": the weakest strength at which the mean accuracy lies outside the oracles'
      (more than two spreads of theirs from their mean) as a rate and a step or None, "areas": by rate, the mean over steps
      of accuracy above the oracles', "curves" and "oracles": by rate, means over models, "spread": of the oracles at the
      rate that was chosen}.
    """
    return {name: _one(attack, theirs[name], rates, reported) for name, attack in mine.items()}


def _one(mine: Mapping[str, Any], theirs: Mapping[str, Any], rates: Sequence[float], reported: int) -> dict[str, Any]:
    told, tuned = np.split(np.array(mine["curves"], float), [reported], axis=1)
    oracles, tuned_oracles = np.split(np.array(theirs["curves"], float), [reported], axis=1)
    grain = 1 / mine["watched"]
    best = strongest(separation(tuned, tuned_oracles, grain), rates)
    apart, at = separation(told, oracles, grain), rates.index(best.rate)
    unlike, level = weakest(apart, rates, LIMIT), oracles.mean(axis=1)
    areas = (told - level[:, None]).mean(axis=-1)
    named = lambda values: dict(zip(map("{:g}".format, rates), values, strict=True))  # noqa: E731
    return {
        "estimate": Estimate(float(apart[at, best.step]), n=reported),
        **best._asdict(),
        "accuracy": over_lanes(told[at, :, best.step]),
        "oracle": over_lanes(oracles[at, :, best.step]),
        "unlike": unlike._asdict() if unlike else None,
        "areas": named(map(over_lanes, areas)),
        "curves": named(told.mean(axis=1)),
        "oracles": named(level),
        "spread": np.maximum(oracles[at].std(axis=0, ddof=1), grain),
    }
