"""Scores of trained and unlearned lanes: accuracies, losses, membership, relearning, diagnostics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.core.machines.execution import Execution
from experiments.data.sets import PARTS, Sets
from experiments.scoring.statistics import Reduction, finite, in_chunks
from unlearn import Request, finetune, tree, unlearn_until
from unlearn.base import Array, Batch, Model, mean_loss
from unlearn.losses import weighted_mean
from unlearn.metrics.membership import loss_attack
from unlearn.until import never


@functools.lru_cache
def make_predict(model: Model, devices: Execution) -> Callable[[Any, Any], np.ndarray]:
    """`(params of all lanes, x) -> what the model's apply gives`, [lanes, examples, ...], in chunks of one compiled shape.

    For features and the like: whoever looks at logits takes `make_statistics`.
    """
    apply = devices.lanes(lambda params, x: model.apply(params, x, None))
    return lambda params, x: in_chunks(lambda part: apply(params, part), x)


def measure(statistics: Reduction, params: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Whether each example is told right, and its loss, [lanes, examples] float64 each.

    A lane with any non-finite logit is NaN throughout: argmax would turn its NaNs into an accuracy.

    Args:
      statistics: of `make_statistics`.
    """
    found = statistics(params, batch)
    lanes = finite(found)[:, None]
    right, losses = (np.where(lanes, values, np.nan).astype(np.float64) for values in (found.correct, found.loss))
    return right, losses


def score(statistics: Reduction, params: Any, sets: Sets) -> list[dict[str, float]]:
    """Accuracy and loss on each set, confidence on the forget set, and the membership attack, for each lane.

    A lane with a non-finite logit on any set scores NaN throughout.
    """
    measured = {
        name: measure(statistics, params, getattr(sets, name)) for name in ("forget", "retain", "test", "validation")
    }
    for part, whole in PARTS.items():
        rows = np.isin(getattr(sets, whole)["id"], getattr(sets, part)["id"])
        right, losses = measured[whole]
        measured[part] = right[:, rows], losses[:, rows]
    seen = {}
    for name, (right, losses) in measured.items():
        seen[f"{name}_accuracy"], seen[f"{name}_loss"] = right.mean(axis=1), losses.mean(axis=1)
    forget, others = measured["forget"][1], measured["others"][1]
    seen["forget_confidence"] = np.exp(-forget).mean(axis=1)
    sound = np.isfinite(np.stack(list(seen.values()))).all(axis=0)
    attacks = [loss_attack(forget[i], others[i]) if ok else (np.nan, np.nan) for i, ok in enumerate(sound)]
    seen["mia_auc"], seen["mia_balanced_accuracy"] = np.array(attacks).T
    return [{name: float(v[i]) if ok else float("nan") for name, v in seen.items()} for i, ok in enumerate(sound)]


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
    """`make_attack` by plain SGD."""
    return make_attack(model, optax.sgd(learning_rate), steps, batch_size, devices)


def make_attack(
    model: Model, optimizer: optax.GradientTransformation, steps: int, batch_size: int, devices: Execution
) -> Callable:
    """Training on an attack set, or on new data: `((params, raw key) of all lanes, attack, watch) -> (params, accuracy)`.

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
        right = model.correct(model.apply(params, watch["x"], None), watch)
        return {"accuracy": weighted_mean(right, watch["weight"])}

    algorithm = finetune(model, optimizer, grad=jax.value_and_grad)
    run = unlearn_until(algorithm, whole, draw, observe, never, steps, unroll=devices.loops)

    def attack_lane(lane: tuple[Any, Array], attack: Batch, watch: Batch) -> tuple[Any, Array]:
        params, raw = lane
        outcome = run(params, (raw, attack, watch), jax.random.wrap_key_data(raw))
        return outcome.state.params, jnp.nan_to_num(outcome.curve["accuracy"], nan=0.0)

    return devices.lanes(attack_lane, compiled=not devices.loops)
