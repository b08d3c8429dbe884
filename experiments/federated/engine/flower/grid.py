"""Flower's Grid within one process: the same Strategy and ClientApp without a network, for tests and trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN = 1


class InProcessGrid(Grid):
    """Calls a ClientApp for one node after another.

    Args:
      app: of all nodes.
      users: node id -> the user, whom its config names and who stands for a public key.
      configs: node id -> another config, for tests.
    """

    def __init__(self, app: ClientApp, users: Mapping[int, str], configs: Mapping[int, Mapping[str, Any]] | None = None):
        self.app, self.users, self.configs = app, dict(users), dict(configs or {})
        self._answers: dict[str, Message] = {}
        # Messages ask who sends them, and Flower has no public way to say so within one process.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        """There is one run alone."""

    @property
    def run(self) -> Run:
        """An empty one."""
        return Run.create_empty(RUN)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Flower's old way to make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self.users)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """All nodes, with the keys of `keys`."""
        return [NodeInfo(node_id=node, name=user, public_key=user.encode()) for node, user in self.users.items()]

    @property
    def keys(self) -> dict[bytes, str]:
        """Public keys and whose they are, for a Strategy."""
        return {user.encode(): user for user in self.users.values()}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have messages answered, one after another; their ids, by which the answers are kept until they are pulled."""
        ids = []
        for message in messages:
            answer = self._answer(message)
            ids.append(message.metadata.message_id)
            self._answers[ids[-1]] = answer
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to messages that were pushed, each once."""
        return [self._answers.pop(id_) for id_ in message_ids if id_ in self._answers]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The answers to messages; a client that raises answers with an error, as it does on a network."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        message.metadata.__dict__["_message_id"] = message.object_id  # as Flower's own Grid does
        node = message.metadata.dst_node_id
        config = self.configs.get(node, {"user": self.users[node]})
        context = Context(run_id=RUN, node_id=node, node_config=dict(config), state=RecordDict(), run_config={})
        try:
            return self.app(message, context)
        except Exception as error:  # what a client raises must not end the server
            reason = f"{type(error)}:<'{error}'>"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
