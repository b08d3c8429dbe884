"""What S3T is judged beside: one adapter on all blocks, its retraining, and SISA, all trained by the code of s3t.

Full LoRA is a plan of one slice: one slot owns all blocks and sees all examples. SISA trains one such model per shard slice
after slice and keeps a checkpoint after each. To s3t that is a model whose only trainable part is the head, since a node's
head starts where its parent's ended: `nodes.whole_in_head` puts the adapters of all blocks there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.configs.s3t import Study
from experiments.core import progress
from experiments.core.machines import processes
from experiments.core.results import Row
from experiments.core.workdirs import Workdir
from experiments.exact import curves, nodes
from experiments.exact.data import Data
from experiments.exact.nodes import NOBODY, Builder, Nodes, lora_flops
from experiments.exact.rows import Scored, make_row, scores
from s3t.plans import planners, structure
from s3t.plans.partition import Places
from s3t.plans.structure import Node, node_flops
from s3t.training.stages import Job

# --- FLOPs, in the unit of `structure.node_flops`: one forward pass of all blocks over a shard's examples, per epoch ---


def sisa_flops(slices: int, first: int = 0) -> float:
    """The stages of SISA from slice `first` on: stage d passes through all blocks with the examples of d + 1 slices."""
    return sum(lora_flops((d + 1) / slices) for d in range(first, slices))


def s3t_flops_to_heal(of_plan: Iterable[Node], slices: int, hit: set[int]) -> float:
    """What retraining the nodes of a shard that hold a hit slice costs, without cached prefixes."""
    return sum(node_flops(node, slices) for node in of_plan if hit & set(node))


def hit_slices(places: Places, order: np.ndarray, shards: int) -> list[set[int]]:
    """For each shard the slices of the examples at some positions."""
    return [set(places.slice[order][places.shard[order] == shard].tolist()) for shard in range(shards)]


def sisa_flops_per_deletion(places: Places, order: np.ndarray, shards: int, slices: int) -> float:
    """What the retraining of the hit shard's suffix costs on average, as a share of `sisa_flops` of all shards."""
    if not len(order):
        return 0.0
    return float(np.mean([sisa_flops(slices, int(first)) for first in places.slice[order]])) / shards


# --- Rows -------------------------------------------------------------------------------------------------------------


def rows(workdir: Workdir, data: Data, builder: Builder, wanted: Study, after: Sequence[int], seed: int) -> list[Row]:
    """One adapter on all data and its retraining, SISA with and without retraining, and S3T in one shard beside them.

    Args:
      wanted: the streams of deletions under which SISA goes back to its checkpoints.
      after: numbers of deletions after which is retrained, 0 first.
    """
    return [
        *_lora_rows(workdir, data, builder, after, seed),
        *_sisa_rows(workdir, data, builder, wanted, after, seed),
        _one_shard_row(workdir, data, builder, seed),
    ]


def _lora_rows(workdir: Workdir, data: Data, builder: Builder, after: Sequence[int], seed: int) -> list[Row]:
    trained, epochs = [], builder.full_lora.epochs
    for deletions in after:
        progress.stage(f"full LoRA without {deletions} examples, seed {seed}", builder.passes(lora_flops(), epochs))
        train = functools.partial(_full_lora, data, builder, seed, deletions)
        trained.append(workdir.stage(f"lora-{seed}-{deletions}", train))
        progress.skip()  # what was not reported had been done before
    flops = builder.flops(lora_flops(), epochs)
    cost = {"train_seconds": trained[0]["seconds"], "train_flops": flops, "storage_bytes": trained[0]["bytes"]}
    again = {"unlearn_seconds": float(np.mean([one["seconds"] for one in trained])), "unlearn_flops": flops}
    return [
        make_row(data.name, ("lora", "default"), seed, **_ends(trained[:1], 0), **cost),
        make_row(
            data.name, ("full", "default"), seed, **_ends(trained, after[-1]), **cost, **again, extra=_curve(trained, after)
        ),
    ]


def _sisa_rows(workdir: Workdir, data: Data, builder: Builder, wanted: Study, after: Sequence[int], seed: int) -> list[Row]:
    slices, epochs = builder.slices, builder.full_lora.epochs
    whole, order = sisa_flops(slices), nodes.deletion_order(data.source.ids, seed)[: after[-1]]
    suffix = sisa_flops_per_deletion(builder.places(seed), order, builder.shards, slices)
    progress.stage(f"SISA and its retraining, seed {seed}", len(after) * builder.passes(whole, epochs))
    sisa = workdir.stage(f"sisa-{seed}", lambda: _sisa(data, builder, wanted, after, seed))
    progress.skip()
    cost = {
        "train_seconds": sisa["seconds"],
        "train_flops": builder.flops(whole, epochs),
        "storage_bytes": sisa["bytes"],
    }
    again = {
        "unlearn_seconds": sisa["seconds"] * suffix / whole,
        "unlearn_flops": builder.flops(suffix, epochs),
    }
    retrained, rollback = sisa["retrain"], sisa["rollback"]
    ends = {when: rollback.pop(when) for when in ("before", "after")}
    return [
        make_row(
            data.name,
            ("sisa", "retrain"),
            seed,
            **_ends(retrained, after[-1]),
            **cost,
            **again,
            extra=_curve(retrained, after),
        ),
        make_row(
            data.name,
            ("sisa", "rollback"),
            seed,
            **ends,
            steps=rollback["requests"][-1],
            **cost,
            unlearn_seconds=0.0,
            unlearn_flops=0.0,
            extra={"stages": slices, "flops_plain": whole} | rollback,
        ),
    ]


