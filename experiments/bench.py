"""What all stages of a comparison share: the checked config, the data, who is forgotten, the model, the devices."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import data, fleet, models, parallel, requesting, results, training
from experiments.evaluation import Sets
from unlearn import ALGORITHMS

Config = ml_collections.ConfigDict
TRAININGS = ("oracle", "heldout_oracle", "vanilla", "reweight", "dpsgd", "readiness")
LEAST = (
    ("data.score_examples", 0),
    ("train.steps", 1),
    ("train.batch_size", 1),
    ("readiness.every", 1),
    ("readiness.start", 0),
    ("readiness.inner_steps", 0),
    ("request.max_steps", 1),
    ("request.batch_size", 0),
    ("request.observe", 0),
    ("request.parts", 1),
    ("request.overlap", 0),
    ("request.tune_steps", 0),
    ("relearn.steps", 1),
    ("relearn.batch_size", 1),
    ("relearn.size", 2),
)


class Bench(NamedTuple):
    """What all stages share: the config, the data, the model, the devices and the folder.

    forget: positions in the training split.
    asked: what the request is about: all of the forget set, as one Batch.
    train: the training split as one Batch, on the device; if it is streamed, on the host with Images.
    """

    config: Config
    workdir: results.Workdir
    dataset: data.Dataset
    forget: np.ndarray
    asked: dict[str, np.ndarray]
    sets: Sets
    train: dict[str, Any]
    module: Any
    devices: parallel.Parallel
    loops: bool


class Fleet(NamedTuple):
    """One way's trained lanes, one per seed."""

    training: str
    variant: str
    trained: training.Trained
    lanes: int  # of the program that trained it
    cost: dict[str, float]
    extra: dict[str, Any]


def resolved(config: Config) -> Config:
    """The config with everything that readiness leaves unset filled in, as suits the kind of request."""
    config = config.copy_and_resolve_references()
    for name, value in config.suited.get(config.forget.setting, {}).items():
        if config.readiness[name] is None:
            config.readiness[name] = value
    return config


def check(config: Config) -> None:
    """Refuse what cannot be run before anything is computed or written.

    Raises:
      ValueError: one line that says what to do.
    """
    if config.forget.setting not in config.suited:
        raise ValueError(f"unknown forget setting {config.forget.setting!r}: choose {' or '.join(config.suited)}")
    if config.seeds < 1:
        raise ValueError(f"seeds is {config.seeds}: train at least one, with --config.seeds=1 or more")
    for name in config.request.unlearners:
        if name not in ALGORITHMS:
            raise ValueError(f"unlearner {name!r} is unknown; choose from {', '.join(ALGORITHMS)}")
    if config.readiness.algorithm not in ALGORITHMS:
        raise ValueError(
            f"readiness.algorithm {config.readiness.algorithm!r} is unknown; choose from {', '.join(ALGORITHMS)}"
        )
    for name in config.trainings:
        if name not in TRAININGS:
            raise ValueError(f"training {name!r} is unknown; choose from {', '.join(TRAININGS)}")
    for name in ("oracle", "vanilla"):
        if name not in config.trainings:
            raise ValueError(f"trainings lacks {name!r}: every comparison needs it; add it to --config.trainings")
    for name, least in LEAST:
        section, field = name.split(".")
        if config[section][field] < least:
            raise ValueError(f"{name} is {config[section][field]}: set --config.{name} to {least} or more")
    if not 0 <= config.seed <= 2**32 - config.seeds:
        raise ValueError(f"seed is {config.seed}: choose one from 0 to {2**32 - config.seeds}, so that seeds stay apart")
    for name in ("learning_rates", "clips"):
        values = config.request[name]
        if not values:
            raise ValueError(f"request.{name} is empty: give at least one to choose from")
        if not all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values):
            raise ValueError(
                f"request.{name} is {values}: give numbers from 0 up, as in --config.request.{name}='(0.01, 0.1)'"
            )
    if "readiness" in config.trainings and config.readiness.start >= config.train.steps:
        raise ValueError(
            f"readiness.start is {config.readiness.start}, but training ends after {config.train.steps} steps: start sooner"
        )
    sizes = config.readiness.step_size
    if len(sizes) != 2 or not 0 < sizes[0] <= sizes[1]:
        raise ValueError(
            f"readiness.step_size is {sizes}: give (lowest, highest), as in --config.readiness.step_size='(0.3, 0.5)'"
        )
    if not 0 < config.readiness.fraction <= 1:
        raise ValueError(
            f"readiness.fraction is {config.readiness.fraction}: give a share of the batch above 0 and up to 1"
        )
    for name in config.variants:
        for key in config.variants[name]:
            if key not in config.readiness:
                raise ValueError(f"variant {name!r} overrides readiness.{key}, which does not exist")


