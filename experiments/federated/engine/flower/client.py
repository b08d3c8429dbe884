"""Flower's ClientApp: a client's work of a round, by the functions of `federated`.

A SuperNode starts a fresh process for every message, so this imports no more than the work needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from experiments.core.errors import UserError
from experiments.federated import archives
from experiments.federated.engine import task as tasks
from experiments.federated.engine.flower import records
from experiments.federated.engine.task import Task
from experiments.federated.store import check_user


def client_app(task: Task) -> ClientApp:
    """The ClientApp of a task; the node's config says whose data it is to read."""
    program = tasks.client_program(task)
    return _app(lambda message, context: answer(task, program, message, user_of(context)))


def deployed() -> ClientApp:
    """The ClientApp of a SuperNode, whose config names the file of the task, too."""

    def of_file(message: Message, context: Context) -> Message:
        task = tasks.load(Path(str(context.node_config.get("task", ""))))
        return answer(task, tasks.client_program(task), message, user_of(context))

    return _app(of_file)


def _app(train: Callable[[Message, Context], Message]) -> ClientApp:
    app = ClientApp()
    app.train()(train)
    return app


def user_of(context: Context) -> str:
    """The user whom a node's config names.

    Raises:
      UserError: it names nobody, or no stable id.
    """
    if "user" not in context.node_config:
        raise UserError("the node's config names no user: start the client with --user")
    user = str(context.node_config["user"])
    check_user(user)
    return user


def answer(task: Task, program: Callable[..., object], message: Message, user: str) -> Message:
    """A client's update to the model in a message."""
    order = records.read_order(message)
    tasks.check_structure(task, order.structure)
    data = tasks.data_of(task, user)
    (number,) = archives.numbers([user])
    update = program(order.model, data, order.seed, order.round, int(number))
    return Message(records.reply(user, update, tasks.examples(data)), reply_to=message)
