"""Flower within one process: the model, the archive and its bytes are those of the program in which clients are vmapped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

pytest.importorskip("flwr", reason="no Flower on this machine: the extra `federated` has it")
pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")

from flwr.app import Error, Message, RecordDict

from experiments.federated import archives
from experiments.federated.engine import erasing, serving
from experiments.federated.engine import task as tasks
from experiments.federated.engine.flower.client import client_app
from experiments.federated.engine.flower.grid import InProcessGrid
from experiments.federated.engine.flower.strategy import ArchivingStrategy, train
from experiments.federated.engine.rounds import Server
from tests.helpers import federations
from tests.helpers.federations import SCHEME, SEED, TASK, USERS
from unlearn import classifier

NODES = {10**18 + i: user for i, user in enumerate(USERS)}
APP = client_app(TASK)


def federation(folder, *, scheme=SCHEME, task=TASK):
    return serving.create(folder / "archive", scheme, SEED, tasks.initial(task, SEED), tasks.structure(task))


def trained(opened, rounds, *, app=APP, nodes=NODES, keyed=True, per_round=None, configs=None):
    """The model after more rounds, and what was told of them."""
    told = []
    server = Server(opened)
    grid = InProcessGrid(app, nodes, configs)
    users = grid.keys if keyed else None
    strategy = ArchivingStrategy(server, clients=2, per_round=per_round, users=users, tell=told.append)
    return train(strategy, grid, rounds, timeout=60.0), told


def test_the_archive_holds_rounds_weights_and_codes_of_the_program_to_the_last_bit(tmp_path):
    (tmp_path / "program").mkdir()
    with federation(tmp_path) as opened, federation(tmp_path / "program") as expected:
        model, told = trained(opened, 1)
        model, more = trained(opened, 1)  # a server that starts again goes on where the last one stopped
        state, history = federations.in_one_program(TASK, USERS, SCHEME, rounds=2)
        size = archives.add_history(expected, history, USERS)
        np.testing.assert_array_equal(model, ravel_pytree(state.params)[0])
        assert opened.rounds == expected.rounds and set(opened.rounds[0]) == set(USERS)
        assert all(opened.read(user, t) == expected.read(user, t) for t in (0, 1) for user in USERS)
        assert serving.model_digest(opened) == archives.model_digest(model) and opened.verify() == 1 + 2 * len(USERS)
        assert sum(row["bytes"] for t in (1, 2) for row in opened.rows[t]["updates"]) == size
    assert told[-1].startswith("round 0: 4 of 4 clients") and more[-1].startswith("round 1: 4 of 4 clients")


def test_a_network_is_the_program_s_to_rounding(tmp_path):
    """Within 1e-6, about ten units in the last place of weights below 1."""
    model = classifier(lambda params, x, key: jnp.tanh(x @ params["a"]) @ params["b"])
    init = lambda key: {"a": jax.random.normal(key, (6, 5)) / 3, "b": jnp.zeros((5, 3))}  # noqa: E731
    labelled = lambda user: TASK.load_data(user) | {"y": np.arange(4) % 3}  # noqa: E731
    task = tasks.Task(model, init, labelled, optax.adam(0.01), epochs=2, batch_size=3)
    with federation(tmp_path, task=task) as opened:
        vector, _ = trained(opened, 2, app=client_app(task))
        state, _ = federations.in_one_program(task, USERS, SCHEME, rounds=2)
        np.testing.assert_allclose(vector, ravel_pytree(state.params)[0], rtol=0, atol=1e-6)


def test_some_clients_are_asked_and_a_user_is_erased_and_stays_away(tmp_path):
    with federation(tmp_path) as opened:
        trained(opened, 2, per_round=3)
        assert [len(users) for users in opened.rounds.values()] == [3, 3]
    leaver = next(iter(opened.rounds[0]))
    erasing.erase(tmp_path / "archive", leaver)
    with serving.open_archive(tmp_path / "archive") as opened:
        trained(opened, 1)
        assert set(opened.rounds[2]) == set(USERS) - {leaver}
        _, told = trained(opened, 1, keyed=False)
        assert set(opened.rounds[3]) == set(USERS) - {leaver}
        assert any(line.startswith(f"round 3: without {leaver}: this user was erased") for line in told)


def test_two_nodes_of_one_user_are_refused_and_so_are_lies_and_failures(tmp_path):
    says = {node: {"user": user} for node, user in NODES.items()}
    first, second, third, fourth = NODES
    with federation(tmp_path) as opened:
        _, told = trained(opened, 1, keyed=False, configs=says | {second: {"user": USERS[0]}})
        assert set(opened.rounds[0]) == set(USERS[2:])
        assert f"round 0: without {USERS[0]}: 2 nodes claim to be this user: stop all but one" in told
        _, told = trained(opened, 1, configs=says | {first: {"user": USERS[1]}, third: {"user": str(third)}, fourth: {}})
        assert set(opened.rounds[1]) == {USERS[1]}
        lie, node_id, nobody = (
            next(line for line in told if f"without {user}" in line) for user in (*USERS[:1], *USERS[2:])
        )
        assert f"says that it is {USERS[1]}, and its key is that of {USERS[0]}" in lie
        assert "node id" in node_id and "start the client with --user" in nobody


def test_a_client_with_another_task_of_as_many_parameters_is_refused(tmp_path):
    other = client_app(TASK._replace(init=lambda key: {"v": jnp.zeros(federations.SIZE)}))
    with federation(tmp_path) as opened:
        _, told = trained(opened, 1, app=other)
        assert not opened.rounds and "other names or shapes than the server's: use one task everywhere" in told[-2]


def test_a_round_without_an_update_changes_nothing(tmp_path):
    broken = client_app(TASK._replace(load_data=lambda user: {"weight": np.zeros(1)}))
    with federation(tmp_path) as opened:
        model, told = trained(opened, 1, app=broken)
        np.testing.assert_array_equal(model, np.zeros(federations.SIZE))
        assert len(opened.rows) == 1 and "the model stays as it is" in told[-1] and "no 'id'" in told[-2]


class Lossy(InProcessGrid):
    """Loses one node's answer, and answers in the place of another, as a SuperLink does for a node that is gone."""

    def send_and_receive(self, messages, *, timeout=None):
        answers = list(super().send_and_receive(messages, timeout=timeout))
        if not answers:  # nobody is asked to evaluate
            return []
        _, second, *others = answers
        gone = Message(Error(3, "Node Unavailable"), reply_to=second)
        gone.metadata.__dict__.update(_src_node_id=1, _reply_to_message_id=second.metadata.reply_to_message_id)
        return [gone, *others]


