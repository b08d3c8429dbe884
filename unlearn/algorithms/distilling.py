"""Learning from the model's own answers at the start, in which what is to be forgotten was made unlikely."""

from __future__ import annotations

from typing import Any

import jax
import optax

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
    per_example,
    remember_params,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean


@declare(needs_retain=False)
def undial(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 10.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """UNDIAL: self-distillation from logits of the start in which the right answer's is lowered by beta.

    objective = E[D(softmax(z_start - beta 1_y) || p)] on forget data, D the model's divergence, of text a mean over tokens;
    memory: the parameters at the start. It is the paper's cross-entropy less a constant, the teacher's entropy: 0 where the
    teacher is met.

    Args:
      model: what is unlearned; where y is a pytree of labels, logits are a pytree of the same structure.
      optimizer: any optax transformation.
      beta: by how much the right answer's logit is lowered, in nats.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Dong et al., UNDIAL (2402.10052). The formula and beta = 10 as in OpenUnlearning; the paper's own strengths unchecked.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = undial(model, optax.sgd(1.0), beta=jnp.log(3.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch), key)
      >>> print(algorithm.update(state, Request(batch), key)[0].params)  # from (1/2, 1/2) towards (1/4, 3/4)
      [[-0.25  0.25]]
    """
    check_number(beta, "beta", above=True)

    def objective(params: Params, memory: Params, request: Request, key: Array, beta: float | Array) -> Array:
        lower = lambda z, y: z - beta * jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)  # noqa: E731

        def divergence(start: Any, now: Any, forget: Batch) -> Array:
            return model.divergence(jax.tree.map(lower, start, forget["y"]), now, forget)

        values = per_example(model, divergence, request.forget, key, memory, params)
        return mean(values, request.forget["weight"])

    return from_objective(objective, optimizer, remember=remember_params, grad=grad, beta=beta)
