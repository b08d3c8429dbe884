"""Bringing the forgotten to the margin that unseen examples have, from both sides, while what stays is repaired."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from unlearn import levels
from unlearn.base import (
    Array,
    Batch,
    Mean,
    Model,
    Params,
    Request,
    UnlearnAlgorithm,
    declare,
    from_objective,
    mean_loss,
    per_example,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import huber, weighted_mean


@declare(needs_retain=True)
def level(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    target: float | Array | None = None,
    beta: float | Array = 0.5,
    width: float = 2.0,
    each: bool = False,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Bring the forgotten to a level, the margin of unseen examples, and hold them there while what stays is repaired.

    objective = beta L_r + (1 - beta) huber(mean_f (margin - level)), with huber(d) = d^2 / 2 width within `width` of 0 and
    |d| - width / 2 beyond. Its gradient does not vanish where the forgotten are known by heart, as that of their loss does.

    Args:
      model: what is unlearned.
      optimizer: any optax transformation; not normalised, since a level is a place to rest at.
      target: the level of all examples. None: each example's own, the field `level` [examples] of the forget batch; where
        there is none, `levels.look_alikes` of a classifier, taken once from the whole request at the parameters it meets.
      beta: the share of what stays, between 0 and 1.
      width: nats around the level in which the pull grows from 0 to full.
      each: bring each example to its level, and not their mean: mean_f huber(margin - level).
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Raises:
      ValueError: from `init`, for a model of sequences, if neither target nor batch says what its level is; from `update`,
        for levels that are not one number for each example, or for a batch without those of its request.

    Reference:
      Ours; margins as in KLoM (2410.23232). docs/readiness.md has what it is compared with.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> request, key = Request(batch, batch | {"y": jnp.array([1])}), jax.random.key(0)
      >>> algorithm = level(model, optax.sgd(1.0), target=-3.0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), request, key)
      >>> print(algorithm.update(state, request, key)[0].params)
      [[-0.75  0.75]]
    """
    check_number(beta, "beta", most=1.0)
    check_number(width, "width", above=True)
    check_number(target, "target", least=-1e6, most=1e6)

    def remember(params: Params, request: Request, key: Array) -> Any:
        """The level of every class, if nothing else tells where levels are."""
        if target is not None or "level" in request.forget:
            return ()
        assert request.retain is not None  # declared, so checked
        return levels.of_classes(model, params, request.retain, mean)

    def objective(
        params: Params, memory: Any, request: Request, key: Array, beta: float | Array, target: float | Array | None
    ) -> Array:
        forget, retain = request
        assert retain is not None  # declared, so checked
        weights = forget["weight"]
        goal = _goal(memory, forget) if target is None else target
        told, examples = jnp.shape(goal), jnp.shape(weights)
        if told not in ((), examples):
            raise ValueError(f"levels of shape {told} for examples of shape {examples}: give one, or one for each")
        away = per_example(model, model.margin, forget, key, params) - goal
        pull = mean(huber(away, width), weights) if each else huber(mean(away, weights), width)
        return beta * mean_loss(model, params, retain, key, mean) + (1 - beta) * pull

    return from_objective(objective, optimizer, remember=remember, grad=grad, beta=beta, target=target)


def _goal(memory: Any, forget: Batch) -> Array:
    """The level of each example of a batch, its own or that of its class."""
    if "level" in forget:
        return jnp.asarray(forget["level"])
    if isinstance(memory, tuple):
        raise ValueError("the whole request has levels, and a batch of it has none: give every forget batch its `level`")
    goal: Array = memory[forget["y"]]
    return goal
