"""What messages between server and clients hold, and a reply's content read without trust in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from experiments.federated.engine.rounds import Reply

MODEL, ORDER = "model", "order"  # from the server: the model; round, seed and structure
UPDATE, COUNT, TOLD = "update", "examples", "told"  # from a client: its update, its examples, who it is
VECTOR = "vector"


class Order(NamedTuple):
    """What a client is to do: train this model in this round of the training of a seed, by a task of this structure."""

    model: np.ndarray
    round: int
    seed: int
    structure: str


def order(given: Order) -> RecordDict:
    """An order as a message holds it."""
    config: Any = {"round": given.round, "seed": given.seed, "structure": given.structure}
    return RecordDict({MODEL: ArrayRecord({VECTOR: Array(given.model)}), ORDER: ConfigRecord(config)})


def read_order(message: Message) -> Order:
    """The order in a message."""
    config: Any = message.content.config_records[ORDER]
    model = message.content.array_records[MODEL][VECTOR].numpy()
    return Order(model, config["round"], config["seed"], config["structure"])


def reply(user: str, update: Any, examples: float) -> RecordDict:
    """A client's answer."""
    return RecordDict(
        {
            UPDATE: ArrayRecord({VECTOR: Array(update)}),
            COUNT: MetricRecord({COUNT: examples}),
            TOLD: ConfigRecord({"user": user}),
        }
    )


def read_reply(message: Message) -> Reply:
    """What came back from a node; an answer of another form is an error of that node."""
    node = message.metadata.src_node_id
    if message.has_error():
        return Reply(node, error=message.error.reason or f"Flower's error {message.error.code}")
    try:
        content = message.content
        update = content.array_records[UPDATE][VECTOR].numpy()
        return Reply(node, content.config_records[TOLD]["user"], update, content.metric_records[COUNT][COUNT])
    except Exception as error:  # bytes of a client may raise what they like
        return Reply(node, error=f"the answer cannot be read ({type(error).__name__}): use one version of forethought")
