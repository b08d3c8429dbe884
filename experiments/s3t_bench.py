"""What all stages of an s3t run share: the checked config, the data, the frozen backbone, and builds of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import cost, data, results, run_pretrain, s3t_baselines, s3t_build, s3t_study
from experiments.models import backbone as vits
from experiments.s3t_build import Setup
from s3t import partition, planners, train
from s3t import plan as plans
from s3t.adapters import Lora
from s3t.backbone import Backbone, run_blocks
from s3t.partition import Places
from s3t.plan import Node, Plan
from s3t.train import Recipe, Slices, Trained
from unlearn.losses import correct

Config = ml_collections.ConfigDict
Tree = Any
LEAST = (
    ("seeds", 1),
    ("shards", 1),
    ("slices", 1),
    ("deletions", 0),
    ("train.epochs", 1),
    ("train.batch_size", 1),
    ("full_lora.epochs", 1),
    ("study.streams", 2),
    ("study.deletions", 0),
)


class Bench(NamedTuple):
    """The config, the folder, the data, and the frozen model."""

    config: Config
    workdir: results.Workdir
    dataset: data.Dataset
    backbone: Backbone
    frozen: Tree


class Build(NamedTuple):
    """What is to be trained on which examples.

    places: of the training examples, in the order of the data set.
    capacity: of a slice, for all of them.
    """

    setup: Setup
    places: Places
    capacity: int


def check(config: Config) -> None:
    """Refuse what cannot be run before anything is computed or written.

    Raises:
      ValueError: one line that says what to do.
    """
    for name, least in LEAST:
        value = config
        for part in name.split("."):
            value = value[part]
        if value < least:
            raise ValueError(f"{name} is {value}: set --config.{name} to {least} or more")
    for name in (config.planner, *config.study.planners):
        if name not in planners.PLANNERS:
            raise ValueError(f"planner {name!r} is unknown; choose from {', '.join(planners.PLANNERS)}")
    if not config.study.planners:
        raise ValueError("study.planners is empty: name at least one, as in --config.study.planners='(\"lattice\",)'")
    if config.slices > s3t_study.MOST_SLICES:
        raise ValueError(f"slices is {config.slices}: the study takes at most {s3t_study.MOST_SLICES}")
    if any(k < 0 for k in config.retrain_after):
        raise ValueError(f"retrain_after is {tuple(config.retrain_after)}: give numbers of deletions from 0 up")
    if config.data.stream:
        raise ValueError("s3t needs its images in memory: set --config.data.stream=False")
    chosen_plan(config)


def resolved(config: Config) -> Config:
    """The config with the data's folders handed on to pre-training."""
    config = config.copy_and_resolve_references()
    for name in ("data_dir", "cache_dir"):
        config.pretrain.data[name] = config.pretrain.data[name] or config.data[name]
    return config


def set_up(config: Config, folder: results.Workdir) -> Bench:
    """Load the data and the backbone, claim the folder, and pre-train a backbone if none is given.

    Raises:
      ValueError (DataError and WorkdirError among them): data or a checkpoint that will not do.
    """
    dataset = data.only_classes(data.load(config.data), config.classes)
    module, image = vits.vit(config.model, dataset.classes), dataset.train.x.shape[1:]
    _check_sizes(config, dataset)
    if config.checkpoint:
        frozen, _ = vits.load_npz(config.checkpoint, module, image)
        folder.claim(config.to_dict())
    else:
        _check_pretraining(config, dataset)
        folder.claim(config.to_dict())
        run_pretrain.run(config.pretrain, str(folder.path / "pretrain"))
        frozen, _ = vits.load_npz(folder.path / "pretrain" / run_pretrain.CHECKPOINT, module, image)
    return Bench(config, folder, dataset, vits.as_backbone(module), frozen)


def _check_sizes(config: Config, dataset: data.Dataset) -> None:
    longest = max(config.deletions, *config.retrain_after, 0)
    if longest >= len(dataset.train.id):
        raise ValueError(f"{longest} deletions are asked of {len(dataset.train.id)} training examples: ask for fewer")
    if len(dataset.validation.id) == 0:
        raise ValueError("settings are chosen on validation data: set data.validation_fraction above 0")
    for seed in seeds(config):
        count = train.counts(places(dataset, config.shards, config.slices, seed), config.shards, config.slices)
        if not count.all():
            raise ValueError(f"with seed {seed} a slice has no example: set shards or slices lower")


def _check_pretraining(config: Config, dataset: data.Dataset) -> None:
    """A backbone that has seen an example cannot unlearn it."""
    seen = config.pretrain
    if seen.model != config.model:
        raise ValueError(f"pretrain.model is {seen.model!r}, model {config.model!r}: set both to the same ViT")
    if seen.data.name != dataset.name:
        return
    if not seen.classes or not config.classes or set(seen.classes) & set(config.classes):
        raise ValueError("the backbone would be pre-trained on examples that s3t is to unlearn: set pretrain.classes apart")


def seeds(config: Config) -> range:
    """The seeds of the run; the first one's store is kept and deleted from."""
    return range(config.seed, config.seed + config.seeds)


def chosen_plan(config: Config) -> Plan:
    """The plan of the store."""
    return planners.PLANNERS[config.planner](config.slices, config.budget or None, None)


def partition_key(seed: int) -> bytes:
    """The key that places a seed's examples."""
    return f"s3t study {seed}".encode()


def deletion_order(bench: Bench, seed: int) -> np.ndarray:
    """Positions of the training examples in the order in which a seed's requests name them."""
    return np.argsort(data.hash_uniform(bench.dataset.train.id, "deletions", seed), kind="stable")


