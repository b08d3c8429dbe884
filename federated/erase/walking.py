"""Erasure without a server: a token with the model walks over a graph of clients, with noise where the leaver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from federated.erase.contract import CLIENT, EXAMPLES, LEAVER, REMAINING, check_count, declare
from federated.history import Array
from unlearn.checking import check_number

# (params [parameters], client, key) -> gradient [parameters] of the client's loss.
Gradient = Callable[[Array, Array, Array], Array]


class Walked(NamedTuple):
    """Where a walk ended.

    model: [parameters].
    client: that holds the token.
    visits: [clients], how often each held it.
    """

    model: Array
    client: Array
    visits: Array


def noise_scale(
    lipschitz: float, epsilon: float, delta: float, *, steps: int, clients: int, jump: float, constant: float = 1.0
) -> float:
    """The noise sigma = constant (L / epsilon) sqrt(jump steps ln(1 / delta) ln N / N), as far as the abstract gives it.

    The paper's statement is of an order, and its constant is not public, nor what it asks of step size, ball and graph. The
    p of its formula is read as the probability of a jump. So no value of this function is a certificate; it says how sigma
    scales, and that it does not depend on how many examples are deleted.

    Args:
      lipschitz: a bound on the gradient's norm.
      epsilon, delta: of the unlearning guarantee.
      steps: of the walk.
      clients: N, at least 2.
      jump: the probability of a jump to the leaver; 1 / N in the paper.
      constant: what is not known.

    Raises:
      ValueError: a number out of range.

    Example:
      >>> print(f"{noise_scale(1.0, 1.0, 1e-5, steps=100, clients=10, jump=0.1):.3f}")
      5.149
    """
    for name, value, most in (
        ("lipschitz", lipschitz, np.inf),
        ("epsilon", epsilon, np.inf),
        ("delta", delta, 1.0),
        ("jump", jump, 1.0),
        ("constant", constant, np.inf),
    ):
        check_number(value, name, above=True, most=most)
    check_count(steps, "steps")
    check_count(clients, "clients", least=2)
    return float(constant * lipschitz / epsilon * np.sqrt(jump * steps * np.log(1 / delta) * np.log(clients) / clients))


@declare(
    helpers=f"{LEAVER}, and {REMAINING} that hold the token",
    reads=("model",),
    requests=(CLIENT, EXAMPLES),
    exact="never; (epsilon, delta) by noise whose constant is not public",
    source="after RR-DU, 2512.08443",
)
def rr_du(
    model: Array,
    graph: Array,
    leaver: int | Array,
    forget: Gradient,
    retain: Gradient,
    key: Array,
    *,
    steps: int = 100,
    rate: float | Array = 0.005,
    sigma: float,
    radius: float,
    jump: float | None = None,
) -> Walked:
    """After RR-DU: a random walk with restarts; at the leaver projected noisy ascent, elsewhere plain descent.

    From step to step the token jumps to the leaver with probability `jump`, else it goes to a neighbour by the graph. There

        params <- ball(params + rate (forget + N(0, sigma^2 I))),

    elsewhere params <- params - rate retain. `forget` is the direction that unlearns: (m / n) times the gradient of the
    loss on the m of n examples to be deleted ("light"), or minus the gradient on what the leaver retains ("exact"). The
    walk starts at the leaver. Ours: the ball's centre (the model that was given), plain steps where the paper has Adam.

    Args:
      model: [parameters], where the token starts.
      graph: [clients, clients], probabilities of going from one to another; rows sum to 1.
      leaver: an index.
      forget: (params, client, key) -> direction, at the leaver.
      retain: (params, client, key) -> gradient, at the others.
      key: of the walk and its noise.
      steps: of the walk.
      rate: the step size; .005 in the paper, of Adam.
      sigma: of the noise; see `noise_scale`.
      radius: of the ball.
      jump: 1 / clients by default.

    Raises:
      ValueError: a graph whose rows are no probabilities, or numbers out of range.

    Reference:
      RR-DU, Decentralised Unlearning by a Random Walk with Restarts, CVPR 2026 (2512.08443); abstract and notes alone.
    """
    graph = jnp.asarray(graph)
    _check_graph(graph)
    clients = len(graph)
    jump = 1 / clients if jump is None else jump
    _check_walk(clients, leaver, steps, rate, sigma, radius, jump)
    leaver = jnp.asarray(leaver)

    def advance(carry: tuple[Array, Array, Array], index: Array) -> tuple[tuple[Array, Array, Array], None]:
        params, client, visits = carry
        restart_key, walk_key, noise_key, client_key = jax.random.split(jax.random.fold_in(key, index), 4)

        def unlearn() -> Array:
            noise = sigma * jax.random.normal(noise_key, model.shape, model.dtype)
            moved = params + rate * (forget(params, client, client_key) + noise) - model
            length = jnp.linalg.norm(moved)
            return model + moved * jnp.minimum(1, radius / jnp.where(length > 0, length, 1))

        def learn() -> Array:
            return params - rate * retain(params, client, client_key)

        stepped = jax.lax.cond(client == leaver, unlearn, learn)
        neighbour = jax.random.choice(walk_key, clients, p=graph[client])
        after = jnp.where(jax.random.uniform(restart_key) < jump, leaver, neighbour)
        return (stepped, after, visits.at[client].add(1)), None

    start = (model, leaver, jnp.zeros(clients, jnp.int32))
    (params, client, visits), _ = jax.lax.scan(advance, start, jnp.arange(steps))
    return Walked(params, client, visits)


def _check_walk(
    clients: int, leaver: int | Array, steps: int, rate: float | Array, sigma: float, radius: float, jump: float
) -> None:
    check_count(steps, "steps")
    check_number(rate, "rate", above=True)
    check_number(sigma, "sigma")
    check_number(radius, "radius", above=True)
    check_number(jump, "jump", most=1.0)
    if isinstance(leaver, int | np.integer) and not 0 <= leaver < clients:
        raise ValueError(f"leaver is {leaver}: give a client of the graph, from 0 to {clients - 1}")


def _check_graph(graph: Array) -> None:
    if jnp.ndim(graph) != 2 or graph.shape[0] != graph.shape[1]:
        raise ValueError(f"the graph has shape {jnp.shape(graph)}: give [clients, clients]")
    if not isinstance(graph, jax.core.Tracer):
        rows = np.asarray(graph, np.float64)
        if np.any(rows < 0) or not np.allclose(rows.sum(axis=1), 1, atol=1e-5):
            raise ValueError("the graph's rows are no probabilities: each row should have no negative entry and sum to 1")
