"""Build a store, delete a stream of examples, heal, and judge S3T beside its peers.

`run(config, workdir)` is what the command line and a notebook call. Every finished stage is kept, a store resumes by
itself, and a repeated deletion is answered as it was: the same call goes on after a kill.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from experiments.configs.s3t import S3TStudy
from experiments.core import environment, keys, workdirs
from experiments.core.errors import UserError, blame_user
from experiments.core.files import read_arrays, unreadable, write_arrays
from experiments.core.keys import Purpose
from experiments.core.results import Row, Run
from experiments.core.workdirs import AGAIN
from experiments.exact import baselines, context, node_files, report, study
from experiments.exact.context import Bench, Build
from s3t.plans import planners, simulate, structure
from s3t.plans.structure import Plan
from s3t.service import creation, ensemble, healing, inputs, verify
from s3t.service.serving import Server
from s3t.store import deletions, disk, records
from s3t.store.disk import Store
from s3t.training.arrangement import counts
from s3t.training.stages import Job

NOBODY = np.zeros(0, np.int64)  # who is left out of a training


def run(config: ml_collections.ConfigDict | S3TStudy, workdir: str, command: str = "") -> Run:
    """Run or resume what `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = context.resolved(config)
        folder = workdirs.Workdir(workdir, config.retired)
        if found := folder.finished(config.model_dump()):
            return found
        source = context.look(config)
    with folder.claimed(config.model_dump()):
        bench = context.set_up(config, folder, source)
        built = _build_store(bench)
        rows: list[Row] = []
        for seed in context.seeds(config):
            rows += _study(bench, seed)
            rows += _baselines(bench, seed)
        return folder.finish(command, [_from_store(bench, built), *rows])


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    return report.present(workdir, found)


# --- The store --------------------------------------------------------------------------------------------------------


@blame_user()
def _opened(bench: Bench) -> Store:
    """The run's store, made and filled with the ids of the training examples if it was never built.

    Raises:
      UserError: a store that was built and is not there, for another would not know of its deletions; one that is damaged.
    """
    config, root = bench.config, bench.workdir.path / "store"
    if disk.exists(root):
        opened = disk.open(root)
        creation.ensure_examples(opened, bench.source)  # a kill may have come before
        return opened
    if bench.workdir.has("build"):
        raise UserError(f"{root} was built but is no store now: restore it from a copy, or use an empty --workdir")
    return creation.make_store(
        str(root),
        bench.source,
        context.chosen_plan(config),
        config.shards,
        config.seed,
        context.partition_key(config.seed),
        factory=context.FACTORY,
        arguments=bench.arguments,
    )


def _build_store(bench: Bench) -> dict[str, Any]:
    """Train every node of the store, before anything is deleted."""

    def compute() -> dict[str, Any]:
        opened = _opened(bench)
        with environment.stopwatch() as clock:
            healing.train_missing(opened, bench.source)
            seconds = clock()
        nodes = _serving(opened, bench)
        served = _served(bench, _server(opened, bench))
        disk.close(opened)
        return {"seconds": seconds, "bytes": sum(context.node_bytes(nodes.values())), **served}

    return bench.workdir.stage("build", compute)


def _serving(opened: Store, bench: Bench) -> context.Nodes:
    """The nodes that serve, from their files."""
    setup = inputs.setup_of(opened.manifest, bench.source)
    places = inputs.serving(opened)
    read = inputs.reader(opened, setup, places)
    return {place: read(*place) for place in places}


def _server(opened: Store, bench: Bench) -> Server:
    source = bench.source
    return Server(opened, source.backbone, source.frozen, source.recipe.lora, batch_size=min(512, len(bench.x)))


def _served(bench: Bench, server: Server) -> dict[str, Any]:
    """Accuracies and depths of what the store serves now; without a model nothing is answered, which is never right."""
    server.refresh()
    if server.view.damaged:  # shallower nodes would answer, and the accuracy be another one
        store = bench.workdir.path / "store"
        raise UserError(f"{server.view.damaged[0]}: restore it by `python -m s3t heal --store {store}`, then go on")
    if not any(server.view.depth):
        return {"validation_accuracy": 0.0, "test_accuracy": 0.0, "depth": list(server.view.depth)}
    answer = server.predict(bench.x)
    return {**context.scored(bench, answer.logits), "depth": list(answer.depth)}


def _from_store(bench: Bench, built: dict[str, Any]) -> Row:
    """Delete a stream of examples from the store, one by one, and heal it: the row of the real thing."""
    config, stage = bench.config, bench.workdir.stage
    order = context.deletion_order(bench, config.seed)[: config.deletions]
    opened = _opened(bench)
    server = _server(opened, bench)

    def delete(number: int) -> dict[str, Any]:
        done = disk.delete(opened, [int(bench.source.ids[order[number]])], f"stream-{number}")
        began = time.perf_counter()
        disk.purge(opened)
        purged = 1e3 * (time.perf_counter() - began)
        kept = {name: done[name] for name in ("ids", "nodes_dropped", "acknowledged_ms", "head")}
        return kept | {"purged_ms": purged} | _served(bench, server)

    def heal() -> dict[str, Any]:
        with environment.stopwatch() as clock:
            healing.heal(opened, bench.source)
            seconds = clock()
        requests = len(deletions.requests(opened.ledger, "healed"))
        nodes = records.count_published(opened.ledger) - config.shards * len(
            opened.manifest.nodes
        )  # by killed processes, too
        return {"nodes": nodes, "seconds": seconds, "requests": requests, **_served(bench, server)}

    stream = [stage(f"deletion-{number:05}", lambda n=number: delete(n)) for number in range(len(order))]
    healed = stage("heal", heal)
    disk.close(opened)
    proof = stage("verify", lambda: verify.verify(bench.workdir.path / "store", *(one["head"] for one in stream)))
    plan = context.chosen_plan(config)
    where = context.places(bench.source, config.shards, config.slices, config.seed)
    hit = baselines.hit_slices(where, order, config.shards)
    to_heal = sum(baselines.s3t_flops_to_heal(plan.nodes, config.slices, gone) for gone in hit) / config.shards
    latency = float(np.mean([one["acknowledged_ms"] for one in stream])) / 1e3 if stream else 0.0
    return _row(
        bench,
        ("s3t", f"{config.planner} / store"),
        config.seed,
        before=_scores(built),
        after=_scores(stream[-1] if stream else built),
        steps=len(stream),
        train_seconds=built["seconds"],
        unlearn_seconds=latency,
        train_flops=context.absolute(bench, structure.flops(plan)),
        unlearn_flops=0.0,
        storage_bytes=built["bytes"],
        facts={"planner": config.planner, "store": True},
        extra={
            "stream": stream,
            "built": built,
            "healed": healed,
            "heal_flops": context.absolute(bench, to_heal),
            "verified": {name: proof[name] for name in ("ok", "problems")},
        },
    )


# --- The study --------------------------------------------------------------------------------------------------------


def _study(bench: Bench, seed: int) -> list[Row]:
    """Every planner and aggregate of one seed under streams of deletions, from nodes that are trained once."""
    config = bench.config
    budget = context.budget_flops(config)
    chosen = study.at_equal_flops(config.study.planners, config.slices, budget)
    every, file = study.union(list(chosen.values())), _logits_file(bench, f"nodes-{seed}")
    folder = bench.workdir.path / f"nodes-{seed}"
    told = bench.workdir.stage(f"nodes-{seed}", lambda: _nodes(bench, seed, every, folder), beside=file)
    node_files.drop(folder)
    logits, first = _load(bench, f"nodes-{seed}"), _streams(bench, seed)
    rows = []
    for name, plan in chosen.items():
        per_shard = {what: sum(told[what][str(len(node))] for node in plan.nodes) for what in ("seconds", "bytes")}
        extra = {
            "budget_flops": budget,
            "flops_plain": structure.flops(plan),
            "flops_cached": structure.flops(plan, cached=True),
            "stages": len(plan.nodes),
        }
        cost = {
            "train_seconds": per_shard["seconds"] * config.shards,
            "train_flops": context.absolute(bench, structure.flops(plan)),
            "unlearn_seconds": 0.0,
            "unlearn_flops": 0.0,
            "storage_bytes": per_shard["bytes"] * config.shards,
        }
        for aggregate in ensemble.AGGREGATES:
            judged = _judged(bench, plan, logits, first, aggregate)
            ends = {when: judged.pop(when) for when in ("before", "after")}
            known = {"facts": {"planner": name, "aggregate": aggregate}, "steps": judged["requests"][-1]}
            rows.append(_row(bench, ("s3t", f"{name} / {aggregate}"), seed, **ends, **cost, **known, extra=extra | judged))
    return rows


def _nodes(bench: Bench, seed: int, plan: Plan, folder: Path) -> dict[str, Any]:
    """Train the nodes of all plans and keep their logits; the nodes themselves are in `folder` meanwhile."""
    build = context.of_plan(bench, plan, seed, bench.config.shards)
    kept, before = node_files.read(folder, build.setup)
    nodes, now = context.train_build(build, NOBODY, kept, functools.partial(node_files.keep, folder))
    _save(bench, f"nodes-{seed}", build, nodes)
    spent, sizes = before | now, context.node_bytes(nodes.values())
    depths = {len(node) for node in plan.nodes}
    mean = lambda depth: float(np.mean([seconds for job, seconds in spent.items() if len(job[1]) == depth]))  # noqa: E731
    return {
        "nodes": len(nodes),
        "seconds": {str(depth): mean(depth) for depth in sorted(depths)},
        "bytes": {str(len(node)): size for (_, node), size in zip(nodes, sizes, strict=True)},
    }


def _save(bench: Bench, name: str, build: Build, nodes: context.Nodes) -> None:
    """Keep the logits of nodes, whole or not at all."""
    logits = {node_files.name(job): context.logits_of(bench, build, nodes, job) for job in nodes}
    write_arrays(_logits_file(bench, name), logits)


def _logits_file(bench: Bench, name: str) -> Path:
    return bench.workdir.path / "logits" / f"{name}.npz"


def _load(bench: Bench, name: str) -> dict[Job, np.ndarray]:
    """Logits by shard and node.

    Raises:
      WorkdirError: the file is damaged.
    """
    path = _logits_file(bench, name)
    arrays = read_arrays(path, AGAIN)
    try:
        return {node_files.parse(label): logits for label, logits in arrays.items()}
    except ValueError as error:  # arrays of something else
        raise unreadable(path, error, AGAIN) from error


def _streams(bench: Bench, seed: int) -> np.ndarray:
    """Streams of deletions that fall on all examples alike: on each slice by its size."""
    config = bench.config
    count = counts(context.places(bench.source, config.shards, config.slices, seed), config.shards, config.slices)
    return simulate.by_prior(keys.generator(seed, Purpose.DELETION_STREAMS), config.study.streams, count / count.sum())


def _judged(bench: Bench, plan: Plan, logits: dict[Job, np.ndarray], first: np.ndarray, aggregate: str) -> dict[str, Any]:
    """A plan's curve on test data, and its scores before and after the deletions."""
    table = study.answers(plan, logits, bench.config.shards, aggregate)
    requests = range(bench.config.study.deletions + 1)
    part = lambda where: table._replace(logits=table.logits[:, :, where])  # noqa: E731
    validation, test = slice(bench.held), slice(bench.held, None)
    judged = study.judge(plan, part(test), first, requests, bench.y[test])
    states = study.masks(first, [0, requests[-1]])
    valid = study.accuracy(part(validation), states, bench.y[validation]).mean(axis=0)
    return judged | {
        when: {"test_accuracy": judged["accuracy"]["mean"][at], "validation_accuracy": float(valid[at])}
        for when, at in (("before", 0), ("after", -1))
    }


# --- Baselines --------------------------------------------------------------------------------------------------------


def _baselines(bench: Bench, seed: int) -> list[Row]:
    """One adapter on all data and its retraining, SISA with and without retraining, and S3T in one shard beside them."""
    config, stage = bench.config, bench.workdir.stage
    after = sorted({0, *config.retrain_after})
    lora = [stage(f"lora-{seed}-{k}", lambda k=k: _full_lora(bench, seed, k)) for k in after]
    sisa = stage(f"sisa-{seed}", lambda: _sisa(bench, seed, after))
    one = stage(f"one-shard-{seed}", lambda: _one_shard(bench, seed))
    where = context.places(bench.source, config.shards, config.slices, seed)
    order = context.deletion_order(bench, seed)[: after[-1]]
    whole = baselines.sisa_flops(config.slices)
    suffix = baselines.sisa_flops_per_deletion(where, order, config.shards, config.slices)
    flops = {units: context.absolute(bench, units, "full_lora") for units in (baselines.lora_flops(), whole, suffix)}
    of_lora = {"train_seconds": lora[0]["seconds"], "train_flops": flops[baselines.lora_flops()]}
    of_sisa = {"train_seconds": sisa["seconds"], "train_flops": flops[whole]}
    again = {"unlearn_seconds": float(np.mean([s["seconds"] for s in lora])), "unlearn_flops": of_lora["train_flops"]}
    suffixes = {"unlearn_seconds": sisa["seconds"] * suffix / whole, "unlearn_flops": flops[suffix]}
    rollback = sisa.pop("rollback")
    units = structure.flops(planners.sisa(config.slices))
    of_one = {"train_seconds": one["seconds"], "train_flops": context.absolute(bench, units)}
    ends = {when: rollback.pop(when) for when in ("before", "after")}
    size = lambda done: {"storage_bytes": done["bytes"]}  # noqa: E731
    row = lambda name, fields, extra: _row(bench, name, seed, **fields, extra=extra)  # noqa: E731
    return [
        row(("lora", "default"), of_lora | _ends(lora[:1], 0) | size(lora[0]), {}),
        row(("full", "default"), of_lora | again | _ends(lora, after[-1]) | size(lora[0]), _curve(lora, after)),
        row(
            ("sisa", "retrain"),
            of_sisa | suffixes | _ends(sisa["retrain"], after[-1]) | size(sisa),
            _curve(sisa["retrain"], after),
        ),
        row(
            ("sisa", "rollback"),
            of_sisa | {"unlearn_seconds": 0.0, "unlearn_flops": 0.0, "steps": rollback["requests"][-1]} | ends | size(sisa),
            {"stages": config.slices, "flops_plain": whole} | rollback,
        ),
        row(("s3t", "one shard"), of_one | _ends(one["depths"][-1:], 0) | size(one), {"by_depth": one["depths"]}),
    ]


def _ends(scores: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    return {"before": _scores(scores[0]), "after": _scores(scores[-1]), "steps": steps}


def _curve(scores: list[dict[str, Any]], after: list[int]) -> dict[str, Any]:
    """Accuracy at the few numbers of deletions after which something was retrained."""
    return {"requests": after, "accuracy": {"mean": [one["test_accuracy"] for one in scores]}}


def _full_lora(bench: Bench, seed: int, deletions: int) -> dict[str, Any]:
    """One adapter on all blocks, trained on what is left after some deletions."""
    build = context.of_full_lora(bench, seed)
    nodes, spent = context.train_build(build, context.deletion_order(bench, seed)[:deletions])
    return _told(spent, nodes) | context.scored(bench, context.logits_of(bench, build, nodes, (0, (0,))))


def _sisa(bench: Bench, seed: int, after: Sequence[int]) -> dict[str, Any]:
    """SISA: its checkpoints under streams of deletions, and what it is after retraining the suffixes that were hit."""
    config, build = bench.config, context.of_sisa(bench, seed)
    nodes, spent = context.train_build(build, NOBODY)
    logits = {job: context.logits_of(bench, build, nodes, job) for job in nodes}
    order = context.deletion_order(bench, seed)
    retrained = []
    for k in after:
        hit = baselines.hit_slices(build.places, order[:k], config.shards)
        kept = {(shard, node): trained for (shard, node), trained in nodes.items() if hit[shard].isdisjoint(node)}
        now, _ = context.train_build(build, order[:k], kept)
        served = [context.logits_of(bench, build, now, job) for job in now if len(job[1]) == config.slices]
        retrained.append(context.scored(bench, np.mean(served, axis=0)))
    rollback = _judged(bench, build.setup.plan, logits, _streams(bench, seed), "mean")
    return _told(spent, nodes) | {"rollback": rollback, "retrain": retrained}


def _one_shard(bench: Bench, seed: int) -> dict[str, Any]:
    """One sequence on all data, scored at every depth: what is to be held against full LoRA."""
    build = context.of_plan(bench, planners.sisa(bench.config.slices), seed, 1)
    nodes, spent = context.train_build(build, NOBODY)
    logits = [context.logits_of(bench, build, nodes, (0, node)) for node in build.setup.plan.nodes]
    return _told(spent, nodes) | {"depths": [context.scored(bench, one) for one in logits]}


def _told(spent: dict[Job, float], nodes: context.Nodes) -> dict[str, Any]:
    return {"seconds": sum(spent.values()), "bytes": sum(context.node_bytes(nodes.values()))}


# --- Rows -------------------------------------------------------------------------------------------------------------


def _row(bench: Bench, name: tuple[str, str], seed: int, **fields: Any) -> Row:
    """A row of (training, variant), with what all rows of a run have in common."""
    training, variant = name
    known = {"unlearner": "none", "setting": "deletions", "dataset": bench.config.data.name, "stop": "reached"}
    return Row(training=training, variant=variant, seed=seed, **known, **fields)


def _scores(scores: dict[str, Any]) -> dict[str, float]:
    return {name: scores[name] for name in ("test_accuracy", "validation_accuracy")}
