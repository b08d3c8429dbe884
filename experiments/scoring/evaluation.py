"""Scores of trained and unlearned lanes: accuracies, losses, membership, relearning, diagnostics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import log_softmax

from experiments.core.execution import Execution
from experiments.data.sets import PARTS, Sets
from unlearn import Request, finetune, tree, unlearn_until
from unlearn.base import Array, Batch, Model, mean_loss
from unlearn.losses import correct, weighted_mean
from unlearn.metrics.membership import loss_attack
from unlearn.until import never

CHUNK = 500  # examples predicted at once, whatever the set: one compiled shape


@functools.lru_cache
def make_predict(model: Model, devices: Execution) -> Callable[[Any, np.ndarray], np.ndarray]:
    """`(params of all lanes, x) -> logits [lanes, examples, classes]` in chunks of one compiled shape."""
    apply = devices.lanes(lambda params, x: model.apply(params, x, None))

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
        right, losses = measured[whole]
        measured[part] = right[:, rows], losses[:, rows]
    seen = {}
    for name, (right, losses) in measured.items():
        seen[f"{name}_accuracy"], seen[f"{name}_loss"] = right.mean(axis=1), losses.mean(axis=1)
    forget, others = measured["forget"][1], measured["others"][1]
    seen["forget_confidence"] = np.exp(-forget).mean(axis=1)
    finite: np.ndarray = np.all(np.isfinite(list(seen.values())), axis=0)
    attacks = [loss_attack(forget[i], others[i]) if ok else (np.nan, np.nan) for i, ok in enumerate(finite)]
    seen["mia_auc"], seen["mia_balanced_accuracy"] = np.array(attacks).T
    return [{name: float(v[i]) if ok else float("nan") for name, v in seen.items()} for i, ok in enumerate(finite)]


@functools.lru_cache
def make_diagnose(model: Model, devices: Execution) -> Callable[[Any, Batch, Batch], dict[str, Array]]:
    """`(params of all lanes, forget, stable) -> {grad_norm: |g_f|, grad_cosine: cos(g_f, g_s)}`, [lanes] each."""

    def diagnose(params: Any, forget: Batch, stable: Batch) -> dict[str, Array]:
        gradient = lambda batch: jax.grad(lambda p: mean_loss(model, p, batch, None, weighted_mean))(params)  # noqa: E731
        forgetting, keeping = gradient(forget), gradient(stable)
        return {"grad_norm": tree.norm(forgetting), "grad_cosine": tree.cosine(forgetting, keeping)}

    return devices.lanes(diagnose)


@functools.lru_cache
def make_relearn(model: Model, learning_rate: float, steps: int, batch_size: int, devices: Execution) -> Callable:
    """Plain SGD on an attack set, or on new data: `((params, raw key) of all lanes, attack, watch) -> (params, accuracy)`.

    It is fine-tuning, with the attack set as what is retained. The accuracy is on `watch`, before the first step and after
    each: [lanes, steps + 1]. Attack and watch sets may end in padding of weight 0, so that sets of several sizes share one
    program. A model that diverged is right about nothing: accuracy 0 from there on.
    """

    def whole(data: tuple[Array, Batch, Batch]) -> Request:
        _, attack, _ = data
        return Request(attack, attack)

    def draw(data: tuple[Array, Batch, Batch], key: Array, step: Array) -> Request:
        raw, attack, _ = data
        now = jax.random.fold_in(jax.random.wrap_key_data(raw), step)
        rows = jax.random.randint(now, (batch_size,), 0, jnp.sum(attack["weight"] > 0))
        batch = jax.tree.map(lambda leaf: leaf[rows], attack)
        return Request(batch, batch)

    def observe(params: Any, data: tuple[Array, Batch, Batch]) -> dict[str, Array]:
        _, _, watch = data
        right = correct(model.apply(params, watch["x"], None), watch["y"])
        return {"accuracy": weighted_mean(right, watch["weight"])}

    algorithm = finetune(model, optax.sgd(learning_rate), grad=jax.value_and_grad)
    run = unlearn_until(algorithm, whole, draw, observe, never, steps, unroll=devices.loops)

    def attack_lane(lane: tuple[Any, Array], attack: Batch, watch: Batch) -> tuple[Any, Array]:
        params, raw = lane
        outcome = run(params, (raw, attack, watch), jax.random.wrap_key_data(raw))
        return outcome.state.params, jnp.nan_to_num(outcome.curve["accuracy"], nan=0.0)

    return devices.lanes(attack_lane, compiled=not devices.loops)