def _one_shard_row(workdir: Workdir, data: Data, builder: Builder, seed: int) -> Row:
    units = structure.flops(planners.sisa(builder.slices))
    progress.stage(f"S3T in one shard, seed {seed}", builder.passes(units, builder.train.epochs))
    one = workdir.stage(f"one-shard-{seed}", lambda: _one_shard(data, builder, seed))
    progress.skip()
    return make_row(
        data.name,
        ("s3t", "one shard"),
        seed,
        **_ends(one["depths"][-1:], 0),
        train_seconds=one["seconds"],
        train_flops=builder.flops(units, builder.train.epochs),
        storage_bytes=one["bytes"],
        extra={"by_depth": one["depths"]},
    )


def _ends(scored: Sequence[Scored], steps: int) -> dict[str, Any]:
    return {"before": scores(scored[0]), "after": scores(scored[-1]), "steps": steps}


def _curve(trained: Sequence[Scored], after: Sequence[int]) -> dict[str, Any]:
    """The score at the few numbers of deletions after which something was retrained."""
    (name,) = {key.removeprefix("test_") for one in trained for key in scores(one) if key.startswith("test_")}
    return {"requests": list(after), name: {"mean": [one[f"test_{name}"] for one in trained]}}


# --- Training ---------------------------------------------------------------------------------------------------------


def passes(builder: Builder, trainings: int) -> float:
    """What the rows of a seed are expected to take, see `nodes.passes`.

    Args:
      trainings: of full LoRA and of SISA, with and without deletions.
    """
    units = trainings * (lora_flops() + sisa_flops(builder.slices))
    one_shard = builder.passes(structure.flops(planners.sisa(builder.slices)), builder.train.epochs)
    return builder.passes(units, builder.full_lora.epochs) + one_shard


def _full_lora(data: Data, builder: Builder, seed: int, deletions: int) -> dict[str, Any]:
    """One adapter on all blocks, trained on what is left after some deletions."""
    build = builder.of_full_lora(seed)
    trained, spent = nodes.train(build, nodes.deletion_order(data.source.ids, seed)[:deletions])
    return _cost(spent, trained) | data.scored(nodes.logits_of(data, build, trained, (0, (0,))))


def _sisa(data: Data, builder: Builder, wanted: Study, after: Sequence[int], seed: int) -> dict[str, Any]:
    """SISA: its checkpoints under streams of deletions, and what it is after retraining the suffixes that were hit."""
    build = builder.of_sisa(seed)
    trained, spent = nodes.train(build, NOBODY)
    logits = nodes.every_logits(data, build, trained)
    order = nodes.deletion_order(data.source.ids, seed)
    retrained = []
    for deletions in after:
        hit = hit_slices(build.places, order[:deletions], builder.shards)
        kept = {(shard, node): owns for (shard, node), owns in trained.items() if hit[shard].isdisjoint(node)}
        now, _ = nodes.train(build, order[:deletions], kept)
        served = [nodes.logits_of(data, build, now, job) for job in now if len(job[1]) == builder.slices]
        retrained.append(data.scored(np.mean(served, axis=0)))
    first = curves.streams(builder, wanted.streams, seed)
    rollback = processes.first(lambda: curves.judged(data, build.setup.plan, logits, first, "mean", wanted.deletions))
    return _cost(spent, trained) | {"rollback": rollback, "retrain": retrained}


def _one_shard(data: Data, builder: Builder, seed: int) -> dict[str, Any]:
    """One sequence on all data, scored at every depth: what is to be held against full LoRA."""
    build = builder.of_plan(planners.sisa(builder.slices), seed, 1)
    trained, spent = nodes.train(build, NOBODY)
    logits = [nodes.logits_of(data, build, trained, (0, node)) for node in build.setup.plan.nodes]
    return _cost(spent, trained) | {"depths": [data.scored(one) for one in logits]}


def _cost(spent: dict[Job, float], trained: Nodes) -> dict[str, Any]:
    return {"seconds": sum(spent.values()), "bytes": sum(nodes.node_bytes(trained.values()))}
