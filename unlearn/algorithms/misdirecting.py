"""Features of what is to be forgotten, pushed into a direction that means nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn.base import Array, Batch, Mean, Model, Params, Request, UnlearnAlgorithm, declare, from_objective
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean
from unlearn.model import token_mean


@declare(needs_retain=True)
def rmu(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    length: float | Array = 20.0,
    gamma: float | Array = 100.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """RMU, representation misdirection: forgotten features go to one random vector, retained ones stay where they were.

    objective = E_f[|h - length u|^2 / d] + gamma E_r[|h - h_start|^2 / d], h the model's features, of d numbers; of text a
    document's mean over tokens. u has entries drawn uniformly from [0, 1), then norm 1; memory: the parameters at the
    start, and the key of u. Only what features are made of is changed: `features` says which layer is misdirected.

    Args:
      model: what is unlearned, with `features`: [examples, ..., d], of text [examples, length, d] or pooled.
      optimizer: any optax transformation; the paper trains three layers below the features alone (mask the others).
      length: of the vector. It is to exceed that of ordinary features, which differs from model to model.
      gamma: the weight of what stays.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Raises:
      ValueError: a model without features.

    Reference:
      Li et al., The WMDP Benchmark (2403.03218). Division by d, and length 20 and gamma 100, as in its public code; the
      paper's own values, for models of 7 billion parameters, unchecked.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params, features=lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.eye(2)[:1], y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> stays = dict(x=jnp.eye(2)[1:], y=jnp.array([0]), id=jnp.array([8]), weight=jnp.ones(1))
      >>> algorithm, key = rmu(model, optax.sgd(1.0), length=5.0), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((2, 2)), Request(batch, stays), key)
      >>> after = algorithm.update(state, Request(batch, stays), key)[0].params
      >>> print(f"{jnp.linalg.norm(after[0]):.2f} {jnp.linalg.norm(after[1]):.2f}")  # of two entries one step arrives
      5.00 0.00
    """
    check_number(length, "length", above=True)
    check_number(gamma, "gamma")
    if model.features is None:
        raise ValueError("rmu moves features, and this model has none: give features=(params, x, key) -> [examples, ...]")
    own_features = model.features

    def features(params: Params, x: Any, key: Array | None) -> Array:
        found: Array = own_features(params, x, key)
        return found.astype(jnp.promote_types(found.dtype, jnp.float32))

    def remember(params: Params, request: Request, key: Array) -> tuple[Params, Array]:
        return params, key

    def objective(
        params: Params, memory: Any, request: Request, key: Array, length: float | Array, gamma: float | Array
    ) -> Array:
        forget, retain = request
        assert retain is not None  # declared, so checked
        start, direction_key = memory
        away = features(params, forget["x"], key)
        goal = length * _direction(direction_key, away)
        moved = features(params, retain["x"], key) - features(start, retain["x"], key)
        stays = mean(_mean_square(moved, retain), retain["weight"])
        return mean(_mean_square(away - goal, forget), forget["weight"]) + gamma * stays

    return from_objective(objective, optimizer, remember=remember, grad=grad, length=length, gamma=gamma)


def _direction(key: Array, features: Array) -> Array:
    """The unit vector of a key, [d], of the features' type: the same in every batch."""
    # Drawn in float32, so that a float64 program has the same direction.
    entries = jax.random.uniform(key, features.shape[-1:], jnp.float32).astype(features.dtype)
    direction: Array = entries / jnp.linalg.norm(entries)
    return direction


def _mean_square(features: Array, batch: Batch) -> Array:
    """The mean square of an example's features, [examples]; of features of tokens, by the weights of these."""
    squares = jnp.mean(features**2, axis=-1)
    weights = batch.get("token_weight")
    if weights is not None and squares.shape == weights.shape:
        return token_mean(squares, batch)
    return jnp.mean(squares.reshape(squares.shape[0], -1), axis=1)
