"""The gradient-ascent family: each algorithm is one line of mathematics, to be minimised.

All objectives share one signature, `(model, params, memory, request, key, mean, **options) -> scalar`. L_f and L_r are
mean losses on the request's forget and retain batches; the key is dropout's. Formulas: Ready2Unlearn (2505.10845) and
the works it builds on; SCRUB (2302.09880) for NegGrad+; negative preference optimisation (2404.05868).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from unlearn.base import Array, Batch, Mean, Model, Params, Request
from unlearn.losses import kl_divergence


def mean_loss(model: Model, params: Params, batch: Batch, key: Array, mean: Mean) -> Array:
    """L(params; batch): the model's loss, reduced over the batch."""
    return mean(model.loss(model.apply(params, batch["x"], key), batch), batch["weight"])


def ascent(
    model: Model, params: Params, memory: Any, request: Request, key: Array, mean: Mean, *, cap: float | None = None
) -> Array:
    """Gradient ascent: -L_f, or -min(L_f, cap), which stops pushing once the forget loss is that high."""
    loss = mean_loss(model, params, request.forget, key, mean)
    return -(loss if cap is None else jnp.minimum(loss, cap))


def graddiff(
    model: Model, params: Params, memory: Any, request: Request, key: Array, mean: Mean, *, gamma: float = 1.0
) -> Array:
    """GradDiff: -L_f + gamma L_r."""
    return -mean_loss(model, params, request.forget, key, mean) + gamma * mean_loss(
        model, params, _retain(request, "graddiff"), key, mean
    )


def neggrad_plus(
    model: Model, params: Params, memory: Any, request: Request, key: Array, mean: Mean, *, beta: float = 0.95
) -> Array:
    """NegGrad+: beta L_r - (1 - beta) L_f."""
    retain = mean_loss(model, params, _retain(request, "neggrad_plus"), key, mean)
    return beta * retain - (1 - beta) * mean_loss(model, params, request.forget, key, mean)


def ascent_kl(
    model: Model, params: Params, memory: Params, request: Request, key: Array, mean: Mean, *, gamma: float = 1.0
) -> Array:
    """Ascent with a leash: -L_f + gamma KL(p_start || p) on retain data; memory holds the parameters at the start."""
    retain = _retain(request, "ascent_kl")
    drift = kl_divergence(model.apply(memory, retain["x"], key), model.apply(params, retain["x"], key))
    return -mean_loss(model, params, request.forget, key, mean) + gamma * mean(drift, retain["weight"])


def npo(
    model: Model, params: Params, memory: Params, request: Request, key: Array, mean: Mean, *, beta: float = 0.1
) -> Array:
    """NPO: (2 / beta) E[-log sigmoid(-beta log(p / p_start))] on forget data; memory holds the parameters at the start."""
    forget = request.forget
    start = model.loss(model.apply(memory, forget["x"], key), forget)
    log_ratio = start - model.loss(model.apply(params, forget["x"], key), forget)
    return 2 / beta * mean(jax.nn.softplus(beta * log_ratio), forget["weight"])


def finetune(model: Model, params: Params, memory: Any, request: Request, key: Array, mean: Mean) -> Array:
    """Fine-tuning on what stays: L_r."""
    return mean_loss(model, params, _retain(request, "finetune"), key, mean)


def random_label(
    model: Model, params: Params, memory: Array, request: Request, key: Array, mean: Mean, *, gamma: float = 1.0
) -> Array:
    """Random labels: L on the forget batch under other labels + gamma L_r; memory is the key of the relabelling.

    An example's new label is uniform over the wrong classes and drawn from its id alone, so it is the same at every step
    and in every batch.
    """
    forget = request.forget
    logits = model.apply(params, forget["x"], key)
    wrong = dict(forget, y=other_labels(memory, forget["id"], forget["y"], logits.shape[-1]))
    loss = mean(model.loss(logits, wrong), forget["weight"])
    return loss + gamma * mean_loss(model, params, _retain(request, "random_label"), key, mean)


def other_labels(key: Array, ids: Array, labels: Array, classes: int) -> Array:
    """A label for each example, uniform over the `classes - 1` that are not its own, keyed by its id: [examples] int."""
    # In int32 throughout: a sum may not fit small label types, and a float64 program must draw the same labels.
    shift = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (), 1, classes, jnp.int32))(ids)
    return ((labels.astype(jnp.int32) + shift) % classes).astype(labels.dtype)


def _retain(request: Request, name: str) -> Batch:
    if request.retain is None:
        raise ValueError(f"{name} needs retain data: give Request(forget, retain)")
    return request.retain
