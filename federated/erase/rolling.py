"""Erasure from the history alone: rounds are corrected for who left, as by Fast-FedUL, and MEDU on compressed updates."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from federated.erase.contract import CLASS, CLIENT, SERVER, Erased, check_history, check_model, declare, leaving, remaining
from federated.history import Array, History
from unlearn.checking import check_number

SKEW = 0.07  # of Fast-FedUL's repository; the paper recommends .05 to .1
FEW = 1e-3  # of a round's weight


def round_change(weights: Array, updates: Array, leavers: Array) -> Array:
    """What a round would have changed without the leavers, minus what it did; updates taken as fixed, [parameters].

    sum_u (without(weights)[u] - weights[u]) h_u. With s = sum_u weights[u] h_u and weights that sum to 1 it equals

        sum_{u leaves} weights[u] (s - h_u) / (1 - sum_{u leaves} weights[u]),

    which is computed: the order of operations is that of `federated.erase.sums`. With weights 1/U and one leaver it is the
    published (1 / (U (U - 1))) sum_{u stays} (h_u - h_leaver). It is -s if nobody else took part, and 0 without leavers.
    If the others' share is below .001, where 1 - sum loses its digits, the first form is computed.

    Args:
      weights: [clients] of the round.
      updates: [clients, parameters].
      leavers: [clients], 1 for who leaves; a share of its examples lowers a client's weight.

    Example:
      >>> print(round_change(jnp.full(2, 0.5), jnp.array([[1.0], [3.0]]), jnp.array([1.0, 0.0])))
      [1.]
    """
    step = weights @ updates
    moved = leavers @ (weights[:, None] * (step - updates))
    alone = ~jnp.any((weights > 0) & (leavers < 1))
    share, stay = 1 - leavers @ weights, (1 - leavers) * weights
    few = share < FEW
    direct = stay @ updates / jnp.where(alone, 1, jnp.sum(stay)) - step
    changed: Array = jnp.where(alone, -step, jnp.where(few, direct, moved / jnp.where(few, 1, share)))
    return changed


def correction(history: History, leavers: Array, *, alpha: float | Array = 0.0) -> Array:
    """What takes the leavers out of the last model: sum_t (1 + alpha)^(T - 1 - t) change_t, summed in order, [parameters].

    Args:
      history: with updates as they are or compressed; only they count here.
      leavers: [clients] bool, or the share of each client's examples that goes.
      alpha: how much a change grows with each later round.

    Raises:
      ValueError: shapes that do not fit, alpha not above -1, or everybody leaves.
    """
    check_history(history)
    check_number(alpha, "alpha", least=-1.0, above=True)
    leavers = leaving(leavers, history.weights.shape[1]).astype(history.updates.dtype)

    corrected: Array = _corrected(history.updates, history.weights, leavers, jnp.asarray(1 + alpha, leavers.dtype))
    return corrected


@jax.jit
def _corrected(updates: Array, weights: Array, leavers: Array, growth: Array) -> Array:
    def add(total: Array, kept: tuple[Array, Array]) -> tuple[Array, None]:
        return growth * total + round_change(*kept, leavers), None

    empty = jnp.zeros(updates.shape[2], updates.dtype)
    total: Array = jax.lax.scan(add, empty, (weights.astype(updates.dtype), updates))[0]
    return total


@declare(
    helpers=SERVER,
    reads=("model", "history"),
    requests=(CLIENT, CLASS),
    exact="alpha = 0 and updates that do not depend on the model",
    source="Fast-FedUL, 2405.18040",
)
def fast_fedul(
    model: Array,
    history: History,
    leavers: Array,
    *,
    gone: Array | None = None,
    alpha: float | Array = SKEW,
) -> Erased:
    """Fast-FedUL's roll-back, without training: w'_{t+1} = w_{t+1} + sum_{j <= t} (1 + alpha)^(t - j) delta'_j.

    delta'_j is `round_change`: for any weights and any participation. At fixed updates alpha = 0 is training without the
    leavers; alpha stands for later updates that would have differed. Its sign is the paper's formula's; the repository's
    is the opposite one, so give alpha < 0 for that.

    The rule is linear: several leavers one after another are as good as all at once, and one comes back by leaving them
    out. Give `gone` for that: a correction is taken off, another put on. The history stays that of the whole training.

    Args:
      model: [parameters], w_T as it is served, without those of `gone`.
      history: of the whole training.
      leavers: [clients] bool, all that are to be out of the model in the end. Or the share of each client's examples that
        goes: of a class, by `federated.erase.requests.class_shares`. Then it is assumed that a client's update is the same
        without them, since a history has none per class. If all clients have the same share, nothing changes.
      gone: as `leavers`, who is out of `model` already; nobody by default. It must have left at the same alpha.
      alpha: how much a change grows with each later round, above -1.

    Raises:
      ValueError: shapes that do not fit, alpha not above -1, or everybody leaves.

    Reference:
      Huynh et al., Fast-FedUL: A Training-Free Federated Unlearning with Provable Skew Resilience (2405.18040).

    Example:
      >>> history = History(jnp.zeros(1), jnp.array([[[1.0], [3.0]], [[1.0], [5.0]]]), jnp.full((2, 2), 0.5))
      >>> print(fast_fedul(jnp.array([5.0]), history, jnp.array([True, False]), alpha=0.0).model)  # 0 + 3 + 5
      [8.]
    """
    check_history(history)
    check_model(model, len(history.start))
    moved = model + correction(history, leavers, alpha=alpha)
    if gone is not None:
        moved = moved - correction(history, gone, alpha=alpha)
    nothing = jnp.zeros((), jnp.int32)
    return Erased(moved, nothing, nothing)


@declare(
    helpers=SERVER,
    reads=("model", "history"),
    requests=(CLIENT, CLASS),
    exact="alpha = 0, no compression, and updates that do not depend on the model",
    source="after MEDU, 2505.03388",
)
def medu(
    model: Array,
    history: History,
    leavers: Array,
    *,
    gone: Array | None = None,
    alpha: float | Array = 0.0,
) -> Erased:
    """After MEDU: `fast_fedul` on a history of compressed updates, with alpha = 0 as its precursor analyses.

    The model is the one that was trained on updates as they came; only the correction has compressed ones. Its noise is
    `rollback_variance`. Text and code of MEDU were not available: this is no reproduction. Arguments, errors and requests
    are those of `fast_fedul`.

    Reference:
      Lang et al., Memory-Efficient Distributed Unlearning (2505.03388).
    """
    return fast_fedul(model, history, leavers, gone=gone, alpha=alpha)


def rollback_variance(weights: Array, leavers: Array, errors: Array, *, alpha: float | Array = 0.0) -> Array:
    """The variance of each coordinate of the rolled-back model, if errors of updates are independent.

    sum_t (1 + alpha)^(2 (T - 1 - t)) errors[t] sum_u (without(weights) - weights)[t, u]^2. With weights 1/U, one leaver and
    alpha = 0 it is sum_t errors[t] / (U (U - 1)), as published. Absent clients have weight 0 and so no error.

    Args:
      weights: [rounds, clients].
      leavers: [clients] bool.
      errors: [rounds], the variance of a coordinate's error in a round, the same for all clients.
      alpha: as of `fast_fedul`.

    Raises:
      ValueError: not one error per round, alpha not above -1, or everybody leaves.

    Example:
      >>> print(f"{rollback_variance(jnp.full((3, 4), 0.25), jnp.arange(4) == 0, jnp.full(3, 4.0)):.4f}")  # 3 * 4 / (4 * 3)
      1.0000
    """
    check_number(alpha, "alpha", least=-1.0, above=True)
    rounds, clients = jnp.shape(weights)
    if jnp.shape(errors) != (rounds,):
        raise ValueError(f"errors have shape {jnp.shape(errors)}: give one variance for each of the {rounds} rounds")
    moved = remaining(weights, leaving(leavers, clients)) - weights
    growth = (1 + alpha) ** (2 * jnp.arange(rounds - 1, -1, -1))
    total: Array = jnp.sum(growth * errors * jnp.sum(moved**2, axis=1))
    return total