def test_clients_that_are_gone_are_told_by_name_and_the_round_goes_on(tmp_path):
    told = []
    with federation(tmp_path) as opened:
        grid = Lossy(APP, NODES | {1: "eve"})  # whose key the operator does not have: she is not asked
        users = {user.encode(): user for user in USERS}
        strategy = ArchivingStrategy(Server(opened), clients=4, per_round=None, users=users, tell=told.append)
        train(strategy, grid, 1, timeout=60.0)
        silent, gone, *others = sorted(USERS)
        assert set(opened.rounds[0]) == set(others)
    assert told[1:] == [
        f"round 0: without {gone}: Node Unavailable",
        f"round 0: without {silent}: no answer in time",
        f"round 0: 2 of 4 clients, {sum(entry.bytes for entry in opened.rounds[0].values())} bytes archived",
    ]


def test_messages_that_are_pushed_are_answered_once():
    grid = InProcessGrid(APP, NODES)
    messages = [Message(RecordDict(), node, "query.nothing") for node in list(NODES)[:2]]
    ids = grid.push_messages(messages)
    (second,) = grid.pull_messages(ids[1:])
    assert len(set(ids)) == 2 and second.metadata.reply_to_message_id == ids[1]
    assert [answer.metadata.reply_to_message_id for answer in grid.pull_messages(ids)] == ids[:1]
    assert grid.pull_messages(ids) == []
