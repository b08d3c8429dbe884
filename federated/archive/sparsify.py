"""Which entries of an update are stored: those that differ enough from a reference, the largest, or some at random."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from federated.archive.draws import Draw, draw_key
from federated.history import Array


def changed(update: Array, reference: Array, threshold: float) -> Array:
    """[parameters] bool: |h - reference| > threshold * root mean square of h.

    After MEDU's differential thresholding, whose rule is not public. What the reference is, a user's update as last stored
    or the round's mean, is the caller's choice.

    Example:
      >>> print(changed(jnp.array([1.0, -1.0, 1.0]), jnp.array([1.1, 1.0, 0.0]), 0.5))
      [False  True  True]
    """
    return jnp.abs(update - reference) > threshold * jnp.sqrt(jnp.mean(update**2))


def largest_entries(values: Array, count: int) -> Array:
    """[parameters] bool: the `count` entries that are largest by amount.

    Example:
      >>> print(largest_entries(jnp.array([1.0, -3.0, 2.0]), 2))
      [False  True  True]
    """
    return jnp.zeros(values.shape, bool).at[jax.lax.top_k(jnp.abs(values), count)[1]].set(True)


def random_entries(key: Array, parameters: int, count: int, user: Array, round: Array) -> Array:
    """[parameters] bool: `count` entries, all alike; times parameters / count what is stored is unbiased.

    Drawn from the archive's key, the user and the round, so that which entries they are takes no room.
    """
    draws = jax.random.bits(draw_key(key, Draw.ENTRIES, user, round), (parameters,))
    return jnp.zeros(parameters, bool).at[jax.lax.top_k(draws, count)[1]].set(True)
