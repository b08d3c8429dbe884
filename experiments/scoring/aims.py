"""Where a request ends, for every lane: at an accuracy, or at the level of unseen examples. Fixed before it begins.

No oracle is asked for a level unless a study wants to: levels of a class are read off retained examples of other classes,
those of random examples off held-out ones, or either off a proxy of the oracle that was trained for a quarter of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.core.keys import Hash
from experiments.data import datasets
from experiments.data.problem import Problem
from experiments.data.sets import subsample
from experiments.scoring.statistics import Reduction
from unlearn import levels
from unlearn.base import Array, Batch
from unlearn.levels import Aim

HALF = 0.5  # of the way: trials that led further are told apart by what they kept


class Levels(NamedTuple):
    """The end of a request to levels, of every lane.

    aim: where it ends, [lanes] each.  each: the level of each example that may be asked for, [lanes, examples].
    """

    aim: Aim
    each: Array


class Ground(NamedTuple):
    """What levels are read off.

    retained: training examples that stay.  held_out: examples that were never trained on, like random ones.
    """

    statistics: Reduction
    by_class: bool
    retained: Batch
    held_out: Batch


def watched(retain: Batch, most: int) -> Batch:
    """Retained training examples that a request to a level watches, and that levels of classes are read off."""
    return subsample(retain, most, Hash.LEVEL)


def to_levels(
    ground: Ground,
    params: Any,
    teacher: Any,
    forget: Batch,
    asked: np.ndarray | None = None,
    number: float | None = None,
    *,
    single: bool = False,
) -> Levels:
    """The end of a request to levels.

    Args:
      params: of all lanes, that meet the request.
      teacher: of all lanes, models that never saw what is asked for: proxies or oracles; None: levels are a lane's own.
      forget: what may be asked for.
      asked: [lanes, examples] bool, what is; None: all.
      number: the level of every example, instead of a model's.
      single: whether each example of a class has the level that the teacher gives it, and not the class's.
    """
    accuracy = ground.statistics(params, ground.retained).correct.mean(axis=1)
    if teacher is None:
        each, known = own(ground, params, forget)
    else:
        each, known = taught(ground.statistics, ground.by_class, teacher, forget, single)
    if np.ndim(forget["y"]) == 2:  # a text's level is its loss: some tokens are told right in any text
        known = np.ones_like(known)
    each = each if number is None else np.full_like(each, number)
    wanted = np.ones(each.shape) if asked is None else asked
    level = (each * wanted).sum(axis=1) / np.maximum(wanted.sum(axis=1), 1)
    # A model that failed has no level, and its request diverges at once.
    return Levels(levels.aim_at(_single(level), known=_single(known), retained=_single(accuracy)), _single(each))


def own(ground: Ground, params: Any, forget: Batch) -> tuple[np.ndarray, np.ndarray]:
    """A lane's own levels, and how many of the forgotten it may still tell right.

    Of a class: as retained examples of other classes are seen with regard to it, and none. Of random examples: that of
    held-out examples, and as many as of these.

    Returns:
      [lanes, examples] float32 and [lanes] float.
    """
    if not ground.by_class:
        seen = ground.statistics(params, ground.held_out)
        level = seen.margin.mean(axis=1)
        return np.repeat(level[:, None], len(forget["id"]), axis=1), seen.correct.mean(axis=1)
    labels = ground.retained["y"]
    columns = {}
    for label in np.unique(forget["y"]):
        margins = ground.statistics(params, dict(ground.retained, y=np.full_like(labels, label))).margin
        columns[label] = margins[:, labels != label].mean(axis=1)
    each = np.stack([columns[label] for label in forget["y"]], axis=1)
    return each, np.zeros(len(each))


def taught(
    statistics: Reduction, by_class: bool, teacher: Any, forget: Batch, single: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The levels of models that never saw the forgotten, and how many of them they tell right.

    The level of a class is its mean, unless each example has its `single` one, and none may be told right. Random examples
    have each its own.

    Returns:
      [lanes, examples] float32 and [lanes] float.
    """
    seen = statistics(teacher, forget)
    known = np.zeros(len(seen.margin)) if by_class else seen.correct.mean(axis=1)
    if single or not by_class:
        return seen.margin, known
    each = np.zeros_like(seen.margin)
    for label in np.unique(forget["y"]):
        rows = forget["y"] == label
        each[:, rows] = seen.margin[:, rows].mean(axis=1)[:, None]
    return each, known


def column(statistics: Reduction, problem: Problem, teacher: Any, told: np.ndarray, single: bool = False) -> np.ndarray:
    """[lanes, training examples] float32: the levels of models that never saw whom training is told of, and 0 elsewhere.

    Args:
      told: positions in the training split.
      single: as for `taught`.
    """
    train = problem.dataset.train
    each, _ = taught(statistics, problem.by_class, teacher, datasets.batch(train, told), single)
    levels_of_all = np.zeros((len(each), len(train.id)), np.float32)
    levels_of_all[:, told] = each
    return levels_of_all


def way(after: Mapping[str, Any], before: Mapping[str, Any], end: Any) -> Array:
    """The share of the way to its end that a request has led: 1 at the end, 0 if it came no nearer, else NaN.

    max(1 - left / had, 0), where left and had are the distances after and before: of accuracy beyond what may be told right
    and, of a request to a level, of the margin beyond the level's tolerance, too; then the smaller share counts.

    Args:
      after, before: what was seen then: `forget_accuracy` and `forget_margin`.
      end: `Levels`, or an accuracy.

    Example:
      >>> seen = [dict(forget_accuracy=jnp.float32(share)) for share in (0.4, 1.0)]
      >>> print(f"{way(*seen, 0.2):.2f}")
      0.75
    """

    def share(distance: Callable[[Mapping[str, Any]], Array]) -> Array:
        left, had = (jnp.maximum(distance(seen), 0) for seen in (after, before))
        return jnp.where(left == 0, 1.0, jnp.maximum(1 - left / jnp.where(had == 0, left, had), 0))

    if not isinstance(end, Levels):
        return share(lambda seen: seen["forget_accuracy"] - end)
    aim = end.aim
    of_margin = share(lambda seen: jnp.abs(seen["forget_margin"] - aim.level) - aim.tolerance)
    return jnp.minimum(of_margin, share(lambda seen: seen["forget_accuracy"] - aim.known))


def merit(trial: Mapping[str, Any], kept: float) -> tuple[int, float, float]:
    """What trials of a request are compared by: the models it was fulfilled for, then the way it led, then what it kept.

    From `HALF` of the way on all are alike in it, so that neither who did nothing wins by what it kept, nor who ruined the
    model by the last step to the end.

    Args:
      trial: `reached`, and `way`, a mean over models in which one that failed counts 0; those of older versions lack it.
      kept: more is better.

    Example:
      >>> nothing, half, ruin = ({"reached": 0, "way": way} for way in (0.0, 0.5, 0.9))
      >>> merit(nothing, 0.99) < merit(ruin, 0.2) < merit(half, 0.9) < merit({"reached": 1, "way": 0.4}, 0.1)
      True
    """
    return trial["reached"], min(trial.get("way", HALF), HALF), kept


def _single(values: np.ndarray) -> Array:
    return jnp.asarray(values, jnp.float32)
