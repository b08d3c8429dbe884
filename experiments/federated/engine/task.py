"""What an operator gives: a Python file with model, data and optimiser; and what a client computes by it.

Imported by a fresh process for every message to a client: keep what it imports small.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
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
from experiments.federated import log
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
    loader = SourceFileLoader("forethought_task", str(path))  # whatever the file's name ends in
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # last: modules beside the file are found and hide nothing
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file raises what it likes
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
      UserError: of another kind than a task's parts are; no parameters, or some that are not float32.
    """
    if not isinstance(task.model, Model) and not callable(task.model):
        raise UserError(f"model of {where} is a {type(task.model).__name__}: give an unlearn.Model or a loss function")
    for name in ("init", "load_data"):
        if not callable(getattr(task, name)):
            raise UserError(f"{name} of {where} is a {type(getattr(task, name)).__name__}: give a function")
    if not isinstance(task.optimizer, optax.GradientTransformation):
        raise UserError(f"optimizer of {where} is a {type(task.optimizer).__name__}: give an optax transformation")
    for name, count in (("epochs", task.epochs), ("batch_size", 1 if task.batch_size is None else task.batch_size)):
        if type(count) is not int or count < 1:
            raise UserError(f"{name} of {where} is {count!r:.40}: give a whole number from 1 up")
    try:
        update(task)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
    except Exception as error:  # a user's function raises what it likes
        raise UserError(f"{where} cannot be used: {kind(error)}") from error
    if not sum(leaf.size for leaf in jax.tree.leaves(shapes)):
        raise UserError(f"init of {where} gives no parameters: give a pytree of float32 arrays")
    if odd := {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} - {"float32"}:
        raise UserError(f"init of {where} gives parameters of {', '.join(sorted(odd))}: give float32, as archives keep")
    return task


def initial(task: Task, seed: int) -> jax.Array:
    """w_0, [parameters].

    Raises:
      UserError: init fails, or gives what is not finite.
    """
    try:
        start = ravel_pytree(task.init(keys.key(seed, Purpose.FEDERATION_MODEL)))[0]
        finite = bool(jnp.isfinite(start).all())
    except Exception as error:  # a user's function raises what it likes
        raise UserError(f"init fails: {kind(error)}") from error
    if not finite:
        raise UserError("init gives parameters that are not finite: give finite ones")
    return start


def structure(task: Task) -> str:
    """A digest of the names and shapes of a task's parameters, in the order in which they are ravelled."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(task.init, jax.random.key(0)))
    return log.digest(repr([(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves]).encode())


def check_structure(task: Task, expected: str) -> None:
    """Refuse a task whose parameters are not those of a training.

    Args:
      expected: the training's `structure`; empty if it is not known.

    Raises:
      UserError: other names or shapes.
    """
    if expected and structure(task) != expected:
        raise UserError("the task's parameters have other names or shapes than the server's: use one task everywhere")


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
    what = f"load_data({user!r})"
    try:
        data = jax.tree.map(np.asarray, task.load_data(user))
    except (Exception, SystemExit) as error:  # a user's function raises what it likes
        raise UserError(f"{what} fails: {kind(error)}") from error
    try:
        check_keys(data, "a client's", ("weight",) if task.batch_size is None else ("id", "weight"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} gives no batch: {error}") from error
    weight = data["weight"]
    if not isinstance(weight, np.ndarray) or weight.ndim != 1:
        raise UserError(f"{what} gives weights that are no array [examples]: give one number for each example")
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(data)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if leaf.dtype.kind in "OSUmM":
            raise UserError(f"{what} gives {name} of type {leaf.dtype}: give arrays of numbers")
        if leaf.shape[:1] != weight.shape:
            raise UserError(f"{what} gives {name} of shape {leaf.shape} for {len(weight)} weights: give one row for each")
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise UserError(f"{what} gives weights below 0 or not finite: give 1 for an example that counts, 0 for padding")
    if not examples(data) > 0:
        raise UserError(f"{what} gives no example of a weight above 0: give some, or stop this client")
    return data


def check_work(task: Task, data: Batch) -> None:
    """Trace a client's work on its data, so that a mistake shows before the first round.

    Raises:
      UserError: model or optimiser cannot use these data.
    """
    try:
        jax.eval_shape(update(task), jax.eval_shape(task.init, jax.random.key(0)), data, jax.random.key(0))
    except Exception as error:  # a user's function raises what it likes
        raise UserError(f"the task cannot train on what load_data gives: {kind(error)}") from error


def examples(data: Batch) -> float:
    """How many examples count: the sum of their weights."""
    return float(np.sum(np.asarray(data["weight"], np.float32), dtype=np.float32))
