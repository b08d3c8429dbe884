"""What a server has kept of a federated training: where it began, all updates, and with what weight they entered."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class History(NamedTuple):
    """A federated training, w_{t+1} = w_t + sum_u weights[t, u] updates[t, u].

    start: [parameters], w_0; parameters are ravelled (`jax.flatten_util.ravel_pytree`).
    updates: [rounds, clients, parameters], h_t^u = w_t^u - w_t as the server has it, compressed or not; 0 if absent.
    weights: [rounds, clients]; 0 for who was absent. Those of a round sum to 1, or to 0 if nobody came.
    """

    start: Array
    updates: Array
    weights: Array


def models(history: History) -> Array:
    """The server's models w_0 ... w_T that the history tells of, [rounds + 1, parameters].

    Example:
      >>> history = History(jnp.zeros(1), jnp.array([[[1.0], [3.0]]]), jnp.array([[0.5, 0.5]]))
      >>> print(models(history).ravel())
      [0. 2.]
    """
    return jnp.cumsum(jnp.concatenate([history.start[None], steps(history.weights, history.updates)]), axis=0)


def steps(weights: Array, updates: Array) -> Array:
    """What each round adds to the model, sum_u weights[t, u] updates[t, u], [rounds, parameters]."""
    return jnp.einsum("tu,tum->tm", weights, updates)


def took_part(history: History) -> Array:
    """[rounds, clients] bool: who took part."""
    return history.weights > 0


def without(weights: Array, leavers: Array) -> Array:
    """The weights of a training without some clients: the others share each round in the same proportions.

    weights[t, u] / sum over the others, and 0 in rounds in which nobody else took part.

    Args:
      weights: [rounds, clients].
      leavers: [clients] bool.

    Example:
      >>> print(without(jnp.array([[0.5, 0.25, 0.25]]), jnp.array([True, False, False])))
      [[0.  0.5 0.5]]
    """
    stay = jnp.where(leavers, 0.0, weights)
    total = stay.sum(axis=1, keepdims=True)
    return jnp.where(total > 0, stay / jnp.where(total > 0, total, 1.0), 0.0)
