"""Training on: what stays is learned further, and what goes is left to fade."""

from __future__ import annotations

import optax

from unlearn.base import Array, Mean, Model, Params, Request, UnlearnAlgorithm, declare, from_objective, mean_loss
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean


@declare(needs_retain=True)
def finetune(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Fine-tuning on what stays; with an attack set as retain data, it is the relearning attack.

    objective = L_r.

    Args:
      model: what is unlearned.
      optimizer: any optax transformation.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Warnecke et al., Machine Unlearning of Features and Labels (2108.11577), where it is a baseline.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = finetune(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch, batch), key)
      >>> print(algorithm.update(state, Request(batch, batch), key)[0].params)
      [[ 0.5 -0.5]]
    """

    def objective(params: Params, memory: tuple[()], request: Request, key: Array) -> Array:
        assert request.retain is not None  # declared, so checked
        return mean_loss(model, params, request.retain, key, mean)

    return from_objective(objective, optimizer, grad=grad)
