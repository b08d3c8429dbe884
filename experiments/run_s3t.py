"""Build a store, delete a stream of examples, heal, and judge S3T beside its peers.

`run(config, workdir)` is what the command line and a notebook call. Every finished stage is kept, a store resumes by
itself, and a repeated deletion is answered as it was: the same call goes on after a kill.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import results, s3t_baselines, s3t_bench, s3t_nodes, s3t_report, s3t_study
from experiments.s3t_bench import Bench, Build, Config
from s3t import plan as plans
from s3t import planners, simulate
from s3t import store as stores
from s3t.plan import Node, Plan
from s3t.store import Manifest, Store
from unlearn import tree

Row = dict[str, Any]
Job = tuple[int, Node]


def run(config: Config, workdir: str, command: str = "") -> dict[str, Any]:
    """Run or resume what `config` describes; a finished workdir is read back instead.

    Returns:
      The contents of results.json.

    Raises:
      ValueError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    config = s3t_bench.resolved(config)
    s3t_bench.check(config)
    folder = results.Workdir(workdir)
    if folder.results():
        folder.claim(config.to_dict())
        return folder.results()
    bench = s3t_bench.set_up(config, folder)
    built = _build_store(bench)
    rows: list[Row] = []
    for seed in s3t_bench.seeds(config):
        rows += _study(bench, seed, built)
        rows += _baselines(bench, seed)
    return folder.finish(command, [_from_store(bench, built), *rows])


def present(workdir: str, found: dict[str, Any]) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    return s3t_report.present(workdir, found)


# --- The store --------------------------------------------------------------------------------------------------------


def _opened(bench: Bench, root: Path, plan: Plan, seed: int) -> Store:
    """The store at a place, made and filled with the ids of the training examples if it is not there."""
    config = bench.config
    if (root / stores.MANIFEST).exists():
        opened = stores.open(root)
    else:
        shutil.rmtree(root, ignore_errors=True)  # what a kill left of its making
        hyper = {name: config[name].to_dict() for name in ("lora", "train")} | {"model": config.model}
        hyper["lora"]["targets"] = list(hyper["lora"]["targets"])
        digest = tree.digest(bench.frozen)
        key = s3t_bench.partition_key(seed).hex()
        made = Manifest("experiments.run_s3t:make", {}, digest, hyper, seed, config.shards, config.slices, plan.nodes, key)
        opened = stores.create(root, made)
    if not opened.ledger.execute("SELECT 1 FROM examples LIMIT 1").fetchone():
        build = s3t_bench.of_plan(bench, plan, seed, config.shards)
        stores.register(opened, bench.dataset.train.id.tolist(), build.places.shard, build.places.slice)
    return opened


def _build_store(bench: Bench) -> dict[str, Any]:
    """Train every node of the store, before anything is deleted."""
    plan, seed = s3t_bench.chosen_plan(bench.config), bench.config.seed

    def compute() -> dict[str, Any]:
        opened = _opened(bench, bench.workdir.path / "store", plan, seed)
        build = s3t_bench.of_plan(bench, plan, seed, bench.config.shards)
        nodes, seconds, counts = s3t_nodes.fill(opened, build, s3t_bench.examples(bench, build))
        scores = _served(bench, opened, build)
        stores.close(opened)
        size = sum(s3t_bench.node_bytes(nodes.values()))
        return {"seconds": sum(seconds.values()), "by_depth": [seconds, counts], "bytes": size, **scores}

    return bench.workdir.stage("build", compute)


