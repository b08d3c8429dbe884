"""A deletion request carried out on every lane of a fleet, by any algorithm, until it is fulfilled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.core import keys
from experiments.core.keys import Hash, Purpose
from experiments.core.machines.execution import Execution
from experiments.data.ids import hash_uniform
from experiments.scoring import algorithms
from unlearn import Outcome, Request, levels, unlearn_until
from unlearn.base import Array, Batch, Model
from unlearn.losses import weighted_mean


class Setting(NamedTuple):
    """How a request is carried out: learning rate, clipping by the global norm (0: none), budget, batch size (0: full).

    options: of the algorithm, (name, value), beside those that the config gives for every way.
    repair: updates of a request to a level once it has settled.
    """

    learning_rate: float
    clip: float
    max_steps: int
    batch_size: int
    options: tuple[tuple[str, float], ...] = ()
    repair: int = 0


class RequestData(NamedTuple):
    """What one request needs; the program's arguments, shared by all lanes.

    forget, retain: training examples.  watch: held-out examples that should stay, for the curve.
    retained: training examples that a request to a level watches; None where it ends at an accuracy.
    """

    forget: Batch
    retain: Batch
    watch: Batch
    retained: Batch | None = None


def make_request(model: Model, name: str, setting: Setting, options: dict[str, Any], devices: Execution) -> Callable:
    """`((params, raw key, end) of all lanes, data) -> Outcome` of all lanes, with one compilation per setting's shape.

    A lane stops once its forget accuracy is at or below its end: 0 for a class, the oracle's accuracy for random data. Of a
    request to a level, `end` is `aims.Levels`: it stops once it has settled there, and updates that overshoot are undone.
    A repair goes on from there; updates that would leave it unsettled are undone, too.
    """
    every = tuple(sorted((options | dict(setting.options)).items()))
    run = _runner(model, name, setting.clip, setting.max_steps, setting.repair, setting.batch_size, every, devices)
    return functools.partial(run, setting.learning_rate)


@functools.lru_cache(maxsize=64)
def _runner(
    model: Model, name: str, clip: float, max_steps: int, repair: int, batch_size: int, options: tuple, devices: Execution
) -> Callable:
    by_level = algorithms.ends_at_level(name)

    def rate(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(clip), optimizer) if clip else optimizer

    def forgotten(data: tuple) -> Batch:
        request, end = data
        return dict(request.forget, level=end.each) if by_level else request.forget

    def whole(data: tuple) -> Request:
        return Request(forgotten(data), data[0].retain)

    def draw(data: tuple, key: Array, step: Array) -> Request:
        forget, retain = whole(data)
        forget_key, retain_key = jax.random.split(key)
        part = lambda k, batch, count: _rows(jax.random.fold_in(k, step), batch, count)  # noqa: E731
        shown = batch_size or forget["weight"].shape[0]
        return Request(part(forget_key, forget, batch_size), part(retain_key, retain, shown))

    def observe(params: Any, data: tuple) -> dict[str, Array]:
        request, _ = data
        seen = {}
        for which in ("forget", "watch"):
            batch = getattr(request, which)
            logits = model.apply(params, batch["x"], None)
            seen[f"{which}_accuracy"] = weighted_mean(model.correct(logits, batch), batch["weight"])
            seen[f"{which}_loss"] = weighted_mean(model.loss(logits, batch), batch["weight"])
            if by_level and which == "forget":
                seen["forget_margin"] = weighted_mean(model.margin(logits, batch), batch["weight"])
        if by_level:
            right = model.correct(model.apply(params, request.retained["x"], None), request.retained)
            seen["retained_accuracy"] = weighted_mean(right, request.retained["weight"])
        return seen

    def criterion(seen: dict[str, Array], data: tuple) -> Array:
        _, end = data
        return levels.settled(seen, end.aim) if by_level else seen["forget_accuracy"] <= end

    def overshoots(after: dict[str, Array], before: dict[str, Array], data: tuple) -> Array:
        return levels.overshoots(after, before, data[1].aim)

    def unsettled(seen: dict[str, Array], data: tuple) -> Array:
        return ~levels.settled(seen, data[1].aim)

    def spoils(after: dict[str, Array], before: dict[str, Array], data: tuple) -> Array:
        return overshoots(after, before, data) | unsettled(after, data)

    def until(learning_rate: Any) -> Callable:
        algorithm = algorithms.algorithm(name)(model, rate(optax.sgd(learning_rate)), **dict(options))
        run = functools.partial(unlearn_until, algorithm, whole, draw, observe, unroll=devices.loops)
        request = run(criterion, max_steps, undo=overshoots if by_level else None)
        return followed(request, run(unsettled, repair, undo=spoils)) if repair else request

    def single(lane: tuple, data: RequestData, run: Callable) -> Outcome:
        params, raw, end = lane
        return run(params, (data, end), jax.random.wrap_key_data(raw))

    return over_lanes(until, single, devices)


def followed(first: Callable[..., Outcome], then: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Two runs of `unlearn_until` as one that ends as the first does; the second goes on with its parameters."""

    def run(params: Any, data: Any, key: Array) -> Outcome:
        one = first(params, data, key)
        other = then(one.state.params, data, keys.fold(key, Purpose.REPAIR))

        def joined(rows: Array, more: Array) -> Array:
            room = jnp.concatenate([rows, jnp.full_like(more[1:], jnp.nan)])
            return jax.lax.dynamic_update_slice_in_dim(room, more[1:], one.steps + 1, axis=0)

        curve = jax.tree.map(joined, one.curve, other.curve)
        return one._replace(state=other.state, steps=one.steps + other.steps, curve=curve, undone=one.undone + other.undone)

    return run


def over_lanes(until: Callable[[Any], Callable], single: Callable, devices: Execution) -> Callable:
    """`(learning rate, lanes, *shared) -> outcomes` of all lanes; where lanes are a vmap, compiled once for all rates.

    Args:
      until: learning rate -> `run` of `unlearn_until`.
      single: (lane, *shared, run) -> outcome.
      devices: where lanes and steps are Python loops, each rate is a constant of programs that the next lane finds again.
    """
    by_rate = functools.lru_cache(maxsize=4)(until)

    def of_lane(lane: Any, rate: Any, *shared: Any) -> Any:
        return single(lane, *shared, by_rate(rate) if devices.loops else until(rate))

    over = devices.lanes(of_lane, compiled=not devices.loops)
    return lambda rate, lanes, *shared: over(lanes, rate if devices.loops else jnp.float32(rate), *shared)


def by_classes(classes: np.ndarray | None, count: int) -> TypeGuard[np.ndarray]:
    """Whether the parts of a request are one class each."""
    return classes is not None and 1 < count == len(np.unique(classes))


def _rows(key: Array, batch: Batch, count: int) -> Batch:
    examples = batch["weight"].shape[0]
    if not count or count >= examples:
        return batch
    return jax.tree.map(lambda leaf: leaf[jax.random.randint(key, (count,), 0, examples)], batch)


def parts(ids: np.ndarray, count: int, overlap: float, seed: int, classes: np.ndarray | None = None) -> list[np.ndarray]:
    """Who is asked for in each part of a request, [examples] bool each: cut by id, with a share of the part before.

    Args:
      ids: [examples]; examples of one id, as rows of a document, are asked for together.
      classes: [examples] labels, if classes are asked for; as many of them as parts are asked for class by class.
    """
    if by_classes(classes, count):
        return [classes == label for label in np.unique(classes)]
    place = hash_uniform(ids, Hash.PART, seed) * count
    return [(place >= i - overlap) & (place < i + 1) for i in range(count)]
