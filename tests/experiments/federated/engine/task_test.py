"""A task's file: what it gives, its mistakes in one line, and a client's work as the function of `federated`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from experiments.core.errors import UserError
from experiments.federated import archives
from experiments.federated.engine import task as tasks
from federated import client_key, client_update
from tests.helpers import docs, federations
from tests.helpers.federations import TASK

ALONE = """\
import jax.numpy as jnp
import numpy as np
import optax

model = lambda params, batch, key: jnp.sum(params ** 2)
init = lambda key: jnp.ones(SIZE)
load_data = lambda user: {"weight": np.array([1.0]), "user": np.array([7.0])}
optimizer, epochs = optax.sgd(0.1), 3
SIZE = 2
"""
FILE = ALONE.replace("SIZE = 2", "from beside import SIZE")


def test_a_file_gives_a_task_and_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("SIZE = 4")
    (tmp_path / "task.py").write_text(FILE)
    task = tasks.load(tmp_path / "task.py")
    assert (task.epochs, task.batch_size) == (3, None) and tasks.initial(task, 0).tolist() == [1.0] * 4
    assert tasks.examples(tasks.data_of(task, "ann")) == 1.0


DATACLASS = """\
from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Settings:
    rate: float = 0.1

"""


@pytest.mark.parametrize("name", ["task.txt", "task"])
def test_a_file_may_be_called_anything_and_have_dataclasses(tmp_path, name):
    (tmp_path / name).write_text(DATACLASS + ALONE.replace("sgd(0.1)", "sgd(Settings().rate)"))
    assert tasks.load(tmp_path / name).epochs == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import sys; sys.exit(0)", "cannot be imported: SystemExit: 0"),
        (ALONE.replace("jnp.ones(SIZE)", "{}"), "gives no parameters"),
        (ALONE.replace(", 3", ", 1.5"), "epochs of .* is 1.5: give a whole number from 1 up"),
        (ALONE + "batch_size = True", "batch_size of .* is True: give a whole number"),
        ("import no_such_thing", "cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("model = 1", "has no init, load_data, optimizer: a task has"),
        (ALONE.replace("SIZE)", "SIZE, jnp.bfloat16)"), "parameters of bfloat16: give float32"),
        (ALONE.replace("optax.sgd(0.1)", "0.1"), "optimizer of .* is a float"),
        (ALONE.replace(", 3", ", 0"), "epochs of .* is 0: give"),
        (ALONE.replace("SIZE)", "no)"), "cannot be used: NameError"),
        (ALONE.replace("model = lambda", "model = 1  #"), "model of .* is a int"),
        (ALONE.replace("load_data = lambda user:", "load_data ="), "give a function"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_task_is_refused_in_one_line(tmp_path, text, why):
    (tmp_path / "task.py").write_text(text)
    with pytest.raises(UserError, match=why) as refused:
        tasks.load(tmp_path / "task.py")
    assert "\n" not in str(refused.value) and "task.py" in str(refused.value)


@pytest.mark.parametrize(
    ("init", "why"),
    [
        (lambda key: jnp.ones(2) * jnp.inf, "parameters that are not finite"),
        (lambda key: 1 / 0, "init fails: ZeroDivision"),
    ],
)
def test_a_first_model_that_cannot_be_is_refused(init, why):
    with pytest.raises(UserError, match=why):
        tasks.initial(TASK._replace(init=init), 0)


def test_no_file_and_another_model_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no task file .*give a Python file with model, init, load_data, optimizer"):
        tasks.load(tmp_path / "task.py")
    with pytest.raises(UserError, match=r"shape \(5,\) and the task 6 parameters: use one task everywhere"):
        tasks.unravel(TASK, np.zeros(5, np.float32))


def test_a_structure_is_names_and_shapes_in_the_order_of_the_vector():
    of = lambda **shapes: TASK._replace(init=lambda key: {name: jnp.ones(shape) for name, shape in shapes.items()})  # noqa: E731
    known = tasks.structure(of(a=(2, 3), b=(4,)))
    for same in (known, ""):
        tasks.check_structure(of(b=(4,), a=(2, 3)), same)
    for other in (of(a=(3, 2), b=(4,)), of(a=(4,), b=(2, 3)), of(a=(2, 3), c=(4,)), of(a=(10,))):
        with pytest.raises(UserError, match="other names or shapes than the server's: use one task everywhere"):
            tasks.check_structure(other, known)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, r"gives no batch: .*mapping"),
        ({"weight": np.ones(1)}, "no 'id'"),
        ({"weight": np.zeros(2), "id": np.arange(2)}, "no example of a weight above 0"),
        ({"weight": np.zeros(0), "id": np.arange(0)}, "no example of a weight above 0"),
        ({"weight": [1.0, 1.0], "id": np.arange(2)}, r"weights that are no array \[examples\]"),
        ({"weight": 1.0, "id": np.arange(2)}, r"weights that are no array \[examples\]"),
        ({"weight": np.array(["1"]), "id": np.arange(1)}, "weight of type <U1: give arrays of numbers"),
        ({"weight": np.array([2.0, -1.0]), "id": np.arange(2)}, "weights below 0 or not finite"),
        ({"weight": np.array([2.0, np.nan]), "id": np.arange(2)}, "weights below 0 or not finite"),
        ({"weight": np.ones(2), "id": np.arange(2), "x": {"a": np.ones((3, 2))}}, r"x/a of shape \(3, 2\) for 2 weights"),
    ],
)
def test_data_that_cannot_be_used_are_refused_in_one_line(data, why):
    with pytest.raises(UserError, match=why):
        tasks.data_of(TASK._replace(load_data=lambda user: data), "ann")
    with pytest.raises(UserError, match=r"load_data\('ann'\) fails: ZeroDivisionError"):
        tasks.data_of(TASK._replace(load_data=lambda user: 1 / 0), "ann")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"load_data": lambda user: federations.load_data(user) | {"x": np.ones((4, 5))}},
            "cannot train .*: ValueError: Incompatible shapes",
        ),
        ({"model": lambda params, batch: 0.0}, "cannot train .*positional arguments"),
        ({"model": lambda params, batch, key: params["w"]}, "cannot train .*scalar-output"),
    ],
)
def test_work_that_fails_is_told_before_the_first_round(changes, why):
    tasks.check_work(TASK, tasks.data_of(TASK, "ann"))
    task = TASK._replace(**changes)
    with pytest.raises(UserError, match=why) as refused:
        tasks.check_work(task, tasks.data_of(task, "ann"))
    assert "\n" not in str(refused.value)


def test_a_client_computes_what_the_function_of_federated_does():
    vector, (number,) = np.full(federations.SIZE, 0.5, np.float32), archives.numbers(["ann"])
    data = TASK.load_data("ann")
    update = tasks.client_program(TASK)(vector, data, 3, 2, number)
    key = client_key(jax.random.fold_in(jax.random.key(3, impl="threefry2x32"), 101), 2, number)
    by_hand = client_update(TASK.model, optax.sgd(0.25), batch_size=2)({"w": jnp.asarray(vector)}, data, key)
    np.testing.assert_allclose(update, ravel_pytree(by_hand)[0], rtol=1e-6)
    assert not np.array_equal(update, tasks.client_program(TASK)(vector, data, 3, 1, number)), "rounds draw apart"


def test_the_example_of_the_page_is_a_task_of_three_users(tmp_path):
    (block,) = [block for block in docs.blocks(docs.ROOT / "docs/federated.md", "python") if block.startswith("# task.py")]
    (tmp_path / "task.py").write_text(block)
    task = tasks.load(tmp_path / "task.py")
    data = [tasks.data_of(task, user) for user in ("alice", "bob", "carol")]
    assert sorted(np.concatenate([part["id"] for part in data]).tolist()) == list(range(1797))
    assert tasks.initial(task, 0).shape == (64 * 32 + 32 * 10,)
