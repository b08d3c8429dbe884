"""Serving nodes trained once more, each on what it saw then and below its ancestors as published.

What comes out is compared with what was published (`s3t.service.replay`), or put in the place of a file that was lost
(`s3t.service.healing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from s3t.service import inputs
from s3t.store.disk import Store
from s3t.store.ledger import records
from s3t.store.ledger.records import PublishedNode
from s3t.training import schedule
from s3t.training.schedule import Build, Setup
from s3t.training.stages import Trained


class Family(NamedTuple):
    """Nodes that agree on who is in each slice, and so can be trained from one arrangement of examples.

    ids_in: (shard, slice) -> ids.
    nodes: (shard, slices) -> the node.
    """

    ids_in: dict[tuple[int, int], list[int]]
    nodes: dict[tuple[int, tuple[int, ...]], PublishedNode]


class Retrained(NamedTuple):
    """A node trained once more.

    node: the node.
    ids: what it was trained on, ascending.
    trained: what came out; None if it could not be trained.
    stack: of this training.
    reason: why it could not be trained, one line.
    """

    node: PublishedNode
    ids: tuple[int, ...]
    trained: Trained | None
    stack: dict[str, Any]
    reason: str = ""


def retrain(
    store: Store,
    setup: Setup,
    here: Mapping[str, Any],
    nodes: Iterable[PublishedNode],
    build: Build = schedule.build,
) -> Iterator[Retrained]:
    """Train serving nodes once more, parents first; an ancestor's file is not read before the ancestor was given.

    Args:
      store: the store.
      setup: how its nodes are trained.
      here: this process's stack.
      nodes: in the order of their publication.
      build: trains them; see `healing.train_missing`.
    """
    for family in families(store, nodes):
        yield from _trained(store, setup, here, family, build)


def families(store: Store, nodes: Iterable[PublishedNode]) -> list[Family]:
    """The nodes by what they agree on: those trained before more examples came stand apart."""
    examples = {
        shard: [row for row in records.shard_ids(store.ledger, shard) if row[-1] is None]
        for shard in range(store.manifest.shards)
    }
    grouped: list[Family] = []
    for node in nodes:
        own = {(node.shard, s): records.held_by(examples[node.shard], node, (s,)) for s in node.slices}
        agreeing = (family for family in grouped if all(family.ids_in.get(place, ids) == ids for place, ids in own.items()))
        family = next(agreeing, None)
        if family is None:
            family = Family({}, {})
            grouped.append(family)
        family.ids_in.update(own)
        family.nodes[node.shard, node.slices] = node
    return grouped


def _trained(store: Store, setup: Setup, here: Mapping[str, Any], family: Family, build: Build) -> Iterator[Retrained]:
    ids = {
        (shard, node): tuple(sorted(id_ for s in node for id_ in family.ids_in[shard, s])) for shard, node in family.nodes
    }
    try:
        slices = inputs.compartments(setup, family.ids_in)
    except ValueError as error:  # an example that the source lacks: it holds up the nodes that hold it, and no other
        if len(family.nodes) == 1:
            yield from (Retrained(node, ids[job], None, {}, str(error)) for job, node in family.nodes.items())
            return
        for shard, node in sorted(family.nodes, key=lambda job: len(job[1])):
            alone = Family({(shard, s): family.ids_in[shard, s] for s in node}, {(shard, node): family.nodes[shard, node]})
            yield from _trained(store, setup, here, alone, build)
        return
    read = inputs.reader(store, setup, inputs.serving(store))
    seen = inputs.digests_of(slices, setup.plan.slices)
    for depth in sorted({len(node) for _, node in family.nodes}):  # one by one, so that ancestors are read and not trained
        jobs = []
        for job in (job for job in family.nodes if len(job[1]) == depth):
            try:
                for above in range(1, depth):
                    read(job[0], job[1][:above])
                jobs.append(job)
            except ValueError as error:
                yield Retrained(family.nodes[job], ids[job], None, {}, f"an ancestor cannot be read: {error}")
        for call in build(setup, slices, jobs, read):
            for job, trained in call.nodes:
                yield Retrained(family.nodes[job], ids[job], trained, inputs.stack_of(here, call, seen(*job)))