def set_up(config: Config, folder: results.Workdir, dataset: data.Dataset) -> Bench:
    """Resolve who is forgotten, who is scored, the model and the devices."""
    forget = data.check_ids(dataset, _forget_ids(config, dataset, config.forget.target))
    module = models.build(config.model.name, dict(config.model.options), dataset.classes)
    module.init(jax.random.key(0), jnp.asarray(dataset.train.x[:1]))
    train = data.batch(dataset.train)
    asked = data.batch(dataset.train, forget)
    if not config.data.stream:
        train = jax.tree.map(jnp.asarray, train)
    return Bench(
        config,
        folder,
        dataset,
        forget,
        asked,
        _sets(config, dataset, asked),
        train,
        module,
        parallel.make(config.parallel),
        fleet.in_loops(config.model.name),
    )


def revocable(bench: Bench) -> np.ndarray:
    """Positions in the training split that training is told may be forgotten: the request's, another class's, or noisy."""
    config, dataset = bench.config, bench.dataset
    told = dataset.train.id[bench.forget]
    if config.forget.revocable >= 0:
        told = _forget_ids(config, dataset, config.forget.revocable)
    return data.check_ids(dataset, data.revocable_ids(dataset, told, config.readiness.noise, config.forget.seed))


def _forget_ids(config: Config, dataset: data.Dataset, target: int) -> np.ndarray:
    return data.forget_ids(dataset, config.forget.setting, target, config.forget.fraction, config.forget.seed)


def _sets(config: Config, dataset: data.Dataset, asked: dict[str, np.ndarray]) -> Sets:
    most = config.data.score_examples
    kept = np.flatnonzero(~np.isin(dataset.train.id, asked["id"]))
    if most:
        kept = kept[data.lowest(dataset.train.id[kept], most, "score", 0)]
    by_class = config.forget.setting == "class"
    staying = lambda split: np.flatnonzero(split.y != config.forget.target) if by_class else None  # noqa: E731
    leaving = np.flatnonzero(dataset.test.y == config.forget.target) if by_class else None
    validation, fresh = _halves(dataset.validation, bool(config.request.tune_steps))
    return Sets(
        requesting.subsample(asked, most, "score"),
        data.batch(dataset.train, kept),
        data.batch(dataset.test),
        data.batch(dataset.test, staying(dataset.test)),
        data.batch(validation),
        data.batch(validation, staying(validation)),
        data.batch(dataset.test, leaving),
        data.batch(fresh),
    )


def _halves(validation: data.Split, halve: bool) -> tuple[data.Split, data.Split]:
    """Validation data to select on, and others to tune on: by lowest hash of the ids, half of them if asked."""
    tuned_on = np.zeros(len(validation.id), bool)
    tuned_on[data.lowest(validation.id, len(validation.id) // 2 if halve else 0, "tune", 0)] = True
    return jax.tree.map(lambda leaf: leaf[~tuned_on], validation), jax.tree.map(lambda leaf: leaf[tuned_on], validation)


def request_keys(bench: Bench) -> jax.Array:
    """Raw keys of the lanes' requests and attacks, one per seed and the same for all ways."""
    seeds = range(bench.config.seed, bench.config.seed + bench.config.seeds)
    return jnp.stack([jax.random.key_data(jax.random.fold_in(jax.random.key(s), 2)) for s in seeds])


def find(fleets: list[Fleet], name: str) -> Fleet:
    """The fleet of a training in its default variant."""
    return next(one for one in fleets if (one.training, one.variant) == (name, "default"))
