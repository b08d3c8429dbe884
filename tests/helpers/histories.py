"""Small federations for erasures: clients that pull a model towards centres of their own, trained round by round."""

import jax.numpy as jnp
import numpy as np

from federated import History


def random_weights(rounds, clients, seed=0, present=0.6):
    """Weights of partial participation, [rounds, clients]: random shares of those who came; the first two always come."""
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0.5, 2.0, (rounds, clients)) * (rng.random((rounds, clients)) < present)
    raw[:, :2] = rng.uniform(0.5, 2.0, (rounds, 2))
    return raw / raw.sum(axis=1, keepdims=True)


def random_history(rounds=5, clients=4, parameters=3, weights=None, seed=0):
    """Updates that do not depend on any model."""
    rng = np.random.default_rng(seed)
    weights = random_weights(rounds, clients, seed) if weights is None else weights
    updates = rng.normal(size=(rounds, clients, parameters)) * (weights[:, :, None] > 0)
    return History(*(jnp.asarray(value) for value in (rng.normal(size=parameters), updates, weights)))


def pulls(clients, parameters, curvatures, seed=3):
    """A client update h_u(w) = -c_u (w - centre_u): one step of gradient descent on a quadratic."""
    centres = jnp.asarray(np.random.default_rng(seed).normal(size=(clients, parameters)))
    curvatures = jnp.asarray(curvatures)
    return lambda params, client, key: -curvatures[client] * (params - centres[client])


def trained(update, weights, parameters, key):
    """A slow training, client by client: its history and the server's models."""
    params, all_updates, checkpoints = np.ones(parameters), [], [np.ones(parameters)]
    for row in np.asarray(weights):
        answers = [np.asarray(update(jnp.asarray(params), client, key)) * (w > 0) for client, w in enumerate(row)]
        params = params + sum(w * answer for w, answer in zip(row, answers, strict=True))
        all_updates.append(answers)
        checkpoints.append(params)
    history = History(jnp.ones(parameters), jnp.asarray(np.array(all_updates)), jnp.asarray(weights))
    return history, jnp.asarray(np.array(checkpoints))