def _from_store(bench: Bench, built: dict[str, Any]) -> Row:
    """Delete a stream of examples from the store, one by one, and heal it: the row of the real thing."""
    config, seed = bench.config, bench.config.seed
    plan = s3t_bench.chosen_plan(config)
    build = s3t_bench.of_plan(bench, plan, seed, config.shards)
    opened = _opened(bench, bench.workdir.path / "store", plan, seed)
    order = s3t_bench.deletion_order(bench, seed)[: config.deletions]
    cache: dict[str, np.ndarray] = {}

    def delete(number: int) -> dict[str, Any]:
        done = stores.delete(opened, [int(bench.dataset.train.id[order[number]])], f"stream-{number}")
        with results.stopwatch() as clock:
            stores.purge(opened)
            purged = 1e3 * clock()
        kept = {name: done[name] for name in ("ids", "nodes_dropped", "acknowledged_ms", "head")}
        return kept | {"purged_ms": purged} | _served(bench, opened, build, cache)

    def heal() -> dict[str, Any]:
        _, seconds, counts = s3t_nodes.fill(opened, build, s3t_bench.examples(bench, build, order))
        requests = stores.heal(opened)
        served = _served(bench, opened, build, cache)
        return {"nodes": sum(counts.values()), "seconds": sum(seconds.values()), "requests": len(requests), **served}

    stream = [bench.workdir.stage(f"deletion-{number:05}", lambda n=number: delete(n)) for number in range(len(order))]
    healed = bench.workdir.stage("heal", heal)
    proof = bench.workdir.stage("verify", lambda: stores.verify(bench.workdir.path / "store"))
    stores.close(opened)
    last = stream[-1] if stream else built
    hit = s3t_baselines.hit_slices(build.places, order, config.shards)
    to_heal = sum(s3t_baselines.s3t_flops_to_heal(plan.nodes, config.slices, gone) for gone in hit) / config.shards
    return _row(bench, "s3t", f"{config.planner} / store", seed) | {
        "before": _scores(built),
        "after": _scores(last),
        "steps": len(stream),
        "train_seconds": built["seconds"],
        "unlearn_seconds": float(np.mean([one["acknowledged_ms"] for one in stream])) / 1e3 if stream else 0.0,
        "train_flops": s3t_bench.absolute(bench, plans.flops(plan)),
        "unlearn_flops": 0.0,
        "extra": {
            "stream": stream,
            "built": built,
            "healed": healed,
            "heal_flops": s3t_bench.absolute(bench, to_heal),
            "verified": {name: proof[name] for name in ("ok", "problems")},
        },
    }


