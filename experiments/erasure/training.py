"""A federation trained, with all that a server can have kept of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from experiments.erasure.problem import Problem, Setup
from federated import Clients, History, client_update, fedavg
from federated.erase import asking
from federated.erase.contract import AskClient
from federated.history import Array
from federated.rounds import ClientUpdate, FederatedState


class Trained(NamedTuple):
    """A federation after training.

    setup: it was made of.
    model: [parameters], as it is served.
    history: of all updates, uncompressed.
    checkpoints: [rounds + 1, parameters].
    leavers: [clients] of the setup.
    """

    setup: Setup
    model: Array
    history: History
    checkpoints: Array
    leavers: Array


def train(problem: Problem, setup: Setup) -> Trained:
    """All rounds of a federation in one program."""
    fed = problem.config.federation
    algorithm = fedavg(
        problem.model,
        optax.sgd(fed.learning_rate),
        epochs=fed.epochs,
        batch_size=fed.batch_size,
        weighting=fed.weighting,
    )
    clients = Clients(setup.ids, setup.data)

    def advance(state: FederatedState, present: Array) -> tuple[FederatedState, tuple[Array, Array, Array]]:
        before = ravel_pytree(state.params)[0]
        state, kept = algorithm.apply(state, clients, present, setup.key)
        return state, (before, kept.updates, kept.weights)

    begun = algorithm.init(problem.unravel(setup.start), clients)
    ended, (before, updates, weights) = jax.lax.scan(advance, begun, setup.plan)
    model = ravel_pytree(ended.params)[0]
    history = History(setup.start, updates, weights)
    return Trained(setup, model, history, jnp.concatenate([before, model[None]]), setup.leavers)


def local(problem: Problem, epochs: int | None = None) -> ClientUpdate:
    """What a client does in a round, with another number of epochs if one is given."""
    fed = problem.config.federation
    return client_update(
        problem.model, optax.sgd(fed.learning_rate), epochs=epochs or fed.epochs, batch_size=fed.batch_size
    )


def asked(problem: Problem, setup: Setup, update: ClientUpdate) -> AskClient:
    """What the clients of a federation answer after the request: they train without what went."""
    left = {**setup.data, "weight": jnp.where(setup.going, 0, setup.data["weight"])}
    return asking(update, left, setup.ids, problem.unravel)
