"""Rounds of federated training: clients train side by side in one program, the server adds up their updates; after fedjax.

Draws are folded from a client's id, a round and an example's id, never from positions: without one client, or with another
padding, the others draw as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from federated.history import Array, History
from unlearn.base import Batch, Model, Params, mean_loss
from unlearn.checking import check_keys

WEIGHTINGS = ("examples", "equal")

Loss = Callable[[Params, Batch, Array], Array]  # (params, batch, key) -> scalar
ClientUpdate = Callable[[Params, Batch, Array], Params]  # (params, data, key) -> update
# (model [parameters], memory, updates [clients, parameters], examples [clients], present [clients] bool, ids, round)
# -> (the next model, memory, Round)
ServerUpdate = Callable[[Array, Any, Array, Array, Array, Array, Array], tuple[Array, Any, "Round"]]


class Clients(NamedTuple):
    """The data of all clients, padded to one number of examples.

    ids: [clients] int, what each client is called for ever.
    data: x, y, id and weight as of a `Batch`, [clients, examples, ...]; weight 0 pads.
    """

    ids: Array
    data: Batch


class Compressor(NamedTuple):
    """What a server does to updates as they arrive; `federated.archive` has one, `keep_updates` keeps them as they are.

    init: (clients, parameters) -> memory.
    encode: (memory, updates [clients, parameters], weights [clients], ids [clients], round) -> (memory, codes).
    decode: (memory, codes, ids, round) -> (memory, updates); from the same memory, to the same memory as `encode`.
    """

    init: Callable[[int, int], Any]
    encode: Callable[[Any, Array, Array, Array, Array], tuple[Any, Any]]
    decode: Callable[[Any, Any, Array, Array], tuple[Any, Array]]


keep_updates = Compressor(
    lambda clients, parameters: (),
    lambda memory, updates, weights, ids, round: (memory, updates),
    lambda memory, codes, ids, round: (memory, codes),
)


class FederatedState(NamedTuple):
    """What a server carries from one round to the next: the model, the number of rounds done, the compressor's memory."""

    params: Params
    round: Array
    memory: Any


class Round(NamedTuple):
    """What a server keeps of a round: what the compressor made of updates, and the weights [clients] they entered with."""

    updates: Any
    weights: Array


class FederatedAlgorithm(NamedTuple):
    """A federated algorithm: a pair of pure functions, after fedjax.

    init: (params, clients) -> FederatedState.
    apply: (state, clients, present [clients] bool, key) -> (FederatedState, Round). The key is that of the whole training:
      the round is folded in, so that a training that goes on equals one that never stopped.
    """

    init: Callable[[Params, Clients], FederatedState]
    apply: Callable[[FederatedState, Clients, Array, Array], tuple[FederatedState, Round]]


# --- Clients ----------------------------------------------------------------------------------------------------------


