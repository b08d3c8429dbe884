"""Penalties that stand beside the objective of any algorithm of the shelf, as gradient operators around its own.

An algorithm takes its gradient by the operator `grad` that it is given, of `f(params, memory, request, key, ...)`. The
operators here take that of f + weight penalty(params, request, key) instead, and nothing else of the algorithm changes:

    level(model, optimizer, grad=invariance(model, 0.1))

What they cost and what came of them is in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from unlearn import tree
from unlearn.base import Array, Batch, Mean, Model, Params, Request, mean_loss
from unlearn.checking import check_model, check_number
from unlearn.gradient import GradOperator, Scalar, second_order
from unlearn.losses import weighted_mean

Penalty = Callable[[Params, Request, Array], Array]
READINGS = ("logits", "params")
TINY = 1e-8  # under the root of a squared distance between features


def invariance(
    model: Model,
    weight: float | Array,
    *,
    environments: Sequence[str] = ("retain",),
    reading: str = "logits",
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> GradOperator:
    """ILU: beside any objective, a penalty on how much fine-tuning would still find to do.

    penalty = sum_i |grad_w L(w o params; D_i) at w = 1|^2 over environments D_i, each a batch that somebody may tune on.
    What w o params means is a choice. "logits": w is one number that multiplies the logits, as in IRMv1. "params": the
    gradient is that of the parameters themselves, |grad_params L(params; D_i)|^2.

    Args:
      model: what is unlearned.
      weight: of the penalty, lambda.
      environments: batches of the request, "retain" or "forget": fine-tuning on what stays, or relearning what goes.
      reading: "logits" or "params".
      mean: the reduction (values, weights) -> scalar; of one device or of sharded arrays, since the inner gradient is not
        averaged over devices of a pmap.
      grad: the gradient operator around it; see `unlearn.gradient`. A gradient costs another two to three.

    Raises:
      ValueError: unknown environments or reading; or, of an update, a request without the retain data that are asked for.

    Reference:
      Wang et al., Invariance Makes LLM Unlearning Resilient Even to Unanticipated Downstream Fine-Tuning (2506.01339),
      after Arjovsky et al., Invariant Risk Minimization (1907.02893). Certain: the formula. Known at second hand: one set
      that has nothing to do with the forgotten suffices ("retain"), and the forget set itself serves less well ("forget").
      Reconstructed: both readings of w, since no code of the authors was found; lambda depends on them.

    Example, two logits 0 and log 3, whose loss falls by 3/4 log 3 - log 3 as their scale grows:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier, finetune
      >>> model = classifier(lambda params, x, key: jnp.broadcast_to(params, (len(x), 2)))
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([1]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> request, key = Request(batch, batch), jax.random.key(0)
      >>> algorithm = finetune(model, optax.sgd(0.0), grad=invariance(model, 1.0))
      >>> state = algorithm.init(jnp.log(jnp.array([1.0, 3.0])), request, key)
      >>> objective = algorithm.update(state, request, key)[1].objective
      >>> print(f"{objective - jnp.log(4 / 3):.4f} {(jnp.log(3) / 4) ** 2:.4f}")
      0.0754 0.0754
    """
    check_model(model)
    _check_choice("reading", reading, READINGS)
    for name in environments:
        _check_choice("environment", name, Request._fields)

    def of_logits(params: Params, batch: Batch, key: Array) -> Array:
        logits = model.apply(params, batch["x"], key)
        scaled = lambda w: mean(model.loss(jax.tree.map(lambda z: w * z, logits), batch), batch["weight"])  # noqa: E731
        slope: Array = jax.grad(scaled)(jnp.ones(()))
        return slope**2

    def of_params(params: Params, batch: Batch, key: Array) -> Array:
        slope = jax.grad(lambda at: mean_loss(model, at, batch, key, mean))(params)
        return tree.dot(slope, slope)

    squared = of_logits if reading == "logits" else of_params

    def penalty(params: Params, request: Request, key: Array) -> Array:
        return sum((squared(params, _given(request, name), key) for name in environments), jnp.zeros(()))

    return beside(penalty, weight, grad)


def likeness(model: Model, weight: float | Array, *, grad: GradOperator = second_order) -> GradOperator:
    """Beside any objective, a penalty on how features of what goes differ from those of what stays.

    penalty = 2 E|h_f - h_r| - E|h_f - h_f'| - E|h_r - h_r'|, the energy distance between the features of the forget batch
    and of the retain batch; 0 exactly if both are distributed alike. Where a class is forgotten, all that stays is of other
    classes, as for its level.

    Args:
      model: what is unlearned, with `features`; of an example all numbers are taken together.
      weight: of the penalty.
      grad: the gradient operator around it; see `unlearn.gradient`.

    Raises:
      ValueError: a model without features; or, of an update, a request without retain data.

    Reference:
      Ours; Szekely and Rizzo, Energy statistics (2013), for the distance. Its neighbour `rmu` moves features, too, but in a
      direction that means nothing.

    Example, features 0 of what goes and 3 of what stays, at a distance of 2 * 3:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier, finetune
      >>> model = classifier(lambda params, x, key: x @ params, features=lambda params, x, key: x * params[0, 0])
      >>> goes = dict(x=jnp.zeros((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> request, key = Request(goes, goes | {"x": jnp.full((1, 1), 3.0)}), jax.random.key(0)
      >>> algorithm = finetune(model, optax.sgd(1.0), grad=likeness(model, 1.0))
      >>> state = algorithm.init(jnp.ones((1, 2)), request, key)
      >>> print(f"{algorithm.update(state, request, key)[1].objective - jnp.log(2):.2f}")
      6.00
    """
    check_model(model)
    if model.features is None:
        raise ValueError(
            "likeness compares features; this model has none: give features=(params, x, key) -> [examples, ...]"
        )
    own_features = model.features

    def features(params: Params, batch: Batch, key: Array) -> Array:
        found = own_features(params, batch["x"], key)
        found = found.reshape(found.shape[0], -1).astype(jnp.promote_types(found.dtype, jnp.float32))
        return jnp.where(batch["weight"][:, None] > 0, found, 0.0)

    def penalty(params: Params, request: Request, key: Array) -> Array:
        forget, retain = request.forget, _given(request, "retain")
        goes, stays = features(params, forget, key), features(params, retain, key)
        apart = lambda a, v, b, w: weighted_mean(_distances(a, b).ravel(), jnp.outer(v, w).ravel())  # noqa: E731
        v, w = forget["weight"], retain["weight"]
        return 2 * apart(goes, v, stays, w) - apart(goes, v, goes, v) - apart(stays, w, stays, w)

    return beside(penalty, weight, grad)


def beside(penalty: Penalty, weight: float | Array, grad: GradOperator = second_order) -> GradOperator:
    """The gradient operator that takes the gradient of an algorithm's objective + weight penalty(params, request, key).

    Args:
      penalty: (params, batch of the request, key) -> scalar.
      weight: of it; an array may be traced, one lane of a sweep each.
      grad: the operator that takes the gradient of the sum.
    """
    check_number(weight, "weight")

    def operator(objective: Scalar) -> Callable[..., tuple[Array, Any]]:
        # The weight is handed through as an argument: `second_order` must not close over traced arrays.
        def penalised(params: Params, weight: Array, memory: Any, request: Request, key: Array, *rest: Any) -> Array:
            return objective(params, memory, request, key, *rest) + weight * penalty(params, request, key)

        value_and_grad = grad(penalised)
        return lambda params, *rest: value_and_grad(params, weight, *rest)

    return operator


def _distances(a: Array, b: Array) -> Array:
    """|a_i - b_j|, [n, m], without the differences themselves; a TINY share of their squares keeps slopes finite at 0."""
    squares = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2 * a @ b.T
    return jnp.sqrt(jnp.maximum(squares, 0.0) + TINY)


def _given(request: Request, name: str) -> Batch:
    batch: Batch | None = getattr(request, name)
    if batch is None:
        raise ValueError(f"the penalty reads {name} data, and the request has none: give Request(forget, retain)")
    return batch


def _check_choice(what: str, name: str, choices: Sequence[str]) -> None:
    if name not in choices:
        raise ValueError(f"{what} {name!r} of invariance is unknown: choose {' or '.join(map(repr, choices))}")
