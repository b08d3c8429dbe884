"""U-LiRA of a fleet whose halves attack each other, for both judges: who holds what, the attack, and how sure it is.

Intervals leave out groups of models, as targets and as shadows: halves share their models, so that a bootstrap of targets
is a third too narrow. `python -m experiments.benchmarks.coverage` prints how often each holds the truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.core.results import Estimate
from experiments.data import datasets
from unlearn.metrics import lira, rates
from unlearn.metrics.intervals import GROUPS, jackknife

LEVELS = {"tpr_at_0.1%": 0.001, "tpr_at_1%": 0.01}  # true-positive rates at these false-positive rates
REDRAWN = 50  # memberships that are nobody's
BAND = (0.47, 0.53)  # where the 90% interval of an AUC lies if the attack tells nothing


# --- Who holds what ---------------------------------------------------------------------------------------------------


def halved(ids: np.ndarray, models: range, seed: int, purpose: str) -> np.ndarray:
    """[models, examples] bool: every example in half of the models, which ones by its id alone."""
    drawn = np.stack([datasets.hash_uniform(ids, f"{purpose}{model}", seed) for model in models])
    return np.argsort(np.argsort(drawn, axis=0), axis=0) < len(models) // 2


def memberships(ids: np.ndarray, models: int, seed: int, purpose: str, draw: int = 0) -> np.ndarray:
    """[models, examples] bool: every example in half of either half of the models; another draw, another half."""
    first, middle = draw * models, draw * models + models // 2
    parts = (range(first, middle), range(middle, first + models))
    return np.concatenate([halved(ids, part, seed, purpose) for part in parts])


def nobodys(ids: np.ndarray, models: int, seed: int, purpose: str) -> np.ndarray:
    """[REDRAWN, models, examples] bool: memberships like the models' own that have nothing to do with them."""
    return np.stack([memberships(ids, models, seed, purpose, draw) for draw in range(1, 1 + REDRAWN)])


def second_half(models: int) -> np.ndarray:
    """[models] bool: the first half and the second attack each other."""
    return np.arange(models) >= models // 2


# --- The attack -------------------------------------------------------------------------------------------------------


def attacked(
    margins: np.ndarray,
    included: np.ndarray,
    second: np.ndarray,
    groups: dict[str, np.ndarray] | None = None,
    together: int = 1,
) -> dict[str, Any]:
    """Was a model trained on an example that it was asked to forget, or never?

    Args:
      margins: [models, examples] of each example, after the request where a model held it.
      included: [models, examples] bool, who held it.
      second: [models] bool, which half a model belongs to.
      groups: name -> [examples] bool; thirds by memorisation, say.
      together: of so many neighbouring models intervals leave out all or none; see `jackknife`.

    Returns:
      the pooled AUC with its 95% and its 90% interval, balanced accuracy, true-positive rates (none where there
      are too few pairs of a model and an example that it never held), the AUC of each group, of each example, and a curve.

    Raises:
      ValueError: fewer than 10 models, or what LiRA refuses.
    """
    parts = groups or {}
    own = all(lira.own_variances(included[half]) for half in (second, ~second))
    for name, part in parts.items():
        if not part.any():
            raise ValueError(f"group {name!r} has no example")
    outside, left_out = np.sort((~included).sum(axis=1)), together * -(-len(included) // (together * GROUPS))
    others = outside[: len(outside) - left_out].sum()  # when the models that have most of them are left out
    told = {name: rate for name, rate in LEVELS.items() if others * rate >= 1}  # a rate finer than one in all is none

    def statistic(rows: np.ndarray) -> np.ndarray:
        member, ratios = included[rows], lira.halves(margins[rows], included[rows], second[rows], own)
        found = rates.rates(ratios, member, fprs=tuple(told.values()))
        each = [rates.rates(ratios[:, part], member[:, part], fprs=()).auc for part in parts.values()]
        return np.array([found.auc, found.balanced_accuracy, *found.tpr, *each])

    spread = jackknife(statistic, (len(margins),), together)
    auc, accuracy, *rest = map(Estimate.of, spread.intervals())
    return {
        "estimate": auc,
        "estimate90": Estimate.of(spread.intervals(0.9)[0]),
        "balanced_accuracy": accuracy,
        **dict.fromkeys(LEVELS, Estimate(reason="too few pairs of a model and an example that it never held")),
        **dict(zip(told, rest, strict=False)),
        "groups": dict(zip(parts, rest[len(told) :], strict=True)),
        "examples": rates.per_example_auc(margins, included),
        "roc": roc(lira.halves(margins, included, second, own), included),
    }


def blind(margins: np.ndarray, redrawn: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """What the attack finds for memberships that are nobody's: the mean AUC, and the central 95% and 90% of them.

    Args:
      margins, second: as for `attacked`.
      redrawn: [draws, models, examples] bool, see `nobodys`.
    """
    found = [rates.rates(lira.halves(margins, mask, second), mask, fprs=()).auc for mask in redrawn]

    def central(level: float) -> Estimate:
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]).tolist()
        return Estimate(float(np.mean(found)), low, high, len(margins))

    return {"estimate": central(0.95), "estimate90": central(0.9)}


def told(low: float | None, high: float | None) -> str:
    """Whether an attack tells anything, by the 90% interval of its AUC: "no" within BAND, "yes" beside it, else "open"."""
    if low is None or high is None:
        return "open"
    if BAND[0] <= low and high <= BAND[1]:
        return "no"
    return "yes" if high < BAND[0] or low > BAND[1] else "open"


def roc(ratios: np.ndarray, included: np.ndarray) -> dict[str, np.ndarray]:
    """True-positive rates at false-positive rates from 1e-3 to 1, evenly apart on a log axis."""
    outside, inside = np.sort(ratios[~included]), ratios[included]
    alarms = np.geomspace(1e-3, 1.0, 49)
    thresholds = outside[np.maximum(len(outside) - 1 - (alarms * len(outside)).astype(int), 0)]
    hits = np.array([(inside > threshold).mean() for threshold in thresholds])
    return {"fpr": alarms, "tpr": np.where(alarms >= 1, 1.0, hits)}
