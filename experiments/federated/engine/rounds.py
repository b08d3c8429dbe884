"""A server's part of a round, whatever engine brings the replies: whose they are, which are refused, and the next row.

A user is known by the key of its node, which the operator has. Where nodes have no keys, it is what the client says. In
either case two nodes of one user are both refused, and a node id is nobody's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import keys
from experiments.core.errors import line
from experiments.core.keys import Purpose
from experiments.federated import archives
from experiments.federated.engine import serving
from experiments.federated.log import ArchiveError
from experiments.federated.store import Store, check_user
from federated import client_key, server_update

# Float32 holds sums, squares and shares of what lies within these.
LARGEST = 1e15  # Euclidean norm of an update
FEWEST, MOST = 1e-3, 1e9  # examples of a client


class Reply(NamedTuple):
    """What came back from a node.

    node: the engine's id of it.
    user: as the client says.
    update: [parameters], w' - w.
    examples: how many count.
    error: why there is nothing else; empty if there is.
    """

    node: int
    user: Any = None
    update: Any = None
    examples: Any = 0.0
    error: str = ""


class Taken(NamedTuple):
    """A round that is in the archive: its number, who took part, and its bytes on the disk."""

    round: int
    users: list[str]
    bytes: int


class Server:
    """The archive of a training and its model, round after round.

    opened: the archive, for writing.
    model: [parameters], as it is served.
    """

    def __init__(self, opened: Store, weighting: str = "examples") -> None:
        """Take up where the archive stands. Raises as `serving.read_model` does, and ValueError of an unknown weighting."""
        self.opened, self.model = opened, serving.read_model(opened)
        self.seed, self.structure = int(opened.about["seed"]), str(opened.about.get("structure", ""))
        self._keeper = archives.compressor(opened)
        self._program = jax.jit(server_update(weighting, self._keeper))
        serving.remove_others(opened)

    @property
    def round(self) -> int:
        """The number of the round that comes."""
        return serving.next_round(self.opened)

    def take(self, replies: Mapping[str, Reply]) -> Taken:
        """Add the updates of a round to the model, and the round to the archive; when this returns both are on the disk.

        Args:
          replies: by user, at least one; see `sorted_out`.
        """
        round, users = self.round, sorted(replies)
        updates = jnp.asarray(np.stack([np.asarray(replies[user].update) for user in users]))
        examples = jnp.asarray([replies[user].examples for user in users], jnp.float32)
        ids = jnp.asarray(archives.numbers(users))
        memory = self._keeper.init(len(users), self.model.size)
        present = jnp.ones(len(users), bool)
        model, _, kept = self._program(self.model, memory, updates, examples, present, ids, jnp.asarray(round, jnp.int32))
        self.model = np.asarray(model)
        digest = serving.write_model(self.opened.root, self.model)
        size = archives.add_round(self.opened, round, users, kept.updates, kept.weights, digest)
        serving.remove_others(self.opened)
        return Taken(round, users, size)


# --- Whose replies ----------------------------------------------------------------------------------------------------


def sorted_out(
    replies: Sequence[Reply], parameters: int, gone: set[str], registered: Mapping[int, str] | None
) -> tuple[dict[str, Reply], list[str]]:
    """The replies that count, by user, and a line for each that does not.

    Args:
      replies: of a round.
      parameters: of the model.
      gone: users who were erased: they do not come back by mistake.
      registered: node -> the user whose key it has; None where nodes have no keys.
    """
    refused, good = [], []
    for reply in replies:
        if why := _mistake(reply, parameters, gone, registered):
            refused.append(f"{_name(reply, registered)}: {why}")
        else:
            good.append(reply)
    nodes = Counter(reply.user for reply in good)
    refused += [
        f"{user}: {count} nodes claim to be this user: stop all but one" for user, count in nodes.items() if count > 1
    ]
    return {reply.user: reply for reply in good if nodes[reply.user] == 1}, refused


def _name(reply: Reply, registered: Mapping[int, str] | None) -> str:
    """What to call a node in a line: by its key, else by what it says if that can be a user."""
    try:
        check_user(user := (registered or {}).get(reply.node, reply.user))
    except ArchiveError:
        return f"node {reply.node}"
    return str(user)


def _mistake(reply: Reply, parameters: int, gone: set[str], registered: Mapping[int, str] | None) -> str:
    """What is wrong with a reply; empty if nothing is."""
    if reply.error:
        words = " ".join(reply.error.split())
        return line(ValueError("".join(letter if letter.isprintable() else "?" for letter in words)))
    try:
        check_user(reply.user)
    except ArchiveError as error:
        return str(error)
    if registered is not None and registered.get(reply.node) != reply.user:
        owner = registered.get(reply.node)
        return f"the node says that it is {reply.user}, and its key is that of {owner or 'nobody'}"
    if reply.user in gone:
        return "this user was erased: stop the client, or let it come back under a new id"
    update = np.asarray(reply.update)
    if update.dtype != np.float32 or update.shape != (parameters,):
        return f"the update is {update.dtype} {update.shape} and the model float32 ({parameters},): use one task everywhere"
    if not np.isfinite(update).all():
        return "the update has entries that are not finite: lower the learning rate"
    if (norm := float(np.linalg.norm(update.astype(np.float64)))) > LARGEST:
        return f"the update has norm {norm:.3g}, above {LARGEST:g}: lower the learning rate"
    if not (isinstance(reply.examples, int | float) and FEWEST <= reply.examples <= MOST):
        return f"the update is of {reply.examples!r:.40} examples: give a number from {FEWEST:g} to {MOST:g}"
    return ""


def asked(names: Mapping[int, str], count: int | None, seed: int, round: int) -> list[int]:
    """Which nodes are asked in a round: those of `count` names, drawn as `federated.participation` does; None for all.

    Args:
      names: node -> the user; without keys, anything that tells nodes apart.
    """
    nodes = sorted(names, key=lambda node: names[node])
    if count is None or count >= len(nodes):
        return nodes
    key, ids = keys.key(seed, Purpose.FEDERATION_SAMPLE), jnp.asarray(archives.numbers([names[node] for node in nodes]))
    draws = jax.vmap(lambda entry: jax.random.bits(client_key(key, round, entry)))(ids)
    return [nodes[index] for index in np.argsort(np.asarray(draws), kind="stable")[:count]]
