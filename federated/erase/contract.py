"""What erasures share: leavers and their weights, clients that answer, results, and what a method declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from federated.history import Array, History

# (params [parameters], client, key of the round) -> update [parameters]. The client is an index; clients that are to draw
# apart fold their ids into the key, as `asking` does.
AskClient = Callable[[Array, Array, Array], Array]
# (params [parameters], round, weights [clients]) -> the next round's params.
ServerStep = Callable[[Array, Array, Array], Array]

SERVER, REMAINING, LEAVER = "the server alone", "the remaining clients", "the leaver"
CLIENT, CLASS, EXAMPLES = "client", "class", "examples"
Function = TypeVar("Function", bound=Callable[..., Any])


class Erased(NamedTuple):
    """A model from which clients were taken, and what clients had to do for it.

    model: [parameters].
    rounds: in which a client was asked for an update.
    updates: that clients computed; each is a model sent down and an update sent up.
    """

    model: Array
    rounds: Array
    updates: Array


class Needs(NamedTuple):
    """What a method declares of itself.

    helpers: who must help.
    reads: the names of the arguments that the server must have kept for it; see the method.
    requests: what it can be asked to remove; see `federated.erase.requests`.
    exact: when it equals retraining up to rounding; "never" if it does not.
    source: the paper; "after" it where a part is ours.
    """

    helpers: str
    reads: tuple[str, ...]
    requests: tuple[str, ...]
    exact: str
    source: str


def declare(
    *, helpers: str, reads: tuple[str, ...], exact: str, source: str, requests: tuple[str, ...] = (CLIENT,)
) -> Callable[[Function], Function]:
    """Declare what a method needs; `needs_of` reads it."""

    def decorate(method: Function) -> Function:
        method.needs = Needs(helpers, reads, requests, exact, source)  # type: ignore[attr-defined]
        return method

    return decorate


def needs_of(method: Callable[..., Any]) -> Needs:
    """What a method of `METHODS` declares."""
    needs: Needs = method.needs  # type: ignore[attr-defined]
    return needs


# --- Leavers ----------------------------------------------------------------------------------------------------------


def leaving(leavers: Any, clients: int) -> Array:
    """Who leaves, as the share of each client's examples that goes, [clients]: 1 for a client that leaves whole.

    Args:
      leavers: [clients] bool, or shares from 0 to 1. May be traced.
      clients: how many there are.

    Raises:
      ValueError: another shape, indices in the place of booleans, shares out of range, or nobody would stay.
    """
    leavers = jnp.asarray(leavers)
    if leavers.shape != (clients,):
        raise ValueError(f"leavers has shape {leavers.shape}: give one bool for each of the {clients} clients")
    if leavers.dtype != bool and not jnp.issubdtype(leavers.dtype, jnp.floating):
        raise ValueError(f"leavers are {leavers.dtype}: give one bool for each client, or the share of its data that goes")
    if not isinstance(leavers, jax.core.Tracer):
        shares = np.asarray(leavers, np.float64)
        if not (np.all(shares >= 0) and np.all(shares <= 1)):
            raise ValueError("leavers hold shares out of range: give numbers from 0 to 1")
        if np.all(shares == 1):
            raise ValueError("all clients leave: nobody would be left to have a model of; start anew")
    shares_of: Array = leavers if leavers.dtype != bool else leavers.astype(float)
    return shares_of


def leaving_whole(leavers: Array, clients: int) -> Array:
    """As `leaving`, of methods that a client can only leave whole.

    Raises:
      ValueError: as of `leaving`, or shares in the place of booleans.
    """
    if jnp.asarray(leavers).dtype != bool:
        raise ValueError("leavers are no booleans: by this method a client leaves whole; for shares choose rollback")
    return leaving(leavers, clients)


def remaining(weights: Array, leavers: Array) -> Array:
    """The weights of a training without the leavers, [rounds, clients]; of whole clients it is `without`.

    weights[t, u] (1 - leavers[u]) / their sum over u. A share lowers a client's weight as fewer examples would. Rounds
    without a leaver keep their weights to the last bit.
    """
    touched = jnp.any((weights > 0) & (leavers > 0), axis=1, keepdims=True)
    return jnp.where(touched, normalised(weights * (1 - leavers)), weights)


def normalised(weights: Array) -> Array:
    """Weights of which each round's sum to 1, or to 0 if nobody is there."""
    total = weights.sum(axis=1, keepdims=True)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 0)


