"""Statistics of fleets whose margins are given: models of two classes, and every label the first."""

import numpy as np

from experiments.judge.metrics import Kept, Masks
from experiments.scoring.statistics import Statistics, of_logits


def of_margins(margins: np.ndarray) -> Statistics:
    """Of [models, examples] margins."""
    logits = np.stack([margins, np.zeros_like(margins)], axis=-1)
    return of_logits(logits, np.zeros(margins.shape[-1], int))


def kept(margins: np.ndarray, included: np.ndarray | None = None) -> Kept:
    """What is kept of [pool, retain, validation, test, shadows] margins, [5, models, examples], and of no features."""
    models = margins.shape[1]
    member = np.zeros(margins.shape[1:], bool) if included is None else included
    return Kept(
        *map(of_margins, margins),
        features=np.zeros((0, 0, 0)),
        divergence=np.zeros((0, 0)),
        included=member,
        second=np.arange(models) >= models // 2,
        failed={"repeats": 0, "shadows": 0},
    )


def first(examples: int, forgotten: int) -> Masks:
    """The first examples of a pool are forgotten."""
    return Masks(forgotten=np.arange(examples) < forgotten, others=np.ones(examples, bool))