def places(dataset: data.Dataset, shards: int, slices: int, seed: int) -> Places:
    return partition.assign(dataset.train.id, shards, slices, partition_key(seed))


def sizes(bench: Bench, seed: int) -> np.ndarray:
    """[shards, slices] training examples in each slice."""
    config = bench.config
    return train.counts(places(bench.dataset, config.shards, config.slices, seed), config.shards, config.slices)


# --- Builds -----------------------------------------------------------------------------------------------------------


def recipe(config: Config, part: str = "train", lora: Lora | None = None) -> Recipe:
    """How nodes are trained, or with `part` "full_lora" an adapter on all blocks."""
    chosen = config[part]
    optimizer = s3t_build.cosine_adamw(chosen.learning_rate, config.train.weight_decay, config.train.clip)
    return Recipe(lora or adapters(config), config.train.batch_size, chosen.epochs, optimizer)


def adapters(config: Config) -> Lora:
    """The adapters of a slot."""
    return Lora(config.lora.rank, config.lora.alpha, tuple(config.lora.targets), config.lora.rank_stabilised)


def of_plan(bench: Bench, plan: Plan, seed: int, shards: int) -> Build:
    """S3T with any plan."""
    return _build(bench, bench.backbone, recipe(bench.config), plan, seed, shards)


def of_full_lora(bench: Bench, seed: int) -> Build:
    """One slot on all blocks, trained on all examples: a plan of one slice in one shard."""
    return _build(bench, bench.backbone, recipe(bench.config, "full_lora"), planners.sisa(1), seed, 1)


def of_sisa(bench: Bench, seed: int) -> Build:
    """One sequence per shard, in which every stage goes on training the adapters of all blocks."""
    config = bench.config
    whole = s3t_baselines.whole_in_head(bench.backbone, adapters(config), config.slices)
    how = recipe(config, "full_lora", s3t_baselines.NOTHING)
    return _build(bench, whole, how, planners.sisa(config.slices), seed, config.shards)


def _build(bench: Bench, backbone: Backbone, how: Recipe, plan: Plan, seed: int, shards: int) -> Build:
    where = places(bench.dataset, shards, plan.slices, seed)
    capacity = train.capacity_for(train.counts(where, shards, plan.slices), how.batch_size)
    blank = Build(Setup(backbone, bench.frozen, how, plan, shards, jax.random.key(seed), ()), where, capacity)
    lanes = s3t_build.lanes_for(bench.config.model, bench.config.lanes)
    setup = s3t_build.make_setup(
        backbone,
        bench.frozen,
        how,
        plan,
        blank.setup.key,
        examples(bench, blank),
        most_lanes=lanes,
        cache_bytes=bench.config.cache_bytes,
    )
    return blank._replace(setup=setup)


def examples(bench: Bench, build: Build, gone: np.ndarray | None = None) -> Slices:
    """The training examples in their slices, without those at the positions `gone`."""
    split = bench.dataset.train
    keep = np.ones(len(split.id), bool)
    keep[[] if gone is None else gone] = False
    where = Places(build.places.shard[keep], build.places.slice[keep])
    setup = build.setup
    return train.arrange(
        split.x[keep], split.y[keep], split.id[keep], where, setup.shards, setup.plan.slices, build.capacity
    )


# --- Scores -----------------------------------------------------------------------------------------------------------


def labels(bench: Bench) -> np.ndarray:
    """Of the scored examples: validation first, then test."""
    return np.concatenate([bench.dataset.validation.y, bench.dataset.test.y])


def scored(bench: Bench, logits: np.ndarray) -> dict[str, float]:
    """Accuracies of logits on validation and test examples."""
    right, end = np.asarray(correct(jnp.asarray(logits), labels(bench))), len(bench.dataset.validation.id)
    return {"validation_accuracy": float(right[:end].mean()), "test_accuracy": float(right[end:].mean())}


def logits_of(bench: Bench, build: Build, nodes: dict[tuple[int, Node], Trained], job: tuple[int, Node]) -> np.ndarray:
    """[validation and test examples, classes] logits of one node, in parts of one size."""
    x = np.concatenate([bench.dataset.validation.x, bench.dataset.test.x])
    size = min(512, len(x))
    padded = np.concatenate([x, np.repeat(x[:1], -len(x) % size, axis=0)])
    parts = [s3t_build.node_logits(build.setup, nodes, *job, padded[i : i + size]) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(x)]


def forward_flops(bench: Bench) -> float:
    """Of one example through all blocks, as XLA counts them: what the units of `plan.node_flops` are made of."""
    x = jax.ShapeDtypeStruct((1, *bench.dataset.train.x.shape[1:]), np.float32)
    h = jax.eval_shape(bench.backbone.embed, bench.frozen, x, None)
    blocks = lambda frozen, h: run_blocks(bench.backbone, frozen, h, range(bench.backbone.depth))  # noqa: E731
    return cost.flops(jax.jit(blocks).lower(bench.frozen, h).compile())


def absolute(bench: Bench, units: float, part: str = "train") -> float:
    """FLOPs of a training whose every shard costs so many units (see `plan.node_flops`) per epoch."""
    return units * bench.config[part].epochs * len(bench.dataset.train.id) * forward_flops(bench)


def node_bytes(nodes: Iterable[Trained]) -> list[int]:
    """What the parameters of each node take."""
    return [sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves((n.slot, n.head))) for n in nodes]


def sequence_flops(config: Config) -> float:
    """What planners with a budget should come near to."""
    return config.study.flops or plans.flops(planners.lattice(config.slices))
