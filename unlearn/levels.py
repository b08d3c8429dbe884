"""Levels: how sure a model is of what it never saw, and when a request has brought the forgotten there.

The level of an example is the margin log p_y - log(1 - p_y) that a model which never saw it would give it. A request that
aims at levels comes from both sides: it neither stops at the boundary, where every attack still sees what was known, nor
goes on to where nobody would be. No retrained model is needed: `look_alikes` reads levels of a class off retained examples
of other classes. Levels travel with the examples they are of, as the field `level` of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn.losses import weighted_mean
from unlearn.model import Array, Batch, Model, Params

TOLERANCE = 0.1  # of a level, as a share of it
LEAST_TOLERANCE = 0.5  # nats
LOST = 0.01  # of retained accuracy: by a settled model in all, by an update at once
TOGETHER = 64  # classes whose levels are computed side by side


class Aim(NamedTuple):
    """Where a request to a level ends. All of it is fixed before the first update.

    level: mean margin of the forgotten.  tolerance: nats on either side of it.
    known: the highest accuracy on the forgotten.
    retained: accuracy on retained training examples before the request.
    """

    level: Array
    tolerance: Array
    known: Array
    retained: Array


def aim_at(level: Array, *, known: Array | float, retained: Array) -> Aim:
    """The aim at a level, its tolerance max(LEAST_TOLERANCE, TOLERANCE |level|).

    Example:
      >>> print(aim_at(jnp.float32(-20.0), known=0.0, retained=jnp.float32(1.0)).tolerance)
      2.0
    """
    level = jnp.asarray(level)
    tolerance = jnp.maximum(LEAST_TOLERANCE, TOLERANCE * jnp.abs(level))
    return Aim(level, tolerance, jnp.asarray(known), jnp.asarray(retained))


def settled(seen: dict[str, Array], aim: Aim) -> Array:
    """Whether the forgotten lie where unseen examples do, and what stays is still known.

    |margin - level| <= tolerance, forget accuracy <= known, and retained accuracy >= that before less LOST.

    Args:
      seen: `forget_margin`, `forget_accuracy` and `retained_accuracy`, means.
    """
    near = jnp.abs(seen["forget_margin"] - aim.level) <= aim.tolerance
    forgotten = seen["forget_accuracy"] <= aim.known
    return near & forgotten & (seen["retained_accuracy"] >= aim.retained - LOST)


def overshoots(after: dict[str, Array], before: dict[str, Array], aim: Aim) -> Array:
    """Whether an update should be undone: it led away from the level, out of its tolerance, or cost too much.

    |margin - level| beyond both the distance before and the tolerance, or over LOST of retained accuracy lost.

    Args:
      after, before: as `seen` of `settled`, on either side of the update.
    """
    distance, had = (jnp.abs(seen["forget_margin"] - aim.level) for seen in (after, before))
    away = distance > jnp.maximum(had, aim.tolerance)
    return away | (after["retained_accuracy"] < before["retained_accuracy"] - LOST)


def look_alikes(
    model: Model, params: Params, labels: Array, retain: Batch, mean: Callable[[Array, Array], Array] = weighted_mean
) -> Array:
    """The level of forgotten examples by their labels: as retained examples of other classes are seen with regard to them.

    level(c) = mean of margin(x, c) over retained x of a class other than c.

    Args:
      model: a classifier.
      params: of the model that is asked, by predictions.
      labels: [...] int, of what is forgotten.
      retain: retained examples; those of the label in question are not looked at.
      mean: the reduction (values, weights) -> scalar.

    Returns:
      [...] float, one for each label.

    Raises:
      ValueError: labels or logits that are not a classifier's.

    Example:
      >>> from unlearn import classifier
      >>> model = classifier(lambda params, x, key: x)
      >>> retain = dict(x=jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]])), y=jnp.array([1, 0]), weight=jnp.ones(2))
      >>> print(look_alikes(model, None, jnp.array([0]), retain))  # one of them counts, of class 1: -log 3
      [-1.0986123]
    """
    return of_classes(model, params, retain, mean)[labels]


def of_classes(model: Model, params: Params, retain: Batch, mean: Callable[[Array, Array], Array] = weighted_mean) -> Array:
    """`look_alikes` of every class, [classes]."""
    logits, labels = model.apply(params, retain["x"], None), retain["y"]
    if not isinstance(logits, jax.Array | np.ndarray) or logits.ndim != 2 or jnp.ndim(labels) != 1:
        raise ValueError(
            "only a classifier's levels can be read off other classes: give the forget batch a `level`, one for each "
            "example, or the algorithm a target"
        )

    def of_class(label: Array) -> Array:
        margins = model.margin(logits, dict(retain, y=jnp.full_like(labels, label)))
        return mean(margins, jnp.where(labels == label, 0.0, retain["weight"]))

    levels: Array = jax.lax.map(of_class, jnp.arange(logits.shape[-1]), batch_size=TOGETHER)
    return levels
