"""A federation that fits on a screen: a task whose arithmetic is exact in float32, its users, and the same in one program.

Data are quarters, rates and shares powers of two, and there are few steps: every sum is exact, so that the order of
operations, which differs between programs, cannot show.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.federated import archives
from experiments.federated.engine import task as tasks
from federated import fedavg, stack_clients, train
from federated.archive import Scheme

USERS, SIZE, SEED = ["ann", "7", "carol", "dave"], 6, 3
SCHEME = Scheme("hexagonal", rate=3.0, scale="max")


def loss(params, batch, key):
    """Half the squared distance to examples of which a client's key drops entries."""
    kept = batch["x"] * jax.random.bernoulli(key, 0.5, batch["x"].shape)
    squares = jnp.sum((params["w"] - kept) ** 2, axis=1) / 2
    return jnp.sum(batch["weight"] * squares) / jnp.sum(batch["weight"])


def load_data(user):
    generator = np.random.default_rng([*user.encode()])
    x = generator.integers(-7, 8, (4, SIZE)).astype(np.float32) / 4
    return dict(x=x, id=np.arange(4), weight=np.ones(4, np.float32))


TASK = tasks.Task(loss, lambda key: {"w": jnp.zeros(SIZE)}, load_data, optax.sgd(0.25), batch_size=2)


def in_one_program(task, users, scheme, rounds, seed=SEED):
    """The state and the history of codes of the same training by `federated.train`."""
    start = tasks.initial(task, seed)
    keeper = archives.archive(scheme, start.size, jax.random.key(seed, impl=archives.IMPL))
    clients = stack_clients(archives.numbers(users).tolist(), [task.load_data(user) for user in users])
    step = dict(epochs=task.epochs, batch_size=task.batch_size)
    algorithm = fedavg(task.model, task.optimizer, compressor=keeper, **step)
    state = algorithm.init(tasks.unravel(task, start), clients)
    everybody = jnp.ones((rounds, len(users)), bool)
    return jax.jit(train, static_argnums=0)(algorithm, state, clients, everybody, tasks.training_key(seed))
