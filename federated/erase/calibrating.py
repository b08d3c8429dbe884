"""Erasure by calibration: a kept update gives the length of a step, a little training of those who stay its direction."""

from __future__ import annotations

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
    normalised,
    remaining,
)
from federated.history import Array, History, steps
from unlearn.checking import check_number


def calibrated(kept: Array, fresh: Array, layers: Array | None = None) -> Array:
    """|U| U^ / |U^|: the length of what was kept in the direction of what is fresh; 0 where the fresh update is 0.

    Args:
      kept, fresh: [clients, parameters].
      layers: [parameters] int, the layer of each parameter, for a length each as public code has it; None for one length.

    Example:
      >>> print(calibrated(jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]])))
      [[0. 5.]]
    """
    lengths, fresh_lengths = (_lengths(updates, layers) for updates in (kept, fresh))
    scaled: Array = jnp.where(fresh_lengths > 0, fresh * lengths / jnp.where(fresh_lengths > 0, fresh_lengths, 1), 0)
    return scaled


def _lengths(updates: Array, layers: Array | None) -> Array:
    if layers is None:
        whole: Array = jnp.linalg.norm(updates, axis=1, keepdims=True)
        return whole
    count = updates.shape[1]  # as many layers as there can be
    squares = jax.vmap(lambda row: jax.ops.segment_sum(row, layers, count))(updates**2)
    lengths: Array = jnp.sqrt(squares)[:, layers]
    return lengths


def _recover(
    params: Array, updates: Array, weights: Array, used: Array, fresh: tuple[AskClient, Array], layers: Array | None
) -> Erased:
    """Calibrated rounds from `params` on: those that are used, and of those the clients that have a weight."""
    update, key = fresh
    used = used & jnp.any(weights > 0, axis=1)

    def advance(params: Array, turn: tuple[Array, ...]) -> tuple[Array, None]:
        again, index, kept, shares = turn

        def redo() -> Array:
            answers = ask(update, params, shares, jax.random.fold_in(key, index))
            stepped: Array = params + shares @ calibrated(kept, answers, layers)
            return stepped

        return jax.lax.cond(again, redo, lambda: params), None

    rounds = jnp.arange(len(weights))
    model, _ = jax.lax.scan(advance, params, (used, rounds, updates, weights))
    return Erased(model, jnp.sum(used), jnp.sum((weights > 0) & used[:, None]))


@declare(helpers=REMAINING, reads=("history",), exact="never", source="FedEraser, IWQoS 2021")
def federaser(
    history: History,
    leavers: Array,
    update: AskClient,
    key: Array,
    *,
    interval: int = 1,
    layers: Array | None = None,
) -> Erased:
    """FedEraser: from w_0 on, every `interval`-th round is redone with calibrated updates U~ = |U| U^ / |U^|.

    U is what the server kept of a remaining client, U^ what that client answers at the model under repair. It is asked for
    a few local epochs only: the share of the usual ones (the paper's ratio, .5) is the caller's, in `update`. The first
    round is taken without calibration, since at w_0 no update had seen a leaver.

    Args:
      history: with the updates of rounds 0, interval, 2 interval ...; others are not read.
      leavers: [clients] bool.
      update: (params, client, key) -> update, with fewer local epochs than in training.
      key: of the erasure; the round is folded in.
      interval: rounds from one kept to the next.
      layers: as of `calibrated`.

    Raises:
      ValueError: shapes that do not fit, everybody leaves, or an interval below 1.

    Reference:
      Liu et al., FedEraser: Enabling Efficient Client-Level Data Removal from Federated Learning Models, IWQoS 2021.
    """
    check_history(history)
    check_count(interval, "interval")
    start, updates, weights = (history.start, history.updates[::interval], history.weights[::interval])
    left = remaining(weights, leaving_whole(leavers, weights.shape[1]).astype(weights.dtype))
    used = jnp.arange(len(left)) > 0
    return _recover(start + left[0] @ updates[0], updates, left, used, (update, key), layers)


# --- Crab -------------------------------------------------------------------------------------------------------------