def stack_clients(ids: Sequence[int], batches: Sequence[Batch]) -> Clients:
    """Clients from a batch each: padded with weight 0 to as many examples as the largest has.

    Raises:
      ValueError: another number of ids than of batches, none at all, or an id given twice.

    Example:
      >>> one, two = dict(x=np.ones((1, 2)), weight=np.ones(1)), dict(x=np.ones((3, 2)), weight=np.ones(3))
      >>> stack_clients([7, 8], [one, two]).data["weight"].tolist()
      [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    if not ids or len(ids) != len(batches):
        raise ValueError(f"{len(ids)} ids for {len(batches)} clients: give one id for each, and at least one client")
    if len(set(ids)) < len(ids):
        raise ValueError("two clients have one id: give each its own")
    for batch in batches:
        check_keys(batch, "a client's", ("weight",))
    size = max(len(batch["weight"]) for batch in batches)
    pad = lambda leaf: np.pad(leaf, [(0, size - len(leaf))] + [(0, 0)] * (np.ndim(leaf) - 1))  # noqa: E731
    data = jax.tree.map(lambda *leaves: jnp.asarray(np.stack([pad(np.asarray(leaf)) for leaf in leaves])), *batches)
    return Clients(jnp.asarray(np.asarray(ids)), data)


def client_update(
    loss: Model | Loss, optimizer: optax.GradientTransformation, *, epochs: int = 1, batch_size: int | None = None
) -> ClientUpdate:
    """What a client does in a round, as a pure function `(params, data, key) -> update`.

    h = w' - w, with w' after `epochs` passes of the optimiser over the client's data, from a fresh state of the optimiser.
    An epoch's order is drawn per example from its id. Batches of padding alone change nothing.

    Args:
      loss: a `Model`, of which the weighted mean loss of a batch is descended, or (params, batch, key) -> scalar.
      optimizer: any optax transformation.
      epochs: passes over the client's data; with `batch_size=None`, steps on all of it.
      batch_size: examples in a step; None for all of them.

    Raises:
      ValueError: fewer than one epoch or example in a step; from the function, data without weight or, with a batch size,
        without id.
    """
    if epochs < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"{epochs} epochs in batches of {batch_size}: give at least one of each")
    gradient_of = jax.grad(_scalar(loss))

    def update(params: Params, data: Batch, key: Array) -> Params:
        check_keys(data, "a client's", ("weight",) if batch_size is None else ("id", "weight"))
        order_key, steps_key = jax.random.split(key)
        size = len(data["weight"])
        if batch_size is None:
            rows = jnp.broadcast_to(jnp.arange(size), (epochs, 1, size))
        else:
            data = jax.tree.map(lambda leaf: _pad(leaf, -size % batch_size), data)
            orders = [_order(data, jax.random.fold_in(order_key, epoch)) for epoch in range(epochs)]
            rows = jnp.stack(orders).reshape(epochs, -1, batch_size)

        def step(carry: tuple[Params, Any], scheduled: tuple[Array, Array]) -> tuple[tuple[Params, Any], None]:
            chosen, step_key = scheduled
            batch = jax.tree.map(lambda leaf: leaf[chosen], data)
            gradient = gradient_of(carry[0], batch, step_key)
            change, opt_state = optimizer.update(gradient, carry[1], carry[0])
            after = optax.apply_updates(carry[0], change), opt_state
            real = jnp.any(batch["weight"] > 0)
            return jax.tree.map(lambda new, old: jnp.where(real, new, old), after, carry), None

        # Of a step, its epoch and its place there: batches of padding at an epoch's end change no later key.
        of_place = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        keys = jax.vmap(of_place, in_axes=(0, None))(of_place(steps_key, jnp.arange(epochs)), jnp.arange(rows.shape[1]))
        steps = rows.reshape(-1, rows.shape[2]), keys.reshape(-1)
        (trained, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), steps)
        return jax.tree.map(lambda new, old: new - old, trained, params)

    return update


def _scalar(loss: Model | Loss) -> Loss:
    if isinstance(loss, Model):
        model = loss
        return lambda params, batch, key: mean_loss(model, params, batch, key)
    return loss


def _pad(leaf: Array, more: int) -> Array:
    return jnp.pad(leaf, [(0, more)] + [(0, 0)] * (jnp.ndim(leaf) - 1))


def _order(data: Batch, key: Array) -> Array:
    """The examples' places in an epoch's order: those that count first, in the order of a draw from their ids."""
    draws = jax.vmap(lambda entry: jax.random.bits(jax.random.fold_in(key, entry)))(data["id"])
    return jnp.lexsort((draws, data["weight"] <= 0))


# --- The server -------------------------------------------------------------------------------------------------------


def fedavg(
    loss: Model | Loss,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int = 1,
    batch_size: int | None = None,
    weighting: str = "examples",
    compressor: Compressor = keep_updates,
) -> FederatedAlgorithm:
    """Federated averaging: w_{t+1} = w_t + sum_u p_u h_u over the clients u that are present.

    The model always gets the updates themselves; only what is kept of them goes through the compressor.

    Args:
      loss, optimizer, epochs, batch_size: what a client does; see `client_update`.
      weighting: "examples", p_u in proportion to the weights of u's examples; "equal", 1 / (number of present clients).
      compressor: what the server makes of the updates it keeps.

    Raises:
      ValueError: an unknown weighting; see also `client_update`.

    Reference:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 1602.05629.

    Example:
      >>> loss = lambda params, batch, key: jnp.mean((params - batch["x"]) ** 2) / 2
      >>> clients = stack_clients([0, 1], [dict(x=np.zeros(1), weight=np.ones(1)), dict(x=np.ones(1), weight=np.ones(1))])
      >>> algorithm, everybody = fedavg(loss, optax.sgd(1.0)), jnp.ones((1, 2), bool)
      >>> state = algorithm.init(jnp.zeros(1), clients)
      >>> state, history = train(algorithm, state, clients, everybody, jax.random.key(0))
      >>> print(state.params, history.updates.ravel())
      [0.5] [0. 1.]
    """
    client = client_update(loss, optimizer, epochs=epochs, batch_size=batch_size)
    server = server_update(weighting, compressor)

    def init(params: Params, clients: Clients) -> FederatedState:
        memory = compressor.init(len(clients.ids), ravel_pytree(params)[0].size)
        return FederatedState(params, jnp.zeros((), jnp.int32), memory)

    def apply(state: FederatedState, clients: Clients, present: Array, key: Array) -> tuple[FederatedState, Round]:
        flat, unravel = ravel_pytree(state.params)
        keys = jax.vmap(client_key, in_axes=(None, None, 0))(key, state.round, clients.ids)
        trees = jax.vmap(client, in_axes=(None, 0, 0))(state.params, clients.data, keys)
        updates = jax.vmap(lambda entry: ravel_pytree(entry)[0])(trees)
        examples = jnp.sum(clients.data["weight"], axis=1)
        model, memory, kept = server(flat, state.memory, updates, examples, present, clients.ids, state.round)
        return FederatedState(unravel(model), state.round + 1, memory), kept

    return FederatedAlgorithm(init, apply)


def fedsgd(
    loss: Model | Loss, learning_rate: float, *, weighting: str = "examples", compressor: Compressor = keep_updates
) -> FederatedAlgorithm:
    """Federated gradient descent: every present client sends h_u = -learning_rate * gradient of its loss at w_t.

    Its arguments and errors are those of `fedavg`, of which it is the case of one step on all data.
    """
    return fedavg(loss, optax.sgd(learning_rate), weighting=weighting, compressor=compressor)


def client_key(key: Array, round: Array | int, id: Array | int) -> Array:
    """The key of a client in a round, from that of the whole training."""
    return jax.random.fold_in(jax.random.fold_in(key, round), id)


def server_update(weighting: str = "examples", compressor: Compressor = keep_updates) -> ServerUpdate:
    """What a server does in a round once updates are there, w + sum_u p_u h_u, as a pure function; see `ServerUpdate`.

    `fedavg` is this beside `client_update`; an engine that has its clients elsewhere calls it alone.

    Raises:
      ValueError: an unknown weighting.

    Example:
      >>> updates, examples, ids = jnp.array([[1.0], [5.0]]), jnp.array([3.0, 1.0]), jnp.arange(2)
      >>> print(server_update()(jnp.zeros(1), (), updates, examples, ids >= 0, ids, jnp.asarray(0))[0])
      [2.]
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {weighting!r}: choose from {', '.join(WEIGHTINGS)}")

    def update(
        model: Array, memory: Any, updates: Array, examples: Array, present: Array, ids: Array, round: Array
    ) -> tuple[Array, Any, Round]:
        updates = jnp.where(present[:, None], updates, 0.0)
        weights = _weights(examples, present, weighting).astype(updates.dtype)
        memory, kept = compressor.encode(memory, updates, weights, ids, round)
        return model + weights @ updates, memory, Round(kept, weights)

    return update


