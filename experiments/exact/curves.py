"""Every planner under streams of deletions: nodes that are trained once, their logits, and the rows that these give."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from experiments.configs.s3t import Study
from experiments.core import keys, progress
from experiments.core.keys import Purpose
from experiments.core.machines import processes
from experiments.core.results import Row
from experiments.core.workdirs import Workdir
from experiments.exact import node_files, nodes, study
from experiments.exact.data import Data
from experiments.exact.node_files import Logits
from experiments.exact.nodes import NOBODY, Build, Builder
from experiments.exact.rows import make_row
from experiments.exact.scores import TRUTH
from s3t.plans import planners, simulate, structure
from s3t.plans.structure import Plan
from s3t.service import ensemble
from s3t.training.arrangement import counts


def plans(wanted: Study, slices: int) -> dict[str, Plan]:
    """The plan of each planner that is compared."""
    return study.at_equal_flops(wanted.planners, slices, budget_flops(wanted, slices))


def budget_flops(wanted: Study, slices: int) -> float:
    """What planners with a budget should come near to."""
    return wanted.flops or structure.flops(planners.lattice(slices))


def passes(builder: Builder, wanted: Study) -> float:
    """What the rows of a seed are expected to take, see `nodes.passes`."""
    every = study.union(list(plans(wanted, builder.slices).values()))
    return builder.passes(structure.flops(every), builder.train.epochs)


def rows(workdir: Workdir, data: Data, builder: Builder, wanted: Study, seed: int) -> list[Row]:
    """Every planner and aggregate of one seed under streams of deletions, from nodes that are trained once."""
    every = study.union(list(plans(wanted, builder.slices).values()))
    build = builder.of_plan(every, seed, builder.shards)
    file, folder = workdir.path / "logits" / f"nodes-{seed}.npz", workdir.path / f"nodes-{seed}"
    progress.stage(f"train the nodes of all planners, seed {seed}", passes(builder, wanted))
    measured = workdir.stage(f"nodes-{seed}", lambda: _train(data, build, folder, file), beside=file)
    progress.skip()  # what was not reported had been done before
    processes.first(lambda: node_files.drop(folder))
    progress.stage(f"streams of deletions, seed {seed}")
    return processes.first(lambda: _rows(data, builder, wanted, seed, measured, file))


def _rows(data: Data, builder: Builder, wanted: Study, seed: int, measured: dict[str, Any], file: Path) -> list[Row]:
    """The rows of a seed, from the logits of its nodes."""
    logits, first = node_files.read_logits(file), streams(builder, wanted.streams, seed)
    found = []
    for name, plan in plans(wanted, builder.slices).items():
        per_shard = {what: sum(measured[what][str(len(node))] for node in plan.nodes) for what in ("seconds", "bytes")}
        extra = {
            "budget_flops": budget_flops(wanted, builder.slices),
            "flops_plain": structure.flops(plan),
            "flops_cached": structure.flops(plan, cached=True),
            "stages": len(plan.nodes),
        }
        cost = {
            "train_seconds": per_shard["seconds"] * builder.shards,
            "train_flops": builder.flops(structure.flops(plan), builder.train.epochs),
            "unlearn_seconds": 0.0,
            "unlearn_flops": 0.0,
            "storage_bytes": per_shard["bytes"] * builder.shards,
        }
        for aggregate in ensemble.AGGREGATES:
            curve = judged(data, plan, logits, first, aggregate, wanted.deletions)
            ends = {when: curve.pop(when) for when in ("before", "after")}
            known = {"facts": {"planner": name, "aggregate": aggregate}, "steps": curve["requests"][-1]}
            label = ("s3t", f"{name} / {aggregate}")
            found.append(make_row(data.name, label, seed, **ends, **cost, **known, extra=extra | curve))
    return found


def _train(data: Data, build: Build, folder: Path, file: Path) -> dict[str, Any]:
    """Train the nodes of all plans and keep their logits in `file`; the nodes themselves are in `folder` meanwhile."""
    kept, before = processes.first(lambda: node_files.read(folder, build.setup))
    progress.skip(sum(build.passes(node) for _, node in kept))
    trained, now = nodes.train(build, NOBODY, kept, functools.partial(node_files.keep, folder))
    logits = nodes.every_logits(data, build, trained)
    processes.first(lambda: node_files.write_logits(file, logits))
    spent, sizes = before | now, nodes.node_bytes(trained.values())

    def mean_seconds(depth: int) -> float:
        return float(np.mean([seconds for job, seconds in spent.items() if len(job[1]) == depth]))

    return {
        "nodes": len(trained),
        "seconds": {str(depth): mean_seconds(depth) for depth in sorted({len(node) for _, node in trained})},
        "bytes": {str(len(node)): size for (_, node), size in zip(trained, sizes, strict=True)},
    }


def streams(builder: Builder, count: int, seed: int) -> np.ndarray:
    """Streams of deletions that fall on all examples alike: on each slice by its size."""
    sizes = counts(builder.places(seed), builder.shards, builder.slices)
    return simulate.by_prior(keys.generator(seed, Purpose.DELETION_STREAMS), count, sizes / sizes.sum())


def judged(data: Data, plan: Plan, logits: Logits, first: np.ndarray, aggregate: str, deletions: int) -> dict[str, Any]:
    """A plan's curve on test data, and its scores before and after the deletions.

    Args:
      plan: of every shard.
      logits: of all its nodes.
      first: [streams, shards, slices] the request that hits each slice first.
      aggregate: one of `ensemble.AGGREGATES`.
      deletions: how far to look ahead.
    """
    table = study.answers(plan, logits, first.shape[1], aggregate)
    requests = range(deletions + 1)

    def part(where: slice) -> study.Answers:
        return table._replace(logits=table.logits[:, :, where])

    validation, test, questions = data.parts
    curve = study.judge(plan, part(test), first, requests, data.target.part(test))
    if (truth := data.truth) and table.logits.shape[2] == data.examples:  # nodes of an older version were not asked
        curve[TRUTH] = study.shown(simulate.estimate(study.scores(part(questions), study.masks(first, requests), truth)))
    states = study.masks(first, [0, requests[-1]])
    valid = study.scores(part(validation), states, data.target.part(validation)).mean(axis=0)
    name = data.target.name
    return curve | {
        when: {f"test_{name}": curve[name]["mean"][at], f"validation_{name}": float(valid[at])}
        for when, at in (("before", 0), ("after", -1))
    }