def crab_keep(history: History, *, window: int = 10, rounds: float = 0.6, clients: float = 0.7) -> Array:
    """What a server after Crab keeps, decided before anybody leaves: rounds of high change, and in them aligned clients.

    Of every `window` rounds those are kept in which the model moved most, |s_t| / (the window's largest), s_t the round's
    step; of a kept round the clients whose update has the largest cosine with s_t. The paper selects rounds by a KL
    divergence, of which a history of updates has none: the length of the step stands for it. Shares are rounded up.

    Args:
      history: of the training.
      window: rounds that are compared with each other.
      rounds, clients: the share of a window's rounds and of a round's clients that are kept; .6 and .7 are ours.

    Returns:
      [rounds, clients] bool.

    Raises:
      ValueError: shapes that do not fit, a window below 1, or a share that is not above 0 and up to 1.
    """
    check_history(history)
    check_count(window, "window")
    check_number(rounds, "rounds", above=True, most=1.0)
    check_number(clients, "clients", above=True, most=1.0)
    updates, weights = history.updates, history.weights
    moves = steps(weights, updates)
    lengths = jnp.linalg.norm(moves, axis=1)
    total = len(lengths)
    kept = [_largest(lengths[at : at + window], rounds, min(window, total - at)) for at in range(0, total, window)]
    norms = jnp.linalg.norm(updates, axis=2) * lengths[:, None]
    cosines = jnp.einsum("tum,tm->tu", updates, moves) / jnp.where(norms > 0, norms, 1)
    came = weights > 0
    cosines = jnp.where(came, cosines, -jnp.inf)
    aligned = jax.vmap(lambda row, count: _largest(row, clients, count))(cosines, came.sum(axis=1))
    return jnp.concatenate(kept)[:, None] & aligned & came


def _largest(values: Array, share: float, count: int | Array) -> Array:
    """Which are the largest ceil(share count) of the values."""
    order = jnp.argsort(jnp.argsort(-values))
    return order < jnp.ceil(share * count - 1e-4)  # .7 * 10 may be a little above 7


@declare(helpers=REMAINING, reads=("checkpoints", "history", "kept"), exact="never", source="after Crab, 2401.08216")
def crab(
    checkpoints: Array,
    history: History,
    kept: Array,
    leavers: Array,
    update: AskClient,
    key: Array,
    *,
    sensitivity: float = 0.3,
    layers: Array | None = None,
) -> Erased:
    """After Crab: back to the last model that the leavers had hardly moved, then calibrated rounds with what was kept.

    A model's sensitivity is the sum of |sum_{u leaves} weights[t, u] h_t^u| over the kept rounds before it. Training goes
    back to the last kept round with no more than `sensitivity` times that of the last model; from there the kept rounds
    are redone as by `federaser`, with the kept clients, whose weights are shared out anew. What is ours: the form of the
    sensitivity, its default, and `crab_keep`. The paper's noise for a certificate is left out, and so is the certificate.

    Args:
      checkpoints: [rounds + 1, parameters]; those before kept rounds are read.
      history: updates and weights of what was kept are read, no others.
      kept: [rounds, clients] bool, of `crab_keep`.
      leavers: [clients] bool.
      update, key, layers: as of `federaser`.
      sensitivity: the share of all that the leavers did which the model may have seen; 0 goes back to before they came.

    Raises:
      ValueError: shapes that do not fit, a sensitivity that is not from 0 to 1, or everybody leaves.

    Reference:
      Jiang et al., Towards Efficient and Certified Recovery from Poisoning Attacks in Federated Learning (2401.08216).
    """
    check_history(history)
    check_checkpoints(checkpoints, len(history.weights))
    check_number(sensitivity, "sensitivity", most=1.0)
    if jnp.shape(kept) != history.weights.shape:
        raise ValueError(f"kept has shape {jnp.shape(kept)}: give what crab_keep makes of this history")
    weights, updates = jnp.where(kept, history.weights, 0), history.updates
    shares = leaving_whole(leavers, weights.shape[1]).astype(weights.dtype)
    moved = jnp.linalg.norm(steps(weights * shares, updates), axis=1)
    seen = jnp.cumsum(moved) - moved  # by the model before each round
    used = jnp.any(kept, axis=1)
    rounds = jnp.arange(len(weights))
    back = jnp.max(jnp.where(used & (seen <= sensitivity * moved.sum()), rounds, 0))
    left = normalised(weights * (1 - shares))
    return _recover(checkpoints[back], updates, left, used & (rounds >= back), (update, key), layers)
