"""Serving nodes trained once more, each on what it saw then and below its ancestors as published.

What comes out is compared with what was published (`s3t.service.replay`), or put in the place of a file that was lost
(`s3t.service.healing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from s3t.service import inputs
from s3t.store import records
from s3t.store.disk import Store
from s3t.store.records import Node
from s3t.training import schedule
from s3t.training.schedule import Setup
from s3t.training.stages import Trained


class Family(NamedTuple):
    """Nodes that agree on who is in each slice, and so can be trained from one arrangement of examples.

    held: (shard, slice) -> ids.
    nodes: (shard, slices) -> the node.
    """

    held: dict[tuple[int, int], list[int]]
    nodes: dict[tuple[int, tuple[int, ...]], Node]


class Again(NamedTuple):
    """A node once more.

    node: the node.
    ids: what it was trained on, ascending.
    trained: what came out; None if it could not be trained.
    stack: of this training.
    why: it could not be trained, in words.
    """

    node: Node
    ids: tuple[int, ...]
    trained: Trained | None
    stack: dict[str, Any]
    why: str = ""


def again(store: Store, setup: Setup, here: Mapping[str, Any], nodes: Iterable[Node]) -> Iterator[Again]:
    """Train serving nodes once more, parents first; an ancestor's file is not read before the ancestor was given.

    Args:
      store: the store.
      setup: how its nodes are trained.
      here: this process's stack.
      nodes: in the order of their publication.
    """
    for family in families(store, nodes):
        yield from _trained(store, setup, here, family)


def families(store: Store, nodes: Iterable[Node]) -> list[Family]:
    """The nodes by what they agree on: those trained before more examples came stand apart."""
    examples = {
        shard: [row for row in records.shard_ids(store.ledger, shard) if row[-1] is None]
        for shard in range(store.manifest.shards)
    }
    found: list[Family] = []
    for node in nodes:
        own = {(node.shard, s): records.held_by(examples[node.shard], node, (s,)) for s in node.slices}
        kin = [one for one in found if all(one.held.get(place, ids) == ids for place, ids in own.items())]
        if not kin:
            found.append(Family({}, {}))
            kin = found[-1:]
        kin[0].held.update(own)
        kin[0].nodes[node.shard, node.slices] = node
    return found


def _trained(store: Store, setup: Setup, here: Mapping[str, Any], family: Family) -> Iterator[Again]:
    ids = {(shard, node): tuple(sorted(one for s in node for one in family.held[shard, s])) for shard, node in family.nodes}
    try:
        slices = inputs.compartments(setup, family.held)
    except ValueError as error:  # an example that the source lacks: it holds up the nodes that hold it, and no other
        if len(family.nodes) == 1:
            yield from (Again(node, ids[job], None, {}, str(error)) for job, node in family.nodes.items())
            return
        for shard, node in sorted(family.nodes, key=lambda job: len(job[1])):
            alone = Family({(shard, s): family.held[shard, s] for s in node}, {(shard, node): family.nodes[shard, node]})
            yield from _trained(store, setup, here, alone)
        return
    read = inputs.reader(store, setup, inputs.serving(store))
    for depth in sorted({len(node) for _, node in family.nodes}):  # one by one, so that ancestors are read and not trained
        jobs = []
        for job in (job for job in family.nodes if len(job[1]) == depth):
            try:
                for above in range(1, depth):
                    read(job[0], job[1][:above])
                jobs.append(job)
            except ValueError as error:
                yield Again(family.nodes[job], ids[job], None, {}, f"an ancestor cannot be read: {error}")
        for call in schedule.build(setup, slices, jobs, read):
            for job, trained in call.nodes:
                yield Again(family.nodes[job], ids[job], trained, inputs.stack_of(here, call))
