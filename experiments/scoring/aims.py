"""Where a request ends, for every lane: at an accuracy, or at the level of unseen examples. Fixed before it begins.

No oracle is asked for a level unless a study wants to: levels of a class are read off retained examples of other classes,
those of random examples off held-out ones, or either off a proxy of the oracle that was trained for a quarter of the steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.core import sections
from experiments.core.keys import Hash
from experiments.data.problem import Problem
from experiments.data.sets import subsample
from experiments.scoring.scorer import Scorer
from unlearn import levels
from unlearn.base import Array, Batch
from unlearn.levels import Aim


class Levels(NamedTuple):
    """The end of a request to levels, of every lane.

    aim: where it ends, [lanes] each.  each: the level of each example that is asked for, [lanes, examples].
    """

    aim: Aim
    each: Array


def retained(section: sections.ToLevel, problem: Problem) -> Batch:
    """Retained training examples that a request to a level watches, and that levels of classes are read off."""
    return subsample(problem.sets.retain, section.retained, Hash.LEVEL)


def to_levels(
    scorer: Scorer, section: sections.ToLevel, problem: Problem, params: Any, teacher: Any, forget: Batch
) -> Levels:
    """The end of a request to levels.

    Args:
      params: of all lanes, that meet the request.
      teacher: of all lanes, models that never saw what is asked for: proxies or oracles; None: levels are a lane's own.
      forget: what is asked for.
    """
    watched = retained(section, problem)
    accuracy = scorer.measure(params, watched)[0].mean(axis=1)
    if teacher is not None:
        each, known = _taught(scorer, problem, teacher, forget)
    else:
        each, known = _own(scorer, problem, params, watched, forget)
    # A model that failed has no level; its request diverges at once.
    aim = levels.aim_at(jnp.asarray(each.mean(axis=1), jnp.float32), known=_single(known), retained=_single(accuracy))
    return Levels(aim, _single(each))


def _own(
    scorer: Scorer, problem: Problem, params: Any, watched: Batch, forget: Batch
) -> tuple[np.ndarray, np.ndarray]:
    """A lane's own levels, and how many of the forgotten it may still tell right.

    Of a class: as retained examples of other classes are seen with regard to it, and none. Of random examples: those of
    held-out examples, and as many as of these.
    """
    lanes = len(scorer.measure(params, watched)[0])
    if not problem.by_class:
        held_out = scorer.statistics(params, problem.sets.validation)
        level, known = held_out.margin.mean(axis=1), held_out.correct.mean(axis=1)
        return np.broadcast_to(level[:, None], (lanes, len(forget["id"]))), known
    each = np.zeros((lanes, len(forget["id"])), np.float32)
    for label in np.unique(forget["y"]):
        others = watched["y"] != label
        margins = scorer.statistics(params, dict(watched, y=np.full_like(watched["y"], label))).margin
        each[:, forget["y"] == label] = margins[:, others].mean(axis=1)[:, None]
    return each, np.zeros(lanes)


def _taught(scorer: Scorer, problem: Problem, teacher: Any, forget: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The levels of models that never saw the forgotten: of a class its mean, of random examples each its own."""
    seen = scorer.statistics(teacher, forget)
    if not problem.by_class:
        return seen.margin, seen.correct.mean(axis=1)
    each = np.zeros_like(seen.margin)
    for label in np.unique(forget["y"]):
        rows = forget["y"] == label
        each[:, rows] = seen.margin[:, rows].mean(axis=1)[:, None]
    return each, np.zeros(len(each))


def _single(values: np.ndarray) -> Array:
    return jnp.asarray(values, jnp.float32)
