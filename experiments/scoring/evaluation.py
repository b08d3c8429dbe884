"""Scores of trained and unlearned lanes: accuracies, losses, membership, relearning, diagnostics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import log_softmax

from experiments.core import keys
from experiments.core.execution import Execution
from unlearn import tree
from unlearn.base import Array, Batch, Model
from unlearn.losses import correct, weighted_mean
from unlearn.metrics.membership import loss_attack
from unlearn.objectives import mean_loss

CHUNK = 500  # examples predicted at once, whatever the set: one compiled shape
PARTS = {"test_retain": "test", "others": "test", "validation_retain": "validation"}  # sets that lie within another


class Sets(NamedTuple):
    """Who is scored; every field a host-side Batch.

    forget, retain: training examples, a sample where there are many.  test, validation: held out.
    test_retain, validation_retain: without the forgotten class; for random forget sets the same as test, validation.
    others: never trained on and like the forget set: test images of its class, or the test set.
    fresh: new data for fine-tuning between training and request, held out and apart from validation; may be empty.
    """

    forget: Batch
    retain: Batch
    test: Batch
    test_retain: Batch
    validation: Batch
    validation_retain: Batch
    others: Batch
    fresh: Batch


@functools.lru_cache
def make_predict(model: Model, devices: Execution) -> Callable[[Any, np.ndarray], np.ndarray]:
    """`(params of all lanes, x) -> logits [lanes, examples, classes]` in chunks of one compiled shape."""
    apply = devices.lanes(lambda params, x: model.apply(params, x, keys.unused()))

    def predict(params: Any, x: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(x), CHUNK):
            part = x[start : start + CHUNK]
            padded = np.concatenate([part, np.zeros((CHUNK - len(part), *part.shape[1:]), part.dtype)])
            parts.append(np.asarray(apply(params, jnp.asarray(padded)))[:, : len(part)])
        return np.concatenate(parts, axis=1)

    return predict


def measure(predict: Callable, params: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Whether each example is told right, and its loss, [lanes, examples] float64 each.

    A lane with any non-finite logit is NaN throughout: argmax would turn its NaNs into an accuracy.
    """
    logits = predict(params, batch["x"]).astype(np.float64)
    finite = np.isfinite(logits).all(axis=(1, 2))[:, None]
    log_p = log_softmax(np.where(finite[..., None], logits, 0.0), axis=-1)
    losses = -np.take_along_axis(log_p, batch["y"][None, :, None], axis=-1)[..., 0]
    return np.where(finite, logits.argmax(axis=-1) == batch["y"], np.nan), np.where(finite, losses, np.nan)


def score(predict: Callable, params: Any, sets: Sets) -> list[dict[str, float]]:
    """Accuracy and loss on each set, confidence on the forget set, and the membership attack, for each lane.

    A lane with a non-finite logit on any set scores NaN throughout.
    """
    measured = {name: measure(predict, params, getattr(sets, name)) for name in ("forget", "retain", "test", "validation")}
    for part, whole in PARTS.items():
        rows = np.isin(getattr(sets, whole)["id"], getattr(sets, part)["id"])
        measured[part] = tuple(values[:, rows] for values in measured[whole])
    seen = {}
    for name, (right, losses) in measured.items():
        seen[f"{name}_accuracy"], seen[f"{name}_loss"] = right.mean(axis=1), losses.mean(axis=1)
    forget, others = measured["forget"][1], measured["others"][1]
    seen["forget_confidence"] = np.exp(-forget).mean(axis=1)
    finite = np.isfinite(list(seen.values())).all(axis=0)
    attacks = [loss_attack(forget[i], others[i]) if ok else (np.nan, np.nan) for i, ok in enumerate(finite)]
    seen["mia_auc"], seen["mia_balanced_accuracy"] = np.array(attacks).T
    return [{name: float(v[i]) if ok else float("nan") for name, v in seen.items()} for i, ok in enumerate(finite)]


@functools.lru_cache
def make_diagnose(model: Model, devices: Execution) -> Callable[[Any, Batch, Batch], dict[str, Array]]:
    """`(params of all lanes, forget, stable) -> {grad_norm: |g_f|, grad_cosine: cos(g_f, g_s)}`, [lanes] each."""

    def diagnose(params: Any, forget: Batch, stable: Batch) -> dict[str, Array]:
        gradient = lambda batch: jax.grad(lambda p: mean_loss(model, p, batch, keys.unused(), weighted_mean))(params)  # noqa: E731
        forgetting, keeping = gradient(forget), gradient(stable)
        return {"grad_norm": tree.norm(forgetting), "grad_cosine": tree.cosine(forgetting, keeping)}

    return devices.lanes(diagnose)


@functools.lru_cache
def make_relearn(model: Model, learning_rate: float, steps: int, batch_size: int, devices: Execution) -> Callable:
    """Plain SGD on an attack set, or on new data: `((params, raw key) of all lanes, attack, watch) -> (params, accuracy)`.

    The accuracy is on `watch`, before the first step and after each: [lanes, steps + 1]. Attack and watch sets may end in
    padding of weight 0, so that sets of several sizes share one program.
    """
    optimizer = optax.sgd(learning_rate)

    def accuracy(params: Any, watch: Batch) -> Array:
        return weighted_mean(correct(model.apply(params, watch["x"], keys.unused()), watch["y"]), watch["weight"])

    def step(params: Any, key: Array, index: Array, attack: Batch, watch: Batch) -> tuple[Any, Array]:
        now = jax.random.fold_in(key, index)
        rows = jax.random.randint(now, (batch_size,), 0, jnp.sum(attack["weight"] > 0))
        batch = jax.tree.map(lambda leaf: leaf[rows], attack)
        gradient = jax.grad(lambda p: mean_loss(model, p, batch, now, weighted_mean))(params)
        updates, _ = optimizer.update(gradient, optimizer.init(params))
        params = optax.apply_updates(params, updates)
        return params, accuracy(params, watch)

    one = jax.jit(step) if devices.loops else step

    def attack_lane(lane: tuple[Any, Array], attack: Batch, watch: Batch) -> tuple[Any, Array]:
        params, raw = lane
        key = jax.random.wrap_key_data(raw)
        start = accuracy(params, watch)
        if devices.loops:
            seen = [start]
            for i in range(steps):
                params, now = one(params, key, jnp.asarray(i), attack, watch)
                seen.append(now)
            return params, jnp.stack(seen)
        params, later = jax.lax.scan(lambda p, i: one(p, key, i, attack, watch), params, jnp.arange(steps))
        return params, jnp.concatenate([start[None], later])

    return devices.lanes(attack_lane, compiled=not devices.loops)
