"""Rollback: the rounds before a leaver first took part stand as they are, the rest is trained anew without it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from federated.erase.contract import (
    CLASS,
    CLIENT,
    EXAMPLES,
    REMAINING,
    Erased,
    ServerStep,
    check_checkpoints,
    declare,
    leaving,
    remaining,
)
from federated.history import Array


def first_affected(weights: Array, leavers: Array) -> Array:
    """The first round in which a leaver took part; the number of rounds if none did. Rounds to redo are those from it on.

    Args:
      weights: [rounds, clients].
      leavers: [clients] bool, or the share of each client's examples that goes.

    Example:
      >>> print(first_affected(jnp.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]), jnp.array([False, True])))
      1
    """
    rounds, clients = jnp.shape(weights)
    touched = jnp.any((weights > 0) & (leaving(leavers, clients) > 0), axis=1)
    first: Array = jnp.where(jnp.any(touched), jnp.argmax(touched), rounds)
    return first


@declare(
    helpers=REMAINING,
    reads=("checkpoints", "weights"),
    requests=(CLIENT, CLASS, EXAMPLES),
    exact="always",
    source="after Exact-Fun, ICDM 2023, without its quantisation",
)
def rollback(checkpoints: Array, weights: Array, leavers: Array, step: ServerStep) -> Erased:
    """Retraining from the first affected round: no earlier model had seen a leaver, so this equals retraining from w_0.

    With the `step` of the training it is retraining bit for bit, within one compiled program. A class or single examples
    are removed exactly, too: `leavers` then holds the share of each client's examples that goes, and the clients behind
    `step` train without them.

    Args:
      checkpoints: [rounds + 1, parameters], the server's models as they were; those of a compressed history differ.
      weights: [rounds, clients] of the history.
      leavers: [clients] bool, or the share of each client's examples that goes.
      step: (params, round, weights [clients]) -> params; `contract.averaging` makes one of a client's update. Rounds in
        which nobody else took part are passed over.

    Returns:
      The model, the rounds that were redone, and the updates that clients computed in them.

    Raises:
      ValueError: shapes that do not fit, or everybody leaves.

    Example:
      >>> weights = jnp.array([[1.0, 0.0], [0.5, 0.5]])
      >>> step = lambda params, index, weights: params + weights @ jnp.array([[1.0], [5.0]])
      >>> erased = rollback(jnp.array([[0.0], [1.0], [4.0]]), weights, jnp.array([False, True]), step)
      >>> print(erased.model, erased.rounds)
      [2.] 1
    """
    check_checkpoints(checkpoints, len(weights))
    first = first_affected(weights, leavers)
    return _redo(checkpoints[first], weights, leavers, step, first)


@declare(
    helpers=REMAINING,
    reads=("start", "weights"),
    requests=(CLIENT, CLASS, EXAMPLES),
    exact="by definition",
    source="the oracle",
)
def retrain(start: Array, weights: Array, leavers: Array, step: ServerStep) -> Erased:
    """Training from w_0 without the leavers: what every erasure is measured against. Arguments and errors as of `rollback`.

    Args:
      start: [parameters], w_0.
    """
    return _redo(start, weights, leavers, step, 0)


def _redo(params: Array, weights: Array, leavers: Array, step: ServerStep, first: Array | int) -> Erased:
    """The rounds from `first` on without the leavers; those in which nobody else took part are passed over."""
    rounds, clients = jnp.shape(weights)
    left = remaining(weights, leaving(leavers, clients).astype(weights.dtype))
    redone = jnp.any(left > 0, axis=1) & (jnp.arange(rounds) >= first)

    def advance(params: Array, turn: tuple[Array, Array, Array]) -> tuple[Array, None]:
        again, index, shares = turn
        return jax.lax.cond(again, lambda: step(params, index, shares), lambda: params), None

    model, _ = jax.lax.scan(advance, params, (redone, jnp.arange(rounds), left))
    return Erased(model, jnp.sum(redone), jnp.sum((left > 0) & redone[:, None]))
