"""The store of a study: built on disk, deleted from example by example, healed, and verified."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.core import progress
from experiments.core.errors import UserError, WorkdirError, blame_user
from experiments.core.machines import environment, processes
from experiments.core.results import Row
from experiments.core.workdirs import Workdir
from experiments.exact import baselines, nodes, sharing
from experiments.exact.data import Data
from experiments.exact.nodes import Builder, Nodes
from experiments.exact.rows import make_row, scores
from s3t.plans import planners, structure
from s3t.plans.structure import Plan
from s3t.service import creation, healing, inputs, verify
from s3t.service.serving import Server
from s3t.store import deletions, disk
from s3t.store.disk import Store
from s3t.store.ledger import records
from s3t.store.publishing import Draft
from s3t.training.schedule import Build

FACTORY = "experiments.exact.factory:make"
FOLDER = "store"  # in the workdir


class Design(NamedTuple):
    """Which store is made, and what it goes through.

    planner: the name of the plan's.
    plan: of every shard.
    seed: of the partition, of the nodes and of the deletions.
    arguments: that the factory is called with, as the manifest keeps them.
    deletions: how many, one after the other.
    """

    planner: str
    plan: Plan
    seed: int
    arguments: dict[str, Any]
    deletions: int


def make_plan(planner: str, slices: int, budget: float) -> Plan:
    """The plan of a store; a budget of 0 is the planner's default.

    Raises:
      ValueError: a budget that the planner cannot keep.
    """
    return planners.PLANNERS[planner](slices, budget or None, None)


# --- Building ---------------------------------------------------------------------------------------------------------


@blame_user()
def opened(workdir: Workdir, builder: Builder, design: Design, built: bool) -> Store:
    """The run's store, made and filled with the ids of the training examples if it was never built; for process 0.

    Args:
      built: whether it was.

    Raises:
      UserError: a store that was built and is not there, for another would not know of its deletions; one that is damaged.
    """
    root = workdir.path / FOLDER
    if disk.exists(root):
        store = disk.open(root)
        creation.ensure_examples(store, builder.source)  # a kill may have come before
        return store
    if built:
        raise UserError(f"{root} was built but is no store now: restore it from a copy, or use an empty --workdir")
    return creation.make_store(
        str(root),
        builder.source,
        design.plan,
        builder.shards,
        design.seed,
        nodes.partition_key(design.seed),
        factory=FACTORY,
        arguments=design.arguments,
    )


def build(workdir: Workdir, data: Data, builder: Builder, design: Design) -> dict[str, Any]:
    """Train every node of the store, before anything is deleted."""

    _check_kept(workdir, design.deletions)

    def compute(build: Build) -> dict[str, Any]:
        store = opened(workdir, builder, design, built=False)
        with environment.stopwatch() as clock:
            healing.train_missing(store, builder.source, report=_advance(builder), build=build)
            seconds = clock()
        trained = serving(store, data)
        served = _served(workdir, data, _server(store, data), {})
        disk.close(store)
        return {"seconds": seconds, "bytes": sum(nodes.node_bytes(trained.values())), **served}

    progress.stage("build the store", builder.passes(structure.flops(design.plan), builder.train.epochs))
    built: dict[str, Any] = workdir.stage("build", lambda: sharing.led(builder.source, compute))
    progress.skip()  # what was not reported had been done before
    return built


def _check_kept(workdir: Workdir, deletions: int) -> None:
    """Refuse a workdir whose store went on after a stage that is not kept: what was served then cannot be measured again.

    Raises:
      WorkdirError: one line that names the stage.
    """
    stages = ("build", *map(_deletion, range(deletions)), "heal")
    lacking = list(itertools.dropwhile(workdir.has, stages))
    if any(map(workdir.has, lacking)) and processes.first(lambda: disk.exists(workdir.path / FOLDER)):
        raise WorkdirError(
            f"{workdir.path} lacks stages/{lacking[0]}.json, and its store has changed since: put a copy of the file back, "
            "or use an empty --workdir"
        )


def _deletion(number: int) -> str:
    return f"deletion-{number:05}"


def _advance(builder: Builder) -> Callable[[Draft], None]:
    """What counts a node of one shard as done."""

    def report(draft: Draft) -> None:
        units = structure.node_flops(draft.slices, builder.slices) / builder.shards
        progress.advance(builder.passes(units, builder.train.epochs))

    return report


def serving(store: Store, data: Data) -> Nodes:
    """The nodes that serve, from their files."""
    setup = inputs.setup_of(store.manifest, data.source)
    places = inputs.serving(store)
    read = inputs.reader(store, setup, places)
    return {place: read(*place) for place in places}


def _server(store: Store, data: Data) -> Server:
    source = data.source
    return Server(store, source.backbone, source.frozen, source.recipe.lora, batch_size=nodes.at_once(data))


def _served(workdir: Workdir, data: Data, server: Server, known: dict[frozenset[str], dict[str, float]]) -> dict[str, Any]:
    """Scores and depths of what the store serves now, if it serves.

    Args:
      known: the scores that some nodes had, by their identities: while the same serve, nothing is asked again.
    """
    server.refresh()
    if server.view.damaged:  # shallower nodes would answer, and the score be another one
        root = workdir.path / FOLDER
        raise UserError(f"{server.view.damaged[0]}: restore it by `python -m s3t heal --store {root}`, then go on")
    serving = frozenset(server.view.seats)
    if serving not in known:
        known[serving] = data.scored(server.predict(data.x).logits if any(server.view.depth) else None)
    return {**known[serving], "depth": list(server.view.depth)}


# --- Deleting and healing ---------------------------------------------------------------------------------------------


def passes(data: Data, builder: Builder, design: Design) -> float:
    """What `build` and `row` are expected to take, see `nodes.passes`."""
    build = builder.passes(structure.flops(design.plan), builder.train.epochs)
    heal = builder.passes(_units_to_heal(builder, design), builder.train.epochs)
    return build + design.deletions * _to_serve(data, builder) + heal


def _to_serve(data: Data, builder: Builder) -> float:
    """To answer all that is scored, a pass forward in every shard."""
    return data.examples * builder.shards / 2


def _units_to_heal(builder: Builder, design: Design) -> float:
    """Units (see `structure.node_flops`) that healing takes once, a mean over shards."""
    order = nodes.deletion_order(builder.source.ids, design.seed)[: design.deletions]
    hit = baselines.hit_slices(builder.places(design.seed), order, builder.shards)
    return sum(baselines.s3t_flops_to_heal(design.plan.nodes, builder.slices, gone) for gone in hit) / builder.shards


def row(workdir: Workdir, data: Data, builder: Builder, design: Design, built: dict[str, Any]) -> Row:
    """Delete a stream of examples from the store, one by one, and heal it: the row of the real thing.

    Args:
      built: from `build`.
    """
    has_store = workdir.has("build")
    store = processes.kept(lambda: opened(workdir, builder, design, has_store))
    server = processes.kept(lambda: _server(store, data))
    stream = _delete(workdir, data, builder, design, store, server)
    to_heal = _units_to_heal(builder, design)
    progress.stage("heal the store", builder.passes(to_heal, builder.train.epochs))
    heal = functools.partial(_heal, workdir, data, builder, store, server)
    healed = workdir.stage("heal", lambda: sharing.led(builder.source, heal))
    progress.skip()
    processes.first(lambda: disk.close(store))
    progress.stage("verify the store")
    check = functools.partial(verify.verify, workdir.path / FOLDER, *(one["head"] for one in stream))
    proof = workdir.stage("verify", lambda: processes.first(check))
    return make_row(
        data.name,
        ("s3t", f"{design.planner} / store"),
        design.seed,
        before=scores(built),
        after=scores(stream[-1] if stream else built),
        steps=len(stream),
        train_seconds=built["seconds"],
        unlearn_seconds=float(np.mean([one["acknowledged_ms"] for one in stream])) / 1e3 if stream else 0.0,
        train_flops=builder.flops(structure.flops(design.plan), builder.train.epochs),
        unlearn_flops=0.0,
        storage_bytes=built["bytes"],
        facts={"planner": design.planner, "store": True},
        extra={
            "stream": stream,
            "built": built,
            "healed": healed,
            "heal_flops": builder.flops(to_heal, builder.train.epochs),
            "verified": {name: proof[name] for name in ("ok", "problems")},
        },
    )


def _delete(
    workdir: Workdir, data: Data, builder: Builder, design: Design, store: Store, server: Server
) -> list[dict[str, Any]]:
    """What came of each deletion: what it took, and what served after it; process 0 has the store and its server."""
    order = nodes.deletion_order(builder.source.ids, design.seed)[: design.deletions]
    known: dict[frozenset[str], dict[str, float]] = {}

    def delete(number: int) -> dict[str, Any]:
        done = disk.delete(store, [int(builder.source.ids[order[number]])], f"stream-{number}")
        began = time.perf_counter()
        disk.purge(store)
        purged = 1e3 * (time.perf_counter() - began)
        kept = {name: done[name] for name in ("ids", "nodes_dropped", "acknowledged_ms", "head")}
        found = kept | {"purged_ms": purged} | _served(workdir, data, server, known)
        progress.advance(_to_serve(data, builder))
        return found

    progress.stage(f"delete {len(order)} examples", len(order) * _to_serve(data, builder))
    deletes = [functools.partial(processes.first, functools.partial(delete, number)) for number in range(len(order))]
    stream = [workdir.stage(_deletion(number), compute) for number, compute in enumerate(deletes)]
    progress.skip()
    return stream


def _heal(workdir: Workdir, data: Data, builder: Builder, store: Store, server: Server, build: Build) -> dict[str, Any]:
    with environment.stopwatch() as clock:
        healing.heal(store, builder.source, report=_advance(builder), build=build)
        seconds = clock()
    requests = len(deletions.requests(store.ledger, "healed"))
    published = records.count_published(store.ledger)  # by killed processes, too
    trained = published - builder.shards * len(store.manifest.nodes)
    return {"nodes": trained, "seconds": seconds, "requests": requests, **_served(workdir, data, server, {})}
