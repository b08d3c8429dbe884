"""Running sums in the place of a history: one accumulator per client, brought up to date as rounds arrive."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from federated.erase.contract import CLASS, CLIENT, SERVER, Erased, check_history, check_model, declare, leaving, remaining
from federated.history import Array, History
from unlearn.checking import check_number


class Sums(NamedTuple):
    """What takes each client, alone, out of the model that has been reached.

    totals: [clients, parameters], C_u = sum_t (1 + alpha)^(T - 1 - t) change_t without u; see `rolling.round_change`.
    weights: [clients], of the last round.
    fixed: whether all rounds had these weights, so that several clients may leave.
    rounds: how many there were.
    """

    totals: Array
    weights: Array
    fixed: Array
    rounds: Array


def init_sums(clients: int, parameters: int, dtype: Any = jnp.float32) -> Sums:
    """The sums before the first round.

    Example:
      >>> stored_bytes(jax.eval_shape(lambda: init_sums(100, 11_000_000)))  # on paper
      4400000405
    """
    totals, weights = jnp.zeros((clients, parameters), dtype), jnp.zeros(clients, dtype)
    return Sums(totals, weights, jnp.array(True), jnp.zeros((), jnp.int32))


def update_sums(sums: Sums, weights: Array, updates: Array, *, alpha: float | Array = 0.0) -> Sums:
    """The sums after one more round: C_u <- (1 + alpha) C_u + weights[u] (s - h_u) / (1 - weights[u]).

    s = sum_u weights[u] h_u. Who was alone in a round has -s instead, who was absent 0. A client costs O(parameters) and
    needs nothing of the other sums.

    Args:
      sums: of the rounds before.
      weights: [clients] of the round, that sum to 1, or to 0 if nobody came.
      updates: [clients, parameters].
      alpha: as of `fast_fedul`; the same in all rounds, since no sum can be taken apart later.

    Raises:
      ValueError: shapes that do not fit, or alpha not above -1.
    """
    check_number(alpha, "alpha", least=-1.0, above=True)
    if jnp.shape(updates) != sums.totals.shape or jnp.shape(weights) != sums.weights.shape:
        raise ValueError(
            f"weights are {jnp.shape(weights)} and updates {jnp.shape(updates)}: give those of one round, "
            f"{sums.weights.shape} and {sums.totals.shape}"
        )
    updates, weights = updates.astype(sums.totals.dtype), weights.astype(sums.totals.dtype)
    step = weights @ updates
    alone = (weights > 0) & (jnp.sum(weights > 0) == 1)
    moved = weights[:, None] * (step - updates) / jnp.where(alone, 1, 1 - weights)[:, None]
    change = jnp.where(alone[:, None], -step, moved)
    fixed = sums.fixed & ((sums.rounds == 0) | jnp.all(weights == sums.weights))
    growth = jnp.asarray(1 + alpha, updates.dtype)
    return Sums(growth * sums.totals + change, weights, fixed, sums.rounds + 1)


def summed(history: History, *, alpha: float | Array = 0.0) -> Sums:
    """The sums that a history would have left, round by round in order; the twin of a store that was filled online.

    Raises:
      ValueError: shapes that do not fit, or alpha not above -1.
    """
    check_history(history)
    add = lambda sums, kept: (update_sums(sums, *kept, alpha=alpha), None)  # noqa: E731
    _, clients, parameters = history.updates.shape
    empty = init_sums(clients, parameters, history.updates.dtype)
    return jax.lax.scan(add, empty, (history.weights, history.updates))[0]


@declare(
    helpers=SERVER,
    reads=("model", "sums"),
    requests=(CLIENT, CLASS),
    exact="alpha = 0 and updates that do not depend on the model; one client, or the same weights in all rounds",
    source="ours, as a baseline",
)
def running_sums(model: Array, sums: Sums, leavers: Array) -> Erased:
    """Erasure from running sums: what `fast_fedul` makes of the whole history, from one vector per client.

    One client leaves exactly whatever the weights were, and who took part when: w' = w_T + C_u. Several leave exactly if
    the weights p were the same in all rounds, by w' = w_T + sum_u C_u (1 - p_u) leavers[u] / (1 - sum_u p_u leavers[u]).

    At alpha = 0 the result for one whole client, whose weights are at most .999 where it was not alone, is that of
    `fast_fedul` bit for bit: both take s, s - h_u, weights[u] times it and the quotient, add those up in the order of
    rounds, and add the model last. Otherwise they agree up to rounding. To undo an erasure, keep the model and the sums
    from before.

    Args:
      model: [parameters], w_T.
      sums: of the training that led to it; after an erasure see `sums_without`.
      leavers: [clients] bool, or the share of each client's examples that goes; see `fast_fedul`.

    Raises:
      ValueError: a model of another size, everybody leaves, or several leave whose weights changed.

    Example:
      >>> sums = update_sums(init_sums(2, 1), jnp.full(2, 0.5), jnp.array([[1.0], [3.0]]))
      >>> print(running_sums(jnp.array([2.0]), sums, jnp.array([True, False])).model)
      [3.]
    """
    check_model(model, sums.totals.shape[1])
    leavers = _checked(sums, leavers)
    nothing = jnp.zeros((), jnp.int32)
    return Erased(model + _moved(sums, leavers), nothing, nothing)


def sums_without(sums: Sums, leavers: Array) -> Sums:
    """The sums of the training without the leavers, from which others may leave and with which it may go on.

    C'_u = (what takes the leavers and u out) - (what takes the leavers out), in weights that were the same in all rounds.

    Raises:
      ValueError: weights changed between rounds, or fewer than two clients would be left.
    """
    if not isinstance(sums.fixed, jax.core.Tracer) and not sums.fixed:
        raise ValueError("weights changed between rounds: sums cannot go on without a client; keep a history")
    leavers = _checked(sums, leavers)
    stay = (leavers < 1) & (sums.weights > 0)
    if not isinstance(stay, jax.core.Tracer) and sums.rounds > 0 and np.count_nonzero(stay) == 1:
        raise ValueError("one client would be left, and these sums could never take it out: keep a history")
    parts = (1 - sums.weights)[:, None] * sums.totals
    both = leavers @ parts + (1 - leavers)[:, None] * parts
    rest = 1 - leavers @ sums.weights - (1 - leavers) * sums.weights
    others = both / rest[:, None] - _moved(sums, leavers)
    totals = jnp.where((leavers == 1)[:, None], 0, others)
    return sums._replace(totals=totals, weights=remaining(sums.weights[None], leavers)[0])


def _moved(sums: Sums, leavers: Array) -> Array:
    """What takes the leavers out of the model, [parameters]."""
    # Of one whole client its total is taken as it is: its last weight may not be that of the other rounds.
    single = (jnp.sum(leavers > 0) == 1) & jnp.any(leavers == 1)
    share = jnp.where(single, 1, 1 - leavers @ sums.weights)
    parts = (leavers * (1 - sums.weights)) @ sums.totals / share
    moved: Array = jnp.where(single, leavers @ sums.totals, parts)
    return moved


def _checked(sums: Sums, leavers: Array) -> Array:
    """The leavers' shares, refused where these sums cannot take them out."""
    shares = leaving(leavers, len(sums.weights)).astype(sums.totals.dtype)
    if isinstance(shares, jax.core.Tracer) or isinstance(sums.fixed, jax.core.Tracer):
        return shares
    several = np.count_nonzero(shares) > 1 or np.any((shares > 0) & (shares < 1))
    if several and not sums.fixed:
        raise ValueError(
            "weights changed between rounds: sums take out one whole client; for several, or a class, keep a history"
        )
    if sums.fixed and sums.rounds > 0 and not np.any((shares < 1) & (sums.weights > 0)):
        raise ValueError("all clients that are left leave: nobody would be left to have a model of; start anew")
    return shares


def stored_bytes(store: Any) -> int:
    """The bytes of all arrays of a store, a history or a message; of `jax.eval_shape`'s promises of them, too.

    Example:
      >>> stored_bytes(History(jnp.zeros(10), jnp.zeros((5, 3, 10)), jnp.zeros((5, 3))))
      700
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(store))
