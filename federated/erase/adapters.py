"""Reversible erasure by sparse adapters: the model stays, a few entries of its most changed layers are added to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from federated.erase.contract import (
    REMAINING,
    AskClient,
    Erased,
    ask,
    check_count,
    check_model,
    declare,
    leaving_whole,
    normalised,
)
from federated.history import Array
from unlearn.checking import check_number


class Adapter(NamedTuple):
    """What is added to a model to make it forget; without it the model is the old one, bit for bit.

    values: [parameters].
    mask: [parameters] bool, which entries there are.
    """

    values: Array
    mask: Array


def layer_changes(before: Array, after: Array, layers: Array, count: int) -> Array:
    """How much each layer changed in training, mean |after - before| over its parameters, [count].

    Args:
      before, after: [parameters], such as w_0 and w_T.
      layers: [parameters] int from 0 to count - 1, the layer of each parameter.

    Example:
      >>> print(layer_changes(jnp.zeros(3), jnp.array([1.0, 3.0, -5.0]), jnp.array([0, 0, 1]), 2))
      [2. 5.]
    """
    totals = jax.ops.segment_sum(jnp.abs(after - before), layers, count)
    changes: Array = totals / jnp.maximum(jax.ops.segment_sum(jnp.ones_like(before), layers, count), 1)
    return changes


def make_adapter(changes: Array, layers: Array, key: Array, *, chosen: int = 2, density: float = 0.1) -> Adapter:
    """An adapter of zeros on a random share of the entries of the most changed layers.

    Args:
      changes: [layers], of `layer_changes`.
      layers: [parameters] int.
      key: draws the entries.
      chosen: how many layers.
      density: the share of their entries. Both defaults are ours.

    Raises:
      ValueError: more layers than there are, or a density that is not above 0 and up to 1.
    """
    check_count(chosen, "chosen")
    check_number(density, "density", above=True, most=1.0)
    if chosen > len(changes):
        raise ValueError(f"chosen is {chosen}, and there are {len(changes)} layers: choose at most all of them")
    most = jnp.argsort(jnp.argsort(-changes)) < chosen
    mask = most[layers] & (jax.random.uniform(key, layers.shape) < density)
    return Adapter(jnp.zeros(layers.shape, changes.dtype), mask)


def attach(model: Array, adapter: Adapter) -> Array:
    """The model with its adapter. Entries that have none are selected, not added to: they are the model's, bit for bit."""
    return jnp.where(adapter.mask, model + adapter.values, model)


@declare(helpers=REMAINING, reads=("model", "adapter"), exact="never", source="after FUSED, 2502.20709")
def fused(
    model: Array,
    adapter: Adapter,
    shares: Array,
    leavers: Array,
    update: AskClient,
    key: Array,
    *,
    rounds: int = 10,
) -> tuple[Erased, Adapter]:
    """After FUSED: an adapter on the most changed layers is trained by the remaining clients; taking it off undoes all.

    Each round adds the weighted mean of the clients' updates at the model with its adapter, on the adapter's entries alone.
    Of one gradient step that is the step of the adapter; a client that takes several is to hold the other entries itself.
    The paper's code has low-rank adapters (rank 16); on a vector of parameters these are sparse entries, which is ours.

    Args:
      model: [parameters], w_T; it does not change.
      adapter: of `make_adapter`.
      shares: [clients], the weight of each client, by its examples or alike.
      leavers: [clients] bool.
      update: (params, client, key) -> update.
      key: of the erasure; the round is folded in.
      rounds: how many; the default is ours.

    Returns:
      The model with the trained adapter, and the adapter; the model without it is the one that was given.

    Raises:
      ValueError: shapes that do not fit, everybody leaves, or fewer than one round.

    Reference:
      Zhong et al., Unlearning through Knowledge Overwriting: Reversible Federated Unlearning via Selective Sparse Adapter,
      CVPR 2025 (2502.20709).
    """
    check_count(rounds, "rounds")
    check_model(model, len(adapter.values))
    shares = jnp.asarray(shares, model.dtype)
    left = normalised((shares * (1 - leaving_whole(leavers, len(shares)).astype(model.dtype)))[None])[0]

    def advance(values: Array, index: Array) -> tuple[Array, None]:
        params = attach(model, Adapter(values, adapter.mask))
        step = left @ ask(update, params, left, jax.random.fold_in(key, index))
        return jnp.where(adapter.mask, values + step, values), None

    values, _ = jax.lax.scan(advance, adapter.values.astype(model.dtype), jnp.arange(rounds))
    trained = Adapter(values, adapter.mask)
    return Erased(attach(model, trained), jnp.array(rounds), rounds * jnp.sum(left > 0)), trained
