"""What all stages of an s3t run share: the checked config, the source of model and data, what is scored, and builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from typing_extensions import TypeVar

from experiments.configs.s3t import Exact, S3TStudy
from experiments.core import environment, keys, workdirs
from experiments.core.config import validated
from experiments.core.keys import Hash, Purpose
from experiments.data import datasets
from experiments.exact import baselines, building, factory
from experiments.pretrain import run
from s3t.plans import partition, planners, structure
from s3t.plans.partition import Places
from s3t.plans.structure import Plan
from s3t.service import creation
from s3t.training import arrangement, schedule
from s3t.training.adapters import Lora
from s3t.training.arrangement import Slices
from s3t.training.backbone import run_blocks
from s3t.training.schedule import Setup
from s3t.training.source import Source
from s3t.training.stages import Job, Trained
from unlearn.losses import correct

Nodes = dict[Job, Trained]

FACTORY = "experiments.exact.factory:make"


ConfigT = TypeVar("ConfigT", bound=Exact, default=S3TStudy, covariant=True)


class Bench(NamedTuple, Generic[ConfigT]):
    """What all stages share.

    source: model, recipe and training data, as the store's factory makes them.
    arguments: that the factory was called with.
    x, y: validation and test examples, `held` of them for validation, which come first.
    """

    config: ConfigT
    workdir: workdirs.Workdir
    source: Source
    arguments: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    held: int


class Build(NamedTuple):
    """What is to be trained on which examples.

    places: of the source's examples, in the order of their ids.
    """

    setup: Setup
    places: Places


def resolved(config: ml_collections.ConfigDict | S3TStudy) -> S3TStudy:
    """The door: the validated config, with the data's folders and scale handed on to pre-training.

    Raises:
      ValueError (ConfigError among them): one line for each mistake.
    """
    made = validated(S3TStudy, config).resolved()
    chosen_plan(made)  # refused if its planner cannot make it
    return made


def look(config: S3TStudy) -> Source:
    """The data, with the given backbone or, until one is pre-trained, a random one; they are refused if they will not do.

    Raises:
      ValueError (DataError among them): one line that says what to do.
    """
    source = factory.make(hyper(config), **arguments_of(config))
    _check_sizes(config, source)
    check_source(config, source)
    return source


def check_source(config: Exact, source: Source) -> None:
    """Refuse adapters that hit no layer, and what the backbone cannot be pre-trained on.

    Raises:
      ValueError (DataError among them): one line that says what to do.
    """
    creation.check_trainable(source, keys.unused())  # the targets of the adapters are layers
    if not config.checkpoint:
        try:
            run.look(config.pretrain)
        except ValueError as error:
            raise ValueError(f"pretrain: {error}") from error


def arguments_of(config: Exact) -> dict[str, Any]:
    """What the factory is called with beside its hyper-parameters."""
    return {
        "data_dir": config.data.data_dir,
        "cache_dir": config.data.cache_dir,
        "checkpoint": config.checkpoint,
        "most_lanes": config.lanes,
        "lane_bytes": config.lane_bytes,
        "cache_bytes": config.cache_bytes,
    }


def set_up(config: ConfigT, folder: workdirs.Workdir, source: Source) -> Bench[ConfigT]:
    """What all stages share, with a backbone that is pre-trained here if none is given.

    Args:
      source: from `look`.
    """
    arguments = arguments_of(config)
    if not config.checkpoint:
        run.run(config.pretrain, str(folder.path / "pretrain"))
        arguments["checkpoint"] = str((folder.path / "pretrain" / run.CHECKPOINT).absolute())
        source = factory.make(hyper(config), **arguments)
    splits = [source.split(name) for name in ("validation", "test")]
    (x, y), (test_x, test_y) = (fetch(ids) for ids, fetch in splits)
    return Bench(config, folder, source, arguments, np.concatenate([x, test_x]), np.concatenate([y, test_y]), len(y))


def hyper(config: Exact) -> dict[str, Any]:
    """What the factory calls hyper-parameters: all that decides the bytes of nodes."""
    return {
        "dataset": config.data.name,
        "classes": list(config.classes),
        "train_size": config.data.train_size,
        "validation_fraction": config.data.validation_fraction,
        "range": config.scale.range,
        "mean": list(config.scale.mean),
        "std": list(config.scale.std),
        "model": config.model,
        "rank": config.lora.rank,
        "alpha": config.lora.alpha,
        "rank_stabilised": config.lora.rank_stabilised,
        "targets": list(config.lora.targets),
        **config.train.model_dump(),
    }


def _check_sizes(config: S3TStudy, source: Source) -> None:
    longest = max(config.deletions, *config.retrain_after, 0)
    if longest >= len(source.ids):
        raise ValueError(f"{longest} deletions are asked of {len(source.ids)} training examples: ask for fewer")
    if not len(source.split("validation")[0]):
        raise ValueError("settings are chosen on validation data: set data.validation_fraction above 0")
    for seed in seeds(config):
        where = places(source, config.shards, config.slices, seed)
        if not arrangement.counts(where, config.shards, config.slices).all():
            raise ValueError(f"with seed {seed} a slice has no example: set shards or slices lower")


def seeds(config: S3TStudy) -> range:
    """The seeds of the run; the first one's store is kept and deleted from."""
    return range(config.seed, config.seed + config.seeds)


def chosen_plan(config: S3TStudy) -> Plan:
    """The plan of the store."""
    return planners.PLANNERS[config.planner](config.slices, config.budget or None, None)


def budget_flops(config: S3TStudy) -> float:
    """What planners with a budget should come near to."""
    return config.study.flops or structure.flops(planners.lattice(config.slices))