def _weights(examples: Array, present: Array, weighting: str) -> Array:
    """[clients]: with what weight each enters a round; 0 for all if nobody came who has an example."""
    share = jnp.where(present, examples if weighting == "examples" else 1.0, 0.0)
    total = jnp.sum(share)
    return share / jnp.where(total > 0, total, 1.0)


def participation(key: Array, ids: Array, rounds: int, count: int) -> Array:
    """A plan: in each round `count` clients, drawn without replacement and alike, [rounds, clients] bool.

    Raises:
      ValueError: more clients asked for than there are, or fewer than one.

    Example:
      >>> print(participation(jax.random.key(0), jnp.arange(5), rounds=3, count=2).sum(axis=1))
      [2 2 2]
    """
    if not 1 <= count <= len(ids):
        raise ValueError(f"{count} of {len(ids)} clients cannot take part: give from 1 to {len(ids)}")

    def of_round(index: Array) -> Array:
        round_key = jax.random.fold_in(key, index)
        draws = jax.vmap(lambda entry: jax.random.bits(jax.random.fold_in(round_key, entry)))(jnp.asarray(ids))
        return jnp.argsort(jnp.argsort(draws)) < count

    return jax.vmap(of_round)(jnp.arange(rounds))


def train(
    algorithm: FederatedAlgorithm, state: FederatedState, clients: Clients, plan: Array, key: Array
) -> tuple[FederatedState, History]:
    """All rounds of a plan in one program.

    Args:
      algorithm: `fedavg`, `fedsgd` or one of yours.
      state: of `algorithm.init`, or where a training stopped.
      clients: their data.
      plan: [rounds, clients] bool, who takes part; see `participation`.
      key: of the whole training.

    Returns:
      The state after the last round, and the history of these rounds. With a compressor, `updates` are its codes, stacked
      over rounds: `decoded` makes updates of them.

    Raises:
      ValueError: a plan of another number of clients.
    """
    if jnp.ndim(plan) != 2 or jnp.shape(plan)[1] != len(clients.ids):
        raise ValueError(f"the plan is {jnp.shape(plan)} for {len(clients.ids)} clients: give [rounds, clients] bool")
    start = ravel_pytree(state.params)[0]
    state, rounds = jax.lax.scan(lambda carry, present: algorithm.apply(carry, clients, present, key), state, plan)
    return state, History(start, rounds.updates, rounds.weights)


def decoded(compressor: Compressor, history: History, ids: Array, first: int = 0) -> History:
    """The history with updates in the place of a compressor's codes.

    Args:
      compressor: the one that made them.
      history: of `train`, from the round `first` on, before which the compressor had seen nothing.
      ids: of its clients.
    """

    def of_round(memory: Any, coded: tuple[Array, Any]) -> tuple[Any, Array]:
        return compressor.decode(memory, coded[1], ids, coded[0])

    rounds, clients = history.weights.shape
    indices = first + jnp.arange(rounds, dtype=jnp.int32)
    memory = compressor.init(clients, history.start.size)
    return history._replace(updates=jax.lax.scan(of_round, memory, (indices, history.updates))[1])
