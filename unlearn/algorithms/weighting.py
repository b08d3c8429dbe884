"""Ascent that weighs the tokens of what is to be forgotten, each by how well it is known."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from unlearn.base import (
    LANGUAGE,
    Array,
    Mean,
    Model,
    Params,
    Request,
    UnlearnAlgorithm,
    declare,
    from_objective,
    per_example,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean
from unlearn.model import token_mean


@declare(needs_retain=False, kinds=(LANGUAGE,))
def wga(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    alpha: float | Array = 1.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Weighted gradient ascent: ascent on each token by its probability to the power of alpha, so that it ends by itself.

    objective = E[mean_t (p_t^alpha - 1) / alpha] on forget data, p_t the probability of token t. Its gradient is
    -p_t^alpha times that of -log p_t, as of the paper's loss p_t^alpha log p_t with weights held constant. Weights held
    constant have no second derivative to rehearse with; this objective has.

    Args:
      model: what is unlearned, a language model.
      optimizer: any optax transformation.
      alpha: how soon an unlikely token is left alone; towards 0 it is plain ascent.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Wang et al., Rethinking LLM Unlearning Objectives (2502.19301). Weights and alpha = 1 as in OpenUnlearning, but a mean
      over documents of means over their tokens, where it takes all tokens of a batch together.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, sequence_model
      >>> model = sequence_model(lambda params, x, key: params[x])
      >>> batch = dict(x=jnp.array([[0]]), y=jnp.array([[0]]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = wga(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch), key)
      >>> print(algorithm.update(state, Request(batch), key)[0].params)  # half of ascent's step, since p = 1/2
      [[-0.25  0.25]]
    """
    check_number(alpha, "alpha", above=True)

    def objective(params: Params, memory: tuple[()], request: Request, key: Array, alpha: float | Array) -> Array:
        assert model.token_loss is not None  # declared, so checked
        forget = request.forget
        token_losses = per_example(model, model.token_loss, forget, key, params)
        return mean(token_mean(jnp.expm1(-alpha * token_losses) / alpha, forget), forget["weight"])

    return from_objective(objective, optimizer, grad=grad, alpha=alpha)