def partition_key(seed: int) -> bytes:
    """The key that places a seed's examples."""
    return f"s3t study {seed}".encode()


def places(source: Source, shards: int, slices: int, seed: int) -> Places:
    """Where a seed's training examples belong."""
    return partition.assign(source.ids, shards, slices, partition_key(seed))


def deletion_order(bench: Bench, seed: int) -> np.ndarray:
    """Positions of the training examples in the order in which a seed's requests name them."""
    return np.argsort(datasets.hash_uniform(bench.source.ids, Hash.DELETIONS, seed), kind="stable")


# --- Builds -----------------------------------------------------------------------------------------------------------


def of_plan(bench: Bench, plan: Plan, seed: int, shards: int) -> Build:
    """S3T with any plan."""
    return _build(bench.source, plan, seed, shards)


def of_full_lora(bench: Bench, seed: int) -> Build:
    """One slot on all blocks, trained on all examples: a plan of one slice in one shard."""
    return _build(_of_lora(bench, bench.source.recipe.lora), planners.sisa(1), seed, 1)


def of_sisa(bench: Bench, seed: int) -> Build:
    """One sequence per shard, in which every stage goes on training the adapters of all blocks."""
    return _build(sisa_source(bench), planners.sisa(bench.config.slices), seed, bench.config.shards)


def sisa_source(bench: Bench[Exact]) -> Source:
    """The source with the adapters of all blocks where every stage goes on training them."""
    whole = baselines.whole_in_head(bench.source.backbone, bench.source.recipe.lora, bench.config.slices)
    return dataclasses.replace(_of_lora(bench, baselines.NOTHING), backbone=whole)


def _of_lora(bench: Bench[Exact], lora: Lora) -> Source:
    """The source with the recipe of adapters on all blocks."""
    config = bench.config
    optimizer = building.cosine_adamw(config.full_lora.learning_rate, config.train.weight_decay, config.train.clip)
    recipe = bench.source.recipe._replace(lora=lora, epochs=config.full_lora.epochs, optimizer=optimizer)
    return dataclasses.replace(bench.source, recipe=recipe)


def _build(source: Source, plan: Plan, seed: int, shards: int) -> Build:
    where = places(source, shards, plan.slices, seed)
    shapes = schedule.make_shapes(source, plan, arrangement.counts(where, shards, plan.slices))
    return Build(Setup(source, plan, shards, keys.key(seed, Purpose.NODES), shapes), where)


def examples(build: Build, gone: np.ndarray) -> Slices:
    """The training examples in their slices, without those at the positions `gone`."""
    setup, keep = build.setup, np.setdiff1d(np.arange(len(build.setup.source.ids)), gone)
    ids = setup.source.ids[keep]
    where = Places(build.places.shard[keep], build.places.slice[keep])
    x, y = setup.source.fetch(ids)
    return arrangement.arrange(x, y, ids, where, setup.shards, setup.plan.slices, setup.shapes[0].capacity)


def train_build(
    build: Build,
    gone: np.ndarray,
    kept: Nodes | None = None,
    done: Callable[[Job, Trained, float], None] = lambda job, trained, seconds: None,
) -> tuple[Nodes, dict[Job, float]]:
    """Train what is not kept, without the examples at the positions `gone`.

    Args:
      done: told of each node that was trained, with its share of the seconds.

    Returns:
      every node; and of those that were trained the seconds, without compilation.
    """
    nodes, setup = dict(kept or {}), build.setup
    jobs = [(shard, node) for node in setup.plan.nodes for shard in range(setup.shards) if (shard, node) not in nodes]
    spent: dict[Job, float] = {}
    with environment.stopwatch() as clock:
        began = clock()
        for call in schedule.build(setup, examples(build, gone), jobs, lambda shard, node: nodes[shard, node]):
            seconds = max(clock() - began, 0.0) / len(call.nodes)
            for job, trained in call.nodes:
                nodes[job], spent[job] = trained, seconds
                done(job, trained, seconds)
            began = clock()
    return nodes, spent


# --- Scores -----------------------------------------------------------------------------------------------------------


def scored(bench: Bench, logits: np.ndarray) -> dict[str, float]:
    """Accuracies of logits on validation and test examples."""
    right = np.asarray(correct(jnp.asarray(logits), bench.y))
    return {"validation_accuracy": float(right[: bench.held].mean()), "test_accuracy": float(right[bench.held :].mean())}


def logits_of(bench: Bench, build: Build, nodes: Nodes, job: Job) -> np.ndarray:
    """[validation and test examples, classes] logits of one node, in parts of one size."""
    size = min(512, len(bench.x))
    x = np.concatenate([bench.x, np.repeat(bench.x[:1], -len(bench.x) % size, axis=0)])
    parts = [building.node_logits(build.setup, nodes, *job, x[i : i + size]) for i in range(0, len(x), size)]
    return np.concatenate(parts)[: len(bench.x)]


def absolute(bench: Bench, units: float, part: str = "train") -> float:
    """FLOPs of a training whose every shard costs so many units (see `plan.node_flops`) per epoch."""
    return units * getattr(bench.config, part).epochs * len(bench.source.ids) * _forward_flops(bench)


def _forward_flops(bench: Bench) -> float:
    """Of one example through all blocks, as XLA counts them."""
    backbone, frozen = bench.source.backbone, bench.source.frozen
    h = jax.eval_shape(backbone.embed, frozen, bench.x[:1], None)
    run = jax.jit(lambda frozen, h: run_blocks(backbone, frozen, h, range(backbone.depth)))
    return environment.flops(run.lower(frozen, h).compile())


def node_bytes(nodes: Iterable[Trained]) -> list[int]:
    """What the parameters of each node take."""
    return [sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves((n.slot, n.head))) for n in nodes]
