"""Flower's Strategy of a server with an archive: it asks clients, sorts their replies out, and writes each round down."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from experiments.federated.engine import serving
from experiments.federated.engine.flower import records
from experiments.federated.engine.flower.records import Order
from experiments.federated.engine.rounds import Reply, Server, asked, sorted_out


class ArchivingStrategy(Strategy):
    """Federated averaging that keeps an archive.

    Args:
      server: the archive and its model.
      clients: a round begins once so many nodes are there.
      per_round: how many are asked; None for all that are there.
      users: public key of a node -> the user, by the operator's own list: Flower's would take a key from whoever reaches
        it. None: nodes have no keys, and clients say who they are.
      tell: gets a line for each round and for each reply that was refused.
    """

    def __init__(
        self,
        server: Server,
        *,
        clients: int,
        per_round: int | None,
        users: Mapping[bytes, str] | None,
        tell: Callable[[str], None],
    ) -> None:
        self.server, self.clients, self.per_round, self.users, self.tell = server, clients, per_round, users, tell
        self._names: dict[int, str] = {}
        self._messages: list[Message] = []  # of the round

    def summary(self) -> None:
        """Say what begins."""
        self.tell(f"round {self.server.round} comes next; a round begins with {self.clients} clients or more")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages to the clients of a round."""
        names = self._waited_for(grid)
        round = self.server.round
        content = records.order(Order(self.server.model, round, self.server.seed, self.server.structure))
        nodes = asked(names, self.per_round, self.server.seed, round)
        self._messages = [Message(content, node, MessageType.TRAIN, group_id=str(round)) for node in nodes]
        return self._messages

    def _waited_for(self, grid: Grid) -> dict[int, str]:
        """Nodes that may be asked -> their names, once there are enough."""
        waited = False
        while len(names := self._nodes(grid)) < self.clients:
            if not waited:
                self.tell(f"waiting for clients: {len(names)} of {self.clients} are there")
            waited = True
            time.sleep(1)
        return names

    def _nodes(self, grid: Grid) -> dict[int, str]:
        if self.users is None:
            return {node: str(node) for node in grid.get_node_ids()}
        gone = serving.erased_users(self.server.opened)
        found = {node.node_id: self.users.get(node.public_key, "") for node in grid.get_nodes()}
        nodes = Counter(found.values())
        self._names |= found
        return {node: name for node, name in found.items() if name and nodes[name] == 1 and name not in gone}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the replies that count into model and archive."""
        read = self._read(replies)
        counted, refused = self._sorted_out(read)
        for line in refused:
            self.tell(f"round {self.server.round}: without {line}")
        if not counted:
            self.tell(f"round {self.server.round}: no update came: the model stays as it is")
            return None, None
        taken = self.server.take(counted)
        self.tell(f"round {taken.round}: {len(taken.users)} of {len(read)} clients, {taken.bytes:,} bytes archived")
        metrics = MetricRecord({"clients": len(taken.users), "bytes": taken.bytes})
        return ArrayRecord({records.VECTOR: Array(self.server.model)}), metrics

    def _read(self, replies: Iterable[Message]) -> list[Reply]:
        """A reply for each node that was asked; of one that is gone, the SuperLink answers in its place or nobody does."""
        asked_by_id = {message.metadata.message_id: message.metadata.dst_node_id for message in self._messages}
        read = []
        for message in replies:
            reply = records.read_reply(message)
            read.append(reply._replace(node=asked_by_id.get(message.metadata.reply_to_message_id, reply.node)))
        silent = set(asked_by_id.values()) - {reply.node for reply in read}
        return read + [Reply(node, error="no answer in time") for node in sorted(silent)]

    def _sorted_out(self, replies: list[Reply]) -> tuple[dict[str, Reply], list[str]]:
        gone = serving.erased_users(self.server.opened)
        return sorted_out(replies, self.server.model.size, gone, None if self.users is None else self._names)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nobody is asked to evaluate."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked."""
        return None


def train(strategy: ArchivingStrategy, grid: Grid, rounds: int, timeout: float) -> np.ndarray:
    """So many more rounds; returns the model, [parameters]. A round ends after `timeout` seconds, whoever is missing."""
    start = ArrayRecord({records.VECTOR: Array(strategy.server.model)})
    strategy.start(grid, start, num_rounds=rounds, timeout=timeout)
    return strategy.server.model
