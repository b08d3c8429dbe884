"""Which examples a simulated request asks to forget, and which data the outer terms are measured on.

What is known in advance decides the pools: a class, a list of ids, a noisy list, several overlapping groups, or nothing
at all, in which case every meta-step makes up a request of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from readiness.objective import MetaBatch
from unlearn.base import Array, Batch, Request
from unlearn.checking import check_number


class Pools(NamedTuple):
    """Positions to draw from, one row per group of ids that might be requested together.

    forget, stable, recovery: [groups, widest] int32; entries past a row's count are padding.
    forget_count, stable_count, recovery_count: [groups] int32.
    """

    forget: Array
    forget_count: Array
    stable: Array
    stable_count: Array
    recovery: Array
    recovery_count: Array


class Draw(NamedTuple):
    """The shape of a meta-batch.

    size: examples in each of its parts.
    inner_steps: K, the updates that a simulated request makes.
    fresh: measure forgetting on a fresh draw (True) or on the last inner batch.
    retain: give the inner steps retain data, for algorithms that use some.
    recovery: draw recovery data.
    relearn_steps: simulated relearning steps; their batches hold `relearn_share` forget examples, the rest stable.
    anew: if not 0, ignore the pools' groups: each meta-step requests this many random examples, nothing known before.
    """

    size: int
    inner_steps: int = 1
    fresh: bool = True
    retain: bool = False
    recovery: bool = False
    relearn_steps: int = 0
    relearn_share: float = 0.25
    anew: int = 0


def make_pools(forget: np.ndarray, recovery: np.ndarray | None = None) -> Pools:
    """Pools from masks over the training examples.

    Args:
      forget: [groups, examples] bool, or 0 and 1: which examples each group asks to forget; groups may overlap.
      recovery: the same of similar stable data of each group; all of its stable data if None.

    Raises:
      ValueError: no masks, or a group without forget data, without stable data, or whose recovery data are to be
        forgotten or missing.
    """
    forget = _mask(forget, "forget", 2)
    stable = ~forget
    recovery = stable if recovery is None else _mask(recovery, "recovery", 2)
    if recovery.shape != forget.shape:
        raise ValueError(
            f"forget masks {list(forget.shape)} and recovery masks {list(recovery.shape)}: give as many of both"
        )
    for name, masks in (("forget", forget), ("stable", stable), ("recovery", recovery)):
        if not masks.any(axis=1).all():
            raise ValueError(f"group {int(np.argmin(masks.any(axis=1)))} has no {name} examples to rehearse with")
    if (forget & recovery).any():
        raise ValueError("recovery data must be stable: some are in the forget set, which would oppose the efficiency term")
    return Pools(*(jnp.asarray(leaf) for masks in (forget, stable, recovery) for leaf in _rows(masks)))


def draw_meta_batch(key: Array, data: Batch, pools: Pools, draw: Draw) -> MetaBatch:
    """One simulated request: forget, stable, recovery and relearning batches, drawn uniformly with replacement.

    Args:
      key: of this step alone.
      data: the training examples, as one Batch.
      pools: from `make_pools`.
      draw: the shape.

    Raises:
      ValueError: a shape that nothing can be drawn in.
    """
    for name, least in (("size", 1), ("inner_steps", 0), ("relearn_steps", 0), ("anew", 0)):
        check_number(getattr(draw, name), name, least=least)
    check_number(draw.relearn_share, "relearn_share", most=1.0)
    group_key, forget_key, fresh_key, stable_key, retain_key, recovery_key, relearn_key = jax.random.split(key, 7)
    group = jax.random.randint(group_key, (), 0, pools.forget.shape[0])
    everyone = data["id"].shape[0]
    asked = jax.random.randint(group_key, (max(draw.anew, 1),), 0, everyone)

    def from_pool(key: Array, pool: Array, count: Array, shape: tuple[int, ...]) -> Batch:
        return take(data, pool[group][jax.random.randint(key, shape, 0, count[group])])

    def forget_batch(key: Array, *shape: int) -> Batch:
        if draw.anew:
            return take(data, asked[jax.random.randint(key, shape, 0, draw.anew)])
        return from_pool(key, pools.forget, pools.forget_count, shape)

    def stable_batch(key: Array, *shape: int) -> Batch:
        if draw.anew:
            batch = take(data, jax.random.randint(key, shape, 0, everyone))
            return dict(batch, weight=batch["weight"] * ~jnp.isin(batch["id"], data["id"][asked]))
        return from_pool(key, pools.stable, pools.stable_count, shape)

    inner = forget_batch(forget_key, draw.inner_steps, draw.size)
    kept = stable_batch(retain_key, draw.inner_steps, draw.size) if draw.retain else None
    fresh = draw.fresh or not draw.inner_steps
    outer = forget_batch(fresh_key, draw.size) if fresh else jax.tree.map(lambda leaf: leaf[-1], inner)
    stable = stable_batch(stable_key, draw.size)
    recovery = relearn = None
    if draw.recovery:
        recovery = stable if draw.anew else from_pool(recovery_key, pools.recovery, pools.recovery_count, (draw.size,))
    if draw.relearn_steps:
        share = max(1, round(draw.relearn_share * draw.size))
        keys = jax.random.split(relearn_key)
        parts = (
            forget_batch(keys[0], draw.relearn_steps, share),
            stable_batch(keys[1], draw.relearn_steps, draw.size - share),
        )
        mixed = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), *parts)
        relearn = Request(mixed, mixed)
    return MetaBatch(Request(inner, kept), outer, stable, recovery, relearn)


def take(data: Batch, positions: Array) -> Batch:
    """The examples at `positions` (any shape, which the batch then leads with)."""
    rows: Batch = jax.tree.map(lambda leaf: leaf[positions], dict(data))
    return rows


def nearest_classes(features: np.ndarray, labels: np.ndarray, forget: np.ndarray, count: int) -> np.ndarray:
    """Mask of the stable examples in the `count` classes whose mean feature lies nearest to the forget set's.

    Args:
      features: [examples, ...] float.
      labels: [examples] int.
      forget: [examples] bool.
      count: how many classes; those with no stable example do not count.
    """
    forget = _mask(forget, "forget", 1)
    flat = features.reshape(len(features), -1)
    centre = flat[forget].mean(axis=0)
    classes = np.unique(labels[~forget])
    distance = [np.linalg.norm(flat[~forget & (labels == c)].mean(axis=0) - centre) for c in classes]
    return ~forget & np.isin(labels, classes[np.argsort(distance, kind="stable")[:count]])


def nearest_examples(features: np.ndarray, forget: np.ndarray, count: int) -> np.ndarray:
    """Mask of the `count` stable examples whose features lie nearest to the mean feature of the forget set."""
    forget = _mask(forget, "forget", 1)
    flat = features.reshape(len(features), -1)
    distance = np.linalg.norm(flat - flat[forget].mean(axis=0), axis=1)
    distance[forget] = np.inf
    mask = np.zeros(len(flat), bool)
    mask[np.argsort(distance, kind="stable")[: min(count, int((~forget).sum()))]] = True
    return mask


def _mask(given: Any, name: str, axes: int) -> np.ndarray:
    """Masks as bool, of numbers 0 and 1 as well.

    Raises:
      ValueError: other numbers, none at all, or of other axes.
    """
    masks = np.asarray(given)
    if masks.ndim != axes or not masks.size or not (masks.dtype == bool or np.isin(masks, (0, 1)).all()):
        wanted = "[groups, examples]" if axes == 2 else "[examples]"
        raise ValueError(f"{name} is of {masks.dtype}{list(masks.shape)}: give a mask {wanted} of bool")
    return masks.astype(bool)


def _rows(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = masks.sum(axis=1).astype(np.int32)
    rows = np.zeros((len(masks), counts.max()), np.int32)
    for row, mask, count in zip(rows, masks, counts, strict=True):
        row[:count] = np.flatnonzero(mask)
    return rows, counts
