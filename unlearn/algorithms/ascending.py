"""Gradient ascent on what is to be forgotten, alone or with one eye on what stays.

L_f and L_r are mean losses on a batch of the forget and of the retain data. All of these are differentiable through a
simulated request, and take `mean`, the reduction of the device mode, and `grad`, the gradient operator.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from unlearn.base import (
    Array,
    Mean,
    Model,
    Params,
    Request,
    UnlearnAlgorithm,
    declare,
    from_objective,
    mean_loss,
    per_example,
    remember_params,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean


@declare(needs_retain=False)
def ascent(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    cap: float | Array | None = None,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Gradient ascent on the forget loss, with a height at which it stands still if wanted.

    objective = -L_f, or -min(L_f, cap).

    Args:
      model: what is unlearned.
      optimizer: any optax transformation.
      cap: stop pushing once the mean forget loss is that high, as in log(classes); None: never.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Thudi et al., Unrolling SGD (2109.13398); as rehearsed by Ready2Unlearn (2505.10845).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = ascent(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch), key)
      >>> state, info = algorithm.update(state, Request(batch), key)
      >>> print(state.params, f"{info.objective:.3f}")
      [[-0.5  0.5]] -0.693
    """
    check_number(cap, "cap", above=True)

    def objective(params: Params, memory: tuple[()], request: Request, key: Array, cap: float | Array | None) -> Array:
        loss = mean_loss(model, params, request.forget, key, mean)
        return -(loss if cap is None else jnp.minimum(loss, cap))

    return from_objective(objective, optimizer, grad=grad, cap=cap)


@declare(needs_retain=True)
def graddiff(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    gamma: float | Array = 1.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Gradient difference: ascent on what goes, descent on what stays.

    objective = -L_f + gamma L_r.

    Args:
      model: what is unlearned.
      optimizer: any optax transformation.
      gamma: the weight of what stays.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Liu et al., Continual Learning and Private Unlearning (2203.12817).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.eye(2)[:1], y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> stays = dict(x=jnp.eye(2)[1:], y=jnp.array([0]), id=jnp.array([8]), weight=jnp.ones(1))
      >>> algorithm, key = graddiff(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((2, 2)), Request(batch, stays), key)
      >>> print(algorithm.update(state, Request(batch, stays), key)[0].params)
      [[-0.5  0.5]
       [ 0.5 -0.5]]
    """
    check_number(gamma, "gamma")

    def objective(params: Params, memory: tuple[()], request: Request, key: Array, gamma: float | Array) -> Array:
        assert request.retain is not None  # declared, so checked
        stays = mean_loss(model, params, request.retain, key, mean)
        return -mean_loss(model, params, request.forget, key, mean) + gamma * stays

    return from_objective(objective, optimizer, grad=grad, gamma=gamma)


@declare(needs_retain=True)
def neggrad_plus(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 0.95,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """NegGrad+: mostly fine-tuning on what stays, with a little ascent on what goes.

    objective = beta L_r - (1 - beta) L_f.

    Args:
      model: what is unlearned.
      optimizer: any optax transformation.
      beta: the share of what stays, between 0 and 1.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Kurmanji et al., Towards Unbounded Machine Unlearning (SCRUB, 2302.09880).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> request, key = Request(batch, batch | {"y": jnp.array([1])}), jax.random.key(0)
      >>> algorithm = neggrad_plus(model, optax.sgd(1.0), beta=0.5)
      >>> state = algorithm.init(jnp.zeros((1, 2)), request, key)
      >>> print(algorithm.update(state, request, key)[0].params)
      [[-0.5  0.5]]
    """
    check_number(beta, "beta", most=1.0)

    def objective(params: Params, memory: tuple[()], request: Request, key: Array, beta: float | Array) -> Array:
        assert request.retain is not None  # declared, so checked
        retain = mean_loss(model, params, request.retain, key, mean)
        return beta * retain - (1 - beta) * mean_loss(model, params, request.forget, key, mean)

    return from_objective(objective, optimizer, grad=grad, beta=beta)


@declare(needs_retain=True)
def ascent_kl(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    gamma: float | Array = 1.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Ascent with a leash: on retain data the model may not move from its answers at the start.

    objective = -L_f + gamma D(start || now), D the model's divergence on retain data; memory: the parameters at the start.

    Args:
      model: what is unlearned.
      optimizer: any optax transformation.
      gamma: the weight of the leash.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Yao et al., Large Language Model Unlearning (2310.10683); Maini et al., TOFU (2401.06121).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = ascent_kl(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch, batch), key)
      >>> state, info = algorithm.update(state, Request(batch, batch), key)
      >>> print(f"{info.objective:.3f}")  # the leash is slack at the start
      -0.693
    """
    check_number(gamma, "gamma")

    def objective(params: Params, memory: Params, request: Request, key: Array, gamma: float | Array) -> Array:
        retain = request.retain
        assert retain is not None  # declared, so checked
        drift = mean(per_example(model, model.divergence, retain, key, memory, params), retain["weight"])
        return -mean_loss(model, params, request.forget, key, mean) + gamma * drift

    return from_objective(objective, optimizer, remember=remember_params, grad=grad, gamma=gamma)
