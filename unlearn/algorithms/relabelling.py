"""Other labels for what is to be forgotten, and training on with them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn.base import (
    CLASSIFIER,
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
    remember_key,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean


@declare(needs_retain=True, kinds=(CLASSIFIER,))
def random_label(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    gamma: float | Array = 1.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Random labels: learn a wrong label for every example that goes, and the right ones of what stays.

    objective = L on the forget batch under other labels + gamma L_r; memory: the key of the relabelling. An example's new
    label is uniform over the wrong classes and drawn from its id alone: the same at every step and in every batch.

    Args:
      model: what is unlearned, a classifier; where y is a pytree of labels, logits are a pytree of the same structure.
      optimizer: any optax transformation.
      gamma: the weight of what stays.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Golatkar et al., Eternal Sunshine of the Spotless Net (1911.04933), where it is a baseline.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = random_label(model, optax.sgd(1.0), gamma=0.0), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch, batch), key)
      >>> print(algorithm.update(state, Request(batch, batch), key)[0].params)  # of two classes the other is 1
      [[-0.5  0.5]]
    """
    check_number(gamma, "gamma")

    def objective(params: Params, memory: Array, request: Request, key: Array, gamma: float | Array) -> Array:
        assert request.retain is not None  # declared, so checked
        forget = request.forget

        def wrong_loss(logits: Any, forget: Batch) -> Array:
            relabel = lambda y, z: other_labels(memory, forget["id"], y, _classes(y, z))  # noqa: E731
            return model.loss(logits, dict(forget, y=jax.tree.map(relabel, forget["y"], logits)))

        loss = mean(per_example(model, wrong_loss, forget, key, params), forget["weight"])
        return loss + gamma * mean_loss(model, params, request.retain, key, mean)

    return from_objective(objective, optimizer, remember=remember_key, grad=grad, gamma=gamma)


def other_labels(key: Array, ids: Array, labels: Array, classes: int) -> Array:
    """A label for each example, uniform over the `classes - 1` that are not its own, keyed by its id: [examples] int."""
    # In int32 throughout: a sum may not fit small label types, and a float64 program must draw the same labels.
    shift = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (), 1, classes, jnp.int32))(ids)
    return ((labels.astype(jnp.int32) + shift) % classes).astype(labels.dtype)


def _classes(labels: Any, logits: Any) -> int:
    """How many classes there are; sequences are refused, whose tokens would be moved by one shift, or by a stranger's."""
    if jnp.ndim(labels) != 1 or jnp.ndim(logits) != 2:
        raise ValueError(
            f"random_label relabels classes, labels [examples] and logits [examples, classes], and got {jnp.shape(labels)} "
            f"and {jnp.shape(logits)}: choose another algorithm for sequences"
        )
    return int(logits.shape[-1])
