"""Erasure by estimated updates: FedRecover, with curvature by compact L-BFGS in the place of most of the clients' work."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from federated.erase.contract import (
    REMAINING,
    AskClient,
    Erased,
    ask,
    check_checkpoints,
    check_count,
    check_history,
    declare,
    leaving_whole,
    remaining,
)
from federated.erase.rollback import first_affected
from federated.history import Array, History

CURVED = 1e-10  # |s y| / (|s| |y|) beneath which a pair says nothing of curvature


def curvature_product(moves: Array, changes: Array, vector: Array) -> Array:
    """H~ v with the BFGS matrix of some pairs, in compact form, [parameters].

    H~ = sigma I - [sigma S, Y] [[sigma S'S, L], [L', -D]]^-1 [sigma S, Y]', S and Y the moves and changes as columns, L
    what lies beneath the diagonal of S'Y, D its diagonal and sigma = s'y / s's of the last pair, for which H~ s = y.
    Changes may fall along moves, as updates do: H~ of -Y is -H~. Pairs of no length or no curvature are left out, and
    without any pair the product is 0.

    Args:
      moves: [pairs, parameters], s: differences of models, the oldest first.
      changes: [pairs, parameters], y: differences of updates at these.
      vector: [parameters].

    Reference:
      Byrd, Nocedal, Schnabel, Representations of Quasi-Newton Matrices and Their Use in Limited Memory Methods, 1994.

    Example:
      >>> s, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 10.0]])  # curvatures 3 and 5
      >>> [f"{entry:.3f}" for entry in curvature_product(s, y, jnp.array([1.0, 1.0]))]
      ['3.000', '5.000']
    """
    along = jnp.sum(moves * changes, axis=1)
    size = jnp.linalg.norm(moves, axis=1) * jnp.linalg.norm(changes, axis=1)
    valid = jnp.abs(along) > CURVED * size
    pairs = len(moves)
    last = jnp.max(jnp.where(valid, jnp.arange(pairs), 0))
    sigma = jnp.where(valid[last], along[last] / jnp.where(valid[last], moves[last] @ moves[last], 1), 0)
    # Invalid pairs become zeros, with ones on the diagonal so that there is something to solve. Each pair is scaled to
    # |s| = 1, which changes nothing but rounding.
    lengths = jnp.where(valid, jnp.linalg.norm(moves, axis=1), 1)[:, None]
    s, y = (jnp.where(valid[:, None], part / lengths, 0) for part in (moves, changes))
    products = s @ y.T
    lower = jnp.tril(products, -1)
    middle = jnp.block([[sigma * s @ s.T, lower], [lower.T, -jnp.diag(jnp.diag(products))]])
    middle += jnp.diag(jnp.tile(jnp.where(valid, 0, 1), 2).astype(middle.dtype))
    sides = jnp.concatenate([sigma * s, y])
    product: Array = sigma * vector - sides.T @ jnp.linalg.solve(middle, sides @ vector)
    return product


@declare(helpers=REMAINING, reads=("checkpoints", "history"), exact="never", source="FedRecover, S&P 2023")
def fedrecover(
    checkpoints: Array,
    history: History,
    leavers: Array,
    update: AskClient,
    key: Array,
    *,
    warmup: int = 20,
    correct: int = 20,
    final: int = 5,
    pairs: int = 2,
    threshold: float | Array = math.inf,
) -> Erased:
    """FedRecover: training anew from w_0, in which the server estimates most updates from the old ones.

    g^_t = g_t + H~ (w^_t - w_t), with g_t a client's old update, w_t the server's old model and w^_t the new one. H~ comes
    from each client's last pairs of (w^ - w, exact update - old update); see `curvature_product`. All clients are asked for
    exact updates in the first `warmup` rounds, in every `correct`-th round after these and in the last `final` rounds.
    Pairs are taken in the first two kinds. A client whose estimate has an entry beyond `threshold` is asked in its place.

    If updates are linear in the model, with the same slope in all directions, it equals retraining after one pair that
    differs from zero; of other models it is an estimate.

    Args:
      checkpoints: [rounds + 1, parameters], the server's models.
      history: of the training, all of it.
      leavers: [clients] bool.
      update: (params, client, key) -> update, as in training.
      key: of the erasure; the round is folded in. Exact updates that draw as in training need the training's key.
      warmup, correct, final: rounds; 20 and 20 are from memory, 5 is the paper's.
      pairs: how many pairs are kept of a client.
      threshold: the largest entry that is believed; the paper sets it by quantiles of the old updates.

    Returns:
      The model, the rounds in which anybody was asked, and the updates that were computed.

    Raises:
      ValueError: shapes that do not fit, everybody leaves, or numbers out of range.

    Reference:
      Cao et al., FedRecover: Recovering from Poisoning Attacks in Federated Learning using Historical Information
      (2210.10936).
    """
    check_history(history)
    rounds, clients = history.weights.shape
    check_checkpoints(checkpoints, rounds)
    _check_settings(threshold, warmup=(warmup, 1), correct=(correct, 1), final=(final, 0), pairs=(pairs, 1))
    left = remaining(history.weights, leaving_whole(leavers, clients).astype(history.weights.dtype))
    index = jnp.arange(rounds)
    pairing = (index < warmup) | ((index - warmup + 1) % correct == 0)
    exact = pairing | (index >= rounds - final)
    # Until a leaver took part the models are the same, but for rounding: no pair can be had of them.
    pairing &= index > first_affected(history.weights, leavers)

    def advance(carry: tuple[Array, Array, Array], turn: tuple[Array, ...]) -> tuple[tuple[Array, Array, Array], Array]:
        params, moves, changes = carry
        index, old_model, old, shares, exact, pairing = turn
        came = shares > 0
        moved = params - old_model
        estimates = old + jax.vmap(curvature_product, in_axes=(0, 0, None))(moves, changes, moved)
        asked = came & (exact | jnp.any(~(jnp.abs(estimates) <= threshold), axis=1))
        answer = lambda: ask(update, params, shares, jax.random.fold_in(key, index))  # noqa: E731
        answers = jax.lax.cond(jnp.any(asked), answer, lambda: jnp.zeros_like(old))
        updates = jnp.where(asked[:, None], answers, jnp.where(came[:, None], estimates, 0))
        paired = (pairing & came)[:, None, None]
        moves = jnp.where(paired, jnp.roll(moves, -1, axis=1).at[:, -1].set(moved), moves)
        changes = jnp.where(paired, jnp.roll(changes, -1, axis=1).at[:, -1].set(answers - old), changes)
        return (params + shares @ updates, moves, changes), asked

    empty = jnp.zeros((clients, pairs, len(history.start)), history.updates.dtype)
    turns = (index, checkpoints[:-1], history.updates, left, exact, pairing)
    (model, _, _), asked = jax.lax.scan(advance, (history.start, empty, empty), turns)
    return Erased(model, jnp.sum(jnp.any(asked, axis=1)), jnp.sum(asked))


def _check_settings(threshold: float | Array, **counts: tuple[int, int]) -> None:
    """Refuse a threshold that is no bound, and counts below their least: name = (value, least)."""
    for name, (value, least) in counts.items():
        check_count(value, name, least)
    if not isinstance(threshold, jax.Array) and (math.isnan(threshold) or threshold <= 0):
        raise ValueError(f"threshold is {threshold}: give a number above 0, or infinity to believe all estimates")
