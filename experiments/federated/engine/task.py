"""What an operator gives: a Python file with model, data and optimiser; and what a client computes by it.

Imported by a fresh process for every message to a client: keep what it imports small.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from experiments.core import keys
from experiments.core.errors import UserError, kind
from experiments.core.keys import Purpose
from federated import client_key, client_update
from unlearn.base import Batch, Model, Params
from unlearn.checking import check_keys

NEEDED, MAY_BE = ("model", "init", "load_data", "optimizer"), {"epochs": 1, "batch_size": None}


class Task(NamedTuple):
    """What is trained, and how.

    model: a `Model`, or a loss (params, batch, key) -> scalar; see `federated.client_update`.
    init: (key) -> parameters, all float32.
    load_data: (user) -> the user's `Batch`, on the user's own machine.
    optimizer: any optax transformation.
    epochs, batch_size: of a client in a round; see `federated.client_update`.
    """

    model: Any
    init: Callable[[jax.Array], Params]
    load_data: Callable[[str], Batch]
    optimizer: optax.GradientTransformation
    epochs: int = 1
    batch_size: int | None = None


def load(path: Path) -> Task:
    """The task in a file.

    Raises:
      UserError: no such file, one that raises, or one without what a task needs.
    """
    if not path.is_file():
        raise UserError(f"there is no task file {path}: give a Python file with {', '.join(NEEDED)}")
    spec = importlib.util.spec_from_file_location("forethought_task", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # last: modules beside the file are found and hide nothing
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file raises what it likes
        raise UserError(f"the task {path} cannot be imported: {kind(error)}") from error
    if missing := [name for name in NEEDED if not hasattr(module, name)]:
        raise UserError(f"the task {path} has no {', '.join(missing)}: a task has {', '.join(NEEDED)}")
    given = {name: getattr(module, name) for name in NEEDED}
    may_be: dict[str, Any] = {name: getattr(module, name, default) for name, default in MAY_BE.items()}
    task = Task(**given, **may_be)
    return checked(task, str(path))


def checked(task: Task, where: str) -> Task:
    """The task, once it is known to be one.

    Raises:
      UserError: of another kind than a task's parts are; parameters that are not float32.
    """
    if not isinstance(task.model, Model) and not callable(task.model):
        raise UserError(f"model of {where} is a {type(task.model).__name__}: give an unlearn.Model or a loss function")
    for name in ("init", "load_data"):
        if not callable(getattr(task, name)):
            raise UserError(f"{name} of {where} is a {type(getattr(task, name)).__name__}: give a function")
    if not isinstance(task.optimizer, optax.GradientTransformation):
        raise UserError(f"optimizer of {where} is a {type(task.optimizer).__name__}: give an optax transformation")
    try:
        update(task)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
    except Exception as error:  # a user's function raises what it likes
        raise UserError(f"{where} cannot be used: {kind(error)}") from error
    if odd := {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} - {"float32"}:
        raise UserError(f"init of {where} gives parameters of {', '.join(sorted(odd))}: give float32, as archives keep")
    return task


def initial(task: Task, seed: int) -> jax.Array:
    """w_0, [parameters]."""
    return ravel_pytree(task.init(keys.key(seed, Purpose.FEDERATION_MODEL)))[0]


def unravel(task: Task, vector: Any) -> Params:
    """A model [parameters] as the task's pytree.

    Raises:
      UserError: a model of another number of parameters.
    """
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    if np.shape(vector) != (size,):
        raise UserError(f"the model has shape {np.shape(vector)} and the task {size} parameters: use one task everywhere")
    return ravel_pytree(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))[1](vector)


# --- A client ---------------------------------------------------------------------------------------------------------


def update(task: Task) -> Any:
    """What a client does in a round, `federated.client_update`."""
    return client_update(task.model, task.optimizer, epochs=task.epochs, batch_size=task.batch_size)


def client_program(task: Task) -> Callable[[Any, Batch, int, int, int], np.ndarray]:
    """A client's work, compiled: (model [parameters], data, seed, round, number of the user) -> update [parameters].

    It draws as the client of that id does in `federated.train` with the key of `training_key`.
    """
    step = update(task)

    @jax.jit
    def of_vector(vector: Any, data: Batch, key: Any) -> Any:
        return ravel_pytree(step(unravel(task, vector), data, key))[0]

    def run(vector: Any, data: Batch, seed: int, round: int, number: int) -> np.ndarray:
        key = client_key(training_key(seed), round, jnp.uint32(number))
        return np.asarray(of_vector(vector, data, key))

    return run


def training_key(seed: int) -> jax.Array:
    """The key of a whole training."""
    return keys.key(seed, Purpose.FEDERATION_CLIENTS)


def data_of(task: Task, user: str) -> Batch:
    """A user's data, as `load_data` gives them.

    Raises:
      UserError: it raises, gives no batch, or one without an example that counts.
    """
    try:
        data = jax.tree.map(np.asarray, task.load_data(user))
    except Exception as error:  # a user's function raises what it likes
        raise UserError(f"load_data({user!r}) fails: {kind(error)}") from error
    try:
        check_keys(data, "a client's", ("weight",) if task.batch_size is None else ("id", "weight"))
    except (ValueError, TypeError) as error:
        raise UserError(f"load_data({user!r}) gives no batch: {error}") from error
    if not examples(data) > 0:
        raise UserError(f"load_data({user!r}) gives no example of a weight above 0: give some, or stop this client")
    return data


def examples(data: Batch) -> float:
    """How many examples count: the sum of their weights."""
    return float(np.sum(np.asarray(data["weight"], np.float32), dtype=np.float32))