def _served(bench: Bench, opened: Store, build: Build, cache: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """Accuracies and depths of what the store serves now: the mean of the logits of each shard's deepest node.

    Args:
      cache: identity -> logits of what was served before; filled here.
    """
    cache = {} if cache is None else cache
    order = {node: at for at, node in enumerate(build.setup.plan.nodes)}
    live = sorted(stores.live(opened), key=lambda node: order[node.slices])
    by_shard = [[node for node in live if node.shard == shard] for shard in range(build.setup.shards)]
    deepest = [max(family, key=lambda node: len(node.slices), default=None) for family in by_shard]
    if missing := [node for node in deepest if node and node.identity not in cache]:
        nodes = s3t_nodes.serving(opened, build)
        cache.update({n.identity: s3t_bench.logits_of(bench, build, nodes, (n.shard, n.slices)) for n in missing})
    depth = [len(node.slices) if node else 0 for node in deepest]
    if not any(depth):  # no model answers, which is never right
        return {"validation_accuracy": 0.0, "test_accuracy": 0.0, "depth": depth}
    logits = np.mean([cache[node.identity] for node in deepest if node], axis=0)
    return {**s3t_bench.scored(bench, logits), "depth": depth}


# --- The study --------------------------------------------------------------------------------------------------------


def _study(bench: Bench, seed: int, built: dict[str, Any]) -> list[Row]:
    """Every planner and aggregate of one seed under streams of deletions, from nodes that are trained once."""
    config = bench.config
    chosen = s3t_study.at_equal_flops(config.study.planners, config.slices, s3t_bench.sequence_flops(config))
    whole = s3t_study.union([*chosen.values(), s3t_bench.chosen_plan(config)])
    told = bench.workdir.stage(f"nodes-{seed}", lambda: _nodes(bench, seed, whole, built if seed == config.seed else None))
    logits = _load(bench, f"nodes-{seed}")
    first = _streams(bench, seed)
    rows = []
    for name, plan in chosen.items():
        seconds = sum(told["node_seconds"][str(len(node))] or math.nan for node in plan.nodes) * config.shards
        size = sum(told["node_bytes"][str(len(node))] for node in plan.nodes) * config.shards
        for aggregate in s3t_study.AGGREGATES:
            judged = bench.workdir.stage(
                f"judged-{seed}-{name}-{aggregate}",
                lambda plan=plan, aggregate=aggregate: _judged(bench, plan, logits, first, aggregate),
            )
            extra = {
                "budget_flops": s3t_bench.sequence_flops(config),
                "flops_plain": plans.flops(plan),
                "flops_cached": plans.flops(plan, cached=True),
                "stages": len(plan.nodes),
                "storage_bytes": size,
            }
            rows.append(
                _row(bench, "s3t", f"{name} / {aggregate}", seed)
                | {"before": judged.pop("before"), "after": judged.pop("after"), "steps": judged["requests"][-1]}
                | {"train_seconds": seconds, "unlearn_seconds": 0.0, "unlearn_flops": 0.0}
                | {"train_flops": s3t_bench.absolute(bench, plans.flops(plan)), "extra": extra | judged}
            )
    return rows


def _nodes(bench: Bench, seed: int, plan: Plan, built: dict[str, Any] | None) -> dict[str, Any]:
    """Train the nodes of all plans in a store that is removed again, and keep their logits.

    Args:
      built: what the stage of the run's store said, if its nodes are this seed's and need not be trained again.
    """
    root = bench.workdir.path / "study"
    build = s3t_bench.of_plan(bench, plan, seed, bench.config.shards)
    opened = _opened(bench, root, plan, seed)
    if built:
        elder = stores.look(bench.workdir.path / "store")
        s3t_nodes.inherit(opened, elder)
        stores.close(elder)
    nodes, *spent = s3t_nodes.fill(opened, build, s3t_bench.examples(bench, build))
    _save(bench, f"nodes-{seed}", build, nodes)
    stores.close(opened)
    shutil.rmtree(root)
    depths = [len(node) for _, node in nodes]
    sizes = s3t_bench.node_bytes(nodes.values())
    return {
        "nodes": len(nodes),
        "node_seconds": _per_node(json.loads(results.dumps([spent, *([built["by_depth"]] if built else [])]))),
        "node_bytes": {str(depth): size for depth, size in zip(depths, sizes, strict=True)},
    }


def _per_node(parts: list[list[dict[str, float]]]) -> dict[str, float]:
    """Seconds of one node by depth, from (seconds, nodes) by depth of several trainings; NaN if they were killed before."""
    sums = {depth: [sum(part[i][depth] for part in parts) for i in (0, 1)] for depth in parts[0][0]}
    return {depth: seconds / nodes if nodes else math.nan for depth, (seconds, nodes) in sums.items()}


def _save(bench: Bench, name: str, build: Build, nodes: s3t_nodes.Nodes) -> None:
    """Keep the logits of nodes, whole or not at all."""
    (bench.workdir.path / "logits").mkdir(exist_ok=True)
    path = bench.workdir.path / "logits" / f"{name}.npz"
    found = {s3t_nodes.label(job): s3t_bench.logits_of(bench, build, nodes, job) for job in nodes}
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez(file, **found)
    path.with_suffix(".tmp").replace(path)


def _load(bench: Bench, name: str) -> dict[Job, np.ndarray]:
    with np.load(bench.workdir.path / "logits" / f"{name}.npz") as file:
        return {s3t_nodes.job_of(label): file[label] for label in file.files}


def _streams(bench: Bench, seed: int) -> np.ndarray:
    """Streams of deletions that fall on all examples alike: on each slice by its size."""
    config = bench.config
    count = s3t_bench.sizes(bench, seed)
    return simulate.by_prior(np.random.default_rng((seed, 0)), config.study.streams, count / count.sum())


def _judged(bench: Bench, plan: Plan, logits: dict[Job, np.ndarray], first: np.ndarray, aggregate: str) -> dict[str, Any]:
    """A plan's curve on test data, and its scores before and after the deletions."""
    table = s3t_study.answers(plan, logits, bench.config.shards, aggregate)
    held = len(bench.dataset.validation.id)
    labels = s3t_bench.labels(bench)
    requests = range(bench.config.study.deletions + 1)
    judged = s3t_study.judge(plan, table._replace(logits=table.logits[:, :, held:]), first, requests, labels[held:])
    valid = s3t_study.accuracy(
        table._replace(logits=table.logits[:, :, :held]), s3t_study.masks(first, [0, requests[-1]]), labels[:held]
    ).mean(axis=0)
    ends = zip(("before", "after"), (0, -1), valid, strict=True)
    return judged | {
        when: {"test_accuracy": judged["accuracy"]["mean"][at], "validation_accuracy": v} for when, at, v in ends
    }


# --- Baselines --------------------------------------------------------------------------------------------------------


def _baselines(bench: Bench, seed: int) -> list[Row]:
    """One adapter on all data and its retraining, SISA with and without retraining, and S3T in one shard beside them."""
    config, stage = bench.config, bench.workdir.stage
    after = sorted({0, *config.retrain_after})
    lora = [stage(f"lora-{seed}-{k}", lambda k=k: _full_lora(bench, seed, k)) for k in after]
    sisa = stage(f"sisa-{seed}", lambda: _sisa(bench, seed, after))
    one = stage(f"one-shard-{seed}", lambda: _one_shard(bench, seed))
    where = s3t_bench.places(bench.dataset, config.shards, config.slices, seed)
    order = s3t_bench.deletion_order(bench, seed)[: after[-1]]
    whole = s3t_baselines.sisa_flops(config.slices)
    suffix = s3t_baselines.sisa_flops_per_deletion(where, order, config.shards, config.slices)
    flops = {units: s3t_bench.absolute(bench, units, "full_lora") for units in (s3t_baselines.lora_flops(), whole, suffix)}
    of_lora = {"train_seconds": lora[0]["seconds"], "train_flops": flops[s3t_baselines.lora_flops()]}
    of_sisa = {"train_seconds": sisa["seconds"], "train_flops": flops[whole]}
    again = {"unlearn_seconds": float(np.mean([s["seconds"] for s in lora])), "unlearn_flops": of_lora["train_flops"]}
    suffixes = {"unlearn_seconds": sisa["seconds"] * suffix / whole, "unlearn_flops": flops[suffix]}
    rollback = sisa.pop("rollback")
    units = plans.flops(planners.sisa(config.slices))
    of_one = {"train_seconds": one["seconds"], "train_flops": s3t_bench.absolute(bench, units)}
    size = lambda done: {"storage_bytes": done["bytes"]}  # noqa: E731
    return [
        _row(bench, "lora", "default", seed) | of_lora | _ends(lora[:1], 0) | {"extra": size(lora[0])},
        _row(bench, "full", "default", seed)
        | (of_lora | again | _ends(lora, after[-1]))
        | {"extra": size(lora[0]) | _curve(lora, after)},
        _row(bench, "sisa", "retrain", seed)
        | (of_sisa | suffixes | _ends(sisa["retrain"], after[-1]))
        | {"extra": size(sisa) | _curve(sisa["retrain"], after)},
        _row(bench, "sisa", "rollback", seed)
        | (of_sisa | {"unlearn_seconds": 0.0, "unlearn_flops": 0.0, "steps": rollback["requests"][-1]})
        | {when: rollback.pop(when) for when in ("before", "after")}
        | {"extra": size(sisa) | rollback},
        _row(bench, "s3t", "one shard", seed)
        | (of_one | _ends(one["depths"][-1:], 0))
        | {"extra": size(one) | {"by_depth": one["depths"]}},
    ]


def _ends(scores: list[dict[str, Any]], steps: int) -> Row:
    return {"before": _scores(scores[0]), "after": _scores(scores[-1]), "steps": steps}


def _curve(scores: list[dict[str, Any]], after: list[int]) -> dict[str, Any]:
    """Accuracy at the few numbers of deletions after which something was retrained."""
    return {"requests": after, "accuracy": {"mean": [one["test_accuracy"] for one in scores]}}


def _full_lora(bench: Bench, seed: int, deletions: int) -> dict[str, Any]:
    """One adapter on all blocks, trained on what is left after some deletions."""
    build = s3t_bench.of_full_lora(bench, seed)
    gone = s3t_bench.deletion_order(bench, seed)[:deletions]
    nodes, seconds = s3t_nodes.train(build, s3t_bench.examples(bench, build, gone))
    scores = s3t_bench.scored(bench, s3t_bench.logits_of(bench, build, nodes, (0, (0,))))
    return {**scores, "seconds": sum(seconds.values()), "bytes": sum(s3t_bench.node_bytes(nodes.values()))}


def _sisa(bench: Bench, seed: int, after: Sequence[int]) -> dict[str, Any]:
    """SISA: its checkpoints under streams of deletions, and what it is after retraining the suffixes that were hit."""
    config, build = bench.config, s3t_bench.of_sisa(bench, seed)
    nodes, seconds = s3t_nodes.train(build, s3t_bench.examples(bench, build))
    logits = {job: s3t_bench.logits_of(bench, build, nodes, job) for job in nodes}
    order = s3t_bench.deletion_order(bench, seed)
    retrained = []
    for k in after:
        hit = s3t_baselines.hit_slices(build.places, order[:k], config.shards)
        kept = {(shard, node): trained for (shard, node), trained in nodes.items() if hit[shard].isdisjoint(node)}
        now, _ = s3t_nodes.train(build, s3t_bench.examples(bench, build, order[:k]), kept)
        served = [s3t_bench.logits_of(bench, build, now, job) for job in now if len(job[1]) == config.slices]
        retrained.append(s3t_bench.scored(bench, np.mean(served, axis=0)))
    return {
        "seconds": sum(seconds.values()),
        "bytes": sum(s3t_bench.node_bytes(nodes.values())),
        "rollback": _judged(bench, build.setup.plan, logits, _streams(bench, seed), "mean"),
        "retrain": retrained,
    }


def _one_shard(bench: Bench, seed: int) -> dict[str, Any]:
    """One sequence on all data, scored at every depth: what is to be held against full LoRA."""
    build = s3t_bench.of_plan(bench, planners.sisa(bench.config.slices), seed, 1)
    nodes, seconds = s3t_nodes.train(build, s3t_bench.examples(bench, build))
    depths = [s3t_bench.scored(bench, s3t_bench.logits_of(bench, build, nodes, (0, n))) for n in build.setup.plan.nodes]
    size = sum(s3t_bench.node_bytes(nodes.values()))
    return {"depths": depths, "seconds": sum(seconds.values()), "bytes": size}


# --- Rows -------------------------------------------------------------------------------------------------------------


def _row(bench: Bench, training: str, variant: str, seed: int) -> Row:
    return {
        "training": training,
        "variant": variant,
        "unlearner": "none",
        "setting": "deletions",
        "dataset": bench.dataset.name,
        "seed": seed,
        "stop": "reached",
    }


def _scores(scores: dict[str, Any]) -> dict[str, float]:
    return {name: scores[name] for name in ("test_accuracy", "validation_accuracy")}