# --- What is given ----------------------------------------------------------------------------------------------------


def check_history(history: History) -> None:
    """Refuse a history whose arrays do not fit.

    Raises:
      ValueError: shapes that differ from those of `History`.
    """
    shapes = [jnp.shape(leaf) for leaf in history]
    start, updates, weights = shapes
    if len(start) != 1 or len(updates) != 3 or updates != (*weights, *start):
        raise ValueError(
            f"start is {start}, updates {updates} and weights {weights}: give [parameters], "
            "[rounds, clients, parameters] and [rounds, clients]"
        )


def check_model(model: Array, parameters: int) -> None:
    """Refuse a model of another size.

    Raises:
      ValueError: not a vector of so many parameters.
    """
    if jnp.shape(model) != (parameters,):
        raise ValueError(f"model has shape {jnp.shape(model)}: ravel it to the {parameters} parameters of the history")


def check_checkpoints(checkpoints: Array, rounds: int) -> None:
    """Refuse checkpoints that are not those of all rounds.

    Raises:
      ValueError: another number than one more than rounds.
    """
    if jnp.ndim(checkpoints) != 2 or len(checkpoints) != rounds + 1:
        raise ValueError(
            f"checkpoints have shape {jnp.shape(checkpoints)}: give the server's models before, between and after the "
            f"{rounds} rounds, [{rounds + 1}, parameters]"
        )


def check_count(value: int, name: str, least: int = 1) -> None:
    """Refuse a number of rounds, clients or pairs that is no whole number or too small.

    Raises:
      ValueError: one line that says what to give.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value}: give a whole number of {least} or more")


# --- Clients ----------------------------------------------------------------------------------------------------------


def asking(update: Callable[[Any, Any, Array], Any], data: Any, ids: Array, unravel: Callable[[Array], Any]) -> AskClient:
    """What a client answers, by its index, from an update on parameters and data as they are for training.

    The client's id is folded into the key of the round. With the key of a training it draws as it did there.

    Args:
      update: (params, the client's data, key) -> update, a pytree like params.
      data: of all clients, [clients, ...] in every leaf.
      ids: [clients] int, stable.
      unravel: [parameters] -> params, of `jax.flatten_util.ravel_pytree`.

    Example:
      >>> answer = asking(lambda params, x, key: x - params, jnp.array([[1.0], [3.0]]), jnp.arange(2), lambda flat: flat)
      >>> print(answer(jnp.ones(1), 1, jax.random.key(0)))
      [2.]
    """

    def answer(params: Array, client: Array, key: Array) -> Array:
        own = jax.tree.map(lambda leaf: leaf[client], data)
        flat: Array = ravel_pytree(update(unravel(params), own, jax.random.fold_in(key, ids[client])))[0]
        return flat

    return answer


def ask(update: AskClient, params: Array, weights: Array, key: Array) -> Array:
    """What clients answer in a round, [clients, parameters]; 0 for those of weight 0."""
    clients = weights.shape[0]
    answers = jax.vmap(update, in_axes=(None, 0, None))(params, jnp.arange(clients), key)
    return jnp.where(weights[:, None] > 0, answers, 0)


def averaging(update: AskClient, key: Array) -> ServerStep:
    """The round of federated averaging that a client's update makes: params + weights @ updates.

    Args:
      update: (params, client, key) -> update.
      key: of the whole training; the round is folded in.
    """

    def advance(params: Array, index: Array, weights: Array) -> Array:
        stepped: Array = params + weights @ ask(update, params, weights, jax.random.fold_in(key, index))
        return stepped

    return advance
