"""Rounds of federated training a second: all clients in one program beside Flower's Grid within one process.

    python -m experiments.benchmarks.federated_rounds [--clients 100] [--rounds 100]

Clients have 17 digits each and an MLP 64-32-10, and take one step on all of them in a round; both sides call the same
functions and give the same model. Prints rounds a second, compilation aside, once without an archive and once with one on
disk (hexagonal, 2 bits), and how far the two models are apart. Flower's side needs the extra `federated`.
"""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

from experiments.benchmarks import smoke
from experiments.core.machines import environment
from experiments.federated import archives, store
from experiments.federated.engine import rounds, serving
from experiments.federated.engine import task as tasks
from experiments.federated.engine.task import Task
from federated import Clients, fedavg, stack_clients, train
from federated.archive import Scheme
from unlearn import classifier

EXAMPLES, HIDDEN, SEED = 17, 32, 0
SCHEME = Scheme("hexagonal", rate=2.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=100)
    args = smoke.parse(parser, clients=3, rounds=2)
    if args.clients < 1 or args.rounds < 2:
        parser.error("give at least one client and two rounds: the first one compiles")
    folder, task = Path(smoke.folder()), digits()
    users = [f"user {client}" for client in range(args.clients)]
    size = tasks.initial(task, SEED).size
    print(f"jax {jax.__version__}: {args.clients} clients, {args.rounds} rounds, {size} parameters")
    for archived in (False, True):
        what = "with an archive on disk" if archived else "without an archive"
        one, expected = in_one_program(task, users, args.rounds, folder / "program" if archived else None)
        print(f"{what}: {one:.2f} rounds a second in one program", flush=True)
        grid, model = by_flower(task, users, args.rounds, folder / f"flower {archived}", archived)
        apart = np.abs(model - expected).max()
        print(f"{what}: {grid:.2f} by Flower, {one / grid:.1f} times slower; models {apart:.0e} apart", flush=True)
    with store.open_store(folder / "flower True") as opened:
        sizes = opened.sizes()
    bits = 8 * sizes["users"] / (args.rounds * args.clients * size)
    print(f"archive: {sizes['users']:,} bytes of updates, {bits:.2f} bits an entry")


@functools.cache
def digits() -> Task:
    """The task of all clients; a user's number chooses the images."""
    images, labels = load_digits(return_X_y=True)

    def load_data(user: str) -> dict[str, Any]:
        rows = np.arange(EXAMPLES) + EXAMPLES * int(user.split()[1])
        rows = rows % len(labels)
        x = (images[rows] / 16).astype(np.float32)
        return {"x": x, "y": labels[rows], "id": rows, "weight": np.ones(EXAMPLES, np.float32)}

    def init(key: jax.Array) -> Any:
        return {"w": jax.random.normal(key, (64, HIDDEN)) / 8, "v": jnp.zeros((HIDDEN, 10))}

    model = classifier(lambda params, x, key: jnp.tanh(x @ params["w"]) @ params["v"])
    return Task(model, init, load_data, optax.sgd(0.5))


def in_one_program(task: Task, users: list[str], count: int, folder: Path | None) -> tuple[float, np.ndarray]:
    """Rounds a second, and the model; with a folder, the archive's bytes are made and written, too."""
    start = tasks.initial(task, SEED)
    clients = stack_clients(archives.numbers(users).tolist(), [task.load_data(user) for user in users])
    opened = archives.create(folder, SCHEME, SEED, start) if folder else None
    chosen = {"compressor": archives.compressor(opened)} if opened else {}
    algorithm = fedavg(task.model, task.optimizer, **chosen)  # type: ignore[arg-type]
    state, plan = algorithm.init(tasks.unravel(task, start), clients), jnp.ones((count, len(users)), bool)

    def program(state: Any, clients: Clients, plan: Any) -> Any:
        after, history = train(algorithm, state, clients, plan, tasks.training_key(SEED))
        return after.params, history if opened else history.weights  # updates that nobody keeps are not made

    compiled = jax.jit(program).lower(state, clients, plan).compile()
    with environment.stopwatch() as stopwatch:
        params, history = jax.block_until_ready(compiled(state, clients, plan))
        if opened:
            archives.add_history(opened, history, users)
    return count / stopwatch(), np.asarray(ravel_pytree(params)[0])


def by_flower(task: Task, users: list[str], count: int, folder: Path, archived: bool) -> tuple[float, np.ndarray]:
    """Rounds a second, and the model, of Flower's Strategy, Grid and ClientApp within this process."""
    try:
        from experiments.federated.engine.flower.client import client_app
        from experiments.federated.engine.flower.grid import InProcessGrid
        from experiments.federated.engine.flower.strategy import ArchivingStrategy, train
    except ImportError as error:
        raise SystemExit("federated_rounds needs flwr: pip install 'forethought[federated]'") from error
    logging.getLogger("flwr").setLevel(logging.WARNING)
    grid = InProcessGrid(client_app(task), dict(enumerate(users, start=1)))
    quiet: Callable[[str], None] = lambda line: None  # noqa: E731
    with serving.create(folder, SCHEME, SEED, tasks.initial(task, SEED)) as opened:
        server = rounds.Server(opened) if archived else Unarchived(opened)
        strategy = ArchivingStrategy(server, clients=len(users), per_round=None, users=grid.keys, tell=quiet)
        train(strategy, grid, 1, 1e6)  # compiles
        with environment.stopwatch() as stopwatch:
            train(strategy, grid, count - 1, 1e6)
        return (count - 1) / stopwatch(), server.model


class Unarchived(rounds.Server):
    """A server that adds updates to the model and keeps none."""

    _done = 0

    @property
    def round(self) -> int:
        """The number of the round that comes."""
        return self._done

    def take(self, replies: Any) -> rounds.Taken:
        """Add the mean of the updates."""
        counts = np.array([reply.examples for reply in replies.values()], np.float32)
        self.model = self.model + counts / counts.sum() @ np.stack([reply.update for reply in replies.values()])
        self._done += 1
        return rounds.Taken(self._done - 1, list(replies), 0)


if __name__ == "__main__":
    main()
