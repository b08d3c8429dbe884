"""Preference optimisation turned round: what is to be forgotten is what the model should no longer prefer."""

from __future__ import annotations

import jax
import optax

from unlearn.base import (
    Array,
    Mean,
    Model,
    Params,
    Request,
    UnlearnAlgorithm,
    declare,
    example_losses,
    from_objective,
    remember_params,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean


@declare(needs_retain=False)
def npo(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 0.1,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Negative preference optimisation: ascent that slows down as an example falls below its probability at the start.

    objective = (2 / beta) E[-log sigmoid(-beta log(p / p_start))] on forget data; memory: the parameters at the start.

    Args:
      model: what is unlearned; p = exp(-loss), of text the probability of the mean token.
      optimizer: any optax transformation.
      beta: the inverse temperature; towards 0 it is plain ascent.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Zhang et al., Negative Preference Optimization (2404.05868).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = npo(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch), key)
      >>> state, info = algorithm.update(state, Request(batch), key)
      >>> print(state.params, f"{info.objective:.2f}")  # the first step is that of ascent; the value is 20 log 2
      [[-0.5  0.5]] 13.86
    """
    check_number(beta, "beta", above=True)

    def objective(params: Params, memory: Params, request: Request, key: Array, beta: float | Array) -> Array:
        forget = request.forget
        log_ratio = example_losses(model, memory, forget, key) - example_losses(model, params, forget, key)
        return 2 / beta * mean(jax.nn.softplus(beta * log_ratio), forget["weight"])

    return from_objective(objective, optimizer, remember=remember_params, grad=grad, beta=beta)
