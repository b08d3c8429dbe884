"""What messages between server and clients hold, and a reply's content read without trust in it."""

from __future__ import annotations

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from experiments.federated.engine.rounds import Reply

MODEL, ORDER = "model", "order"  # from the server: the model; the round's number and the training's seed
UPDATE, TOLD = "update", "told"  # from a client: its update and its examples; who it is
VECTOR = "vector"


def reply(user: str, update: Any, examples: float) -> RecordDict:
    """A client's answer."""
    return RecordDict(
        {
            UPDATE: ArrayRecord({VECTOR: Array(update)}),
            "examples": MetricRecord({"examples": examples}),
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
        update = content[UPDATE][VECTOR].numpy()
        return Reply(node, content[TOLD]["user"], update, content["examples"]["examples"])
    except Exception as error:  # bytes of a client may raise what they like
        return Reply(node, error=f"the answer cannot be read ({type(error).__name__}): use one version of forethought")
