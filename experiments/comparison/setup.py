"""What all stages of a comparison share: the resolved config, the data, who is forgotten, the model, the devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import models
from experiments.comparison import checks
from experiments.configs import readiness
from experiments.core import execution, keys, workdirs
from experiments.core.errors import UserError, line
from experiments.core.keys import Hash, Purpose
from experiments.data import datasets
from experiments.scoring import requests
from experiments.scoring.evaluation import Sets
from experiments.training import loop

Config = ml_collections.ConfigDict


class Bench(NamedTuple):
    """What all stages share: the config, the data, the model, the devices and the folder.

    forget: positions in the training split.
    asked: what the request is about: all of the forget set, as one Batch.
    train: the training split as one Batch, on the device; if it is streamed, on the host with Images.
    """

    config: Config
    workdir: workdirs.Workdir
    dataset: datasets.Dataset
    forget: np.ndarray
    asked: dict[str, np.ndarray]
    sets: Sets
    train: dict[str, Any]
    module: Any
    devices: execution.Execution


class Fleet(NamedTuple):
    """One way's trained lanes, one per seed; `facts` are those of `results.Row`."""

    training: str
    variant: str
    trained: loop.Trained
    lanes: int  # of the program that trained it
    cost: dict[str, float]
    facts: dict[str, Any]


def resolved(config: Config, like: Config | None = None) -> Config:
    """The config with everything that readiness leaves unset filled in, as suits the kind of request.

    Args:
      like: has the keys and types that are allowed; the readiness comparison's if None.

    Raises:
      UserError: keys or types that are not the config file's.
    """
    like = like or readiness.defaults()
    checks.check_keys(config, like)
    checks.check_suited(config, like)
    config = config.copy_and_resolve_references().unlock()  # a variant may give its algorithm options of its own
    for name, value in config.suited.get(config.forget.setting, {}).items():
        if config.readiness[name] is None:
            config.readiness[name] = value
    return config


def set_up(config: Config, folder: workdirs.Workdir, dataset: datasets.Dataset, ids: np.ndarray | None = None) -> Bench:
    """Resolve who is forgotten, who is scored, the model and the devices.

    Args:
      ids: of who is forgotten; None: as `config.forget` says.

    Raises:
      UserError (DataError among them): a model, ids or sets of examples that will not do; one line that says what to do.
    """
    checks.check_splits(dataset, config.train.batch_size)
    named = _forget_ids(config, dataset, config.forget.target) if ids is None else ids
    forget = datasets.check_ids(dataset, named)
    module = _model(config.model, dataset)
    train = datasets.batch(dataset.train)
    asked = datasets.batch(dataset.train, forget)
    sets = _sets(config, dataset, asked)
    checks.check_sets(config, asked, sets)
    if not config.data.stream:
        train = jax.tree.map(jnp.asarray, train)
    devices = execution.make(config.parallel, convolutional=config.model.name in models.CONVOLUTIONAL)
    bench = Bench(config, folder, dataset, forget, asked, sets, train, module, devices)
    revocable(bench)  # refused here, whoever will be told
    return bench


def _model(config: Config, dataset: datasets.Dataset) -> Any:
    """The module, which has seen an image."""
    options, image = config.options.to_dict(), dataset.train.x[:1]
    module = models.build(config.name, options, dataset.classes)
    try:
        module.init(keys.unused(), jnp.asarray(image))
    except Exception as error:  # Flax, JAX and the modules each raise their own kinds
        raise UserError(
            f"model {config.name!r} with {options} takes no images of {image.shape[1:]} ({line(error)}): "
            "set other --config.model.options"
        ) from error
    return module


def revocable(bench: Bench) -> np.ndarray:
    """Positions in the training split that training is told may be forgotten: the request's, another class's, or noisy."""
    config, dataset = bench.config, bench.dataset
    told = dataset.train.id[bench.forget]
    if config.forget.revocable >= 0:
        told = _forget_ids(config, dataset, config.forget.revocable)
    return datasets.check_ids(dataset, datasets.revocable_ids(dataset, told, config.readiness.noise, config.forget.seed))


def _forget_ids(config: Config, dataset: datasets.Dataset, target: int) -> np.ndarray:
    return datasets.forget_ids(dataset, config.forget.setting, target, config.forget.fraction, config.forget.seed)


def _sets(config: Config, dataset: datasets.Dataset, asked: dict[str, np.ndarray]) -> Sets:
    most = config.data.score_examples
    kept = np.flatnonzero(~np.isin(dataset.train.id, asked["id"]))
    if most:
        kept = kept[datasets.lowest(dataset.train.id[kept], most, Hash.SCORE, 0)]
    by_class = config.forget.setting == "class"
    staying = lambda split: np.flatnonzero(split.y != config.forget.target) if by_class else None  # noqa: E731
    leaving = np.flatnonzero(dataset.test.y == config.forget.target) if by_class else None
    validation, fresh = _halves(dataset.validation, bool(config.request.tune_steps))
    return Sets(
        requests.subsample(asked, most, Hash.SCORE),
        datasets.batch(dataset.train, kept),
        datasets.batch(dataset.test),
        datasets.batch(dataset.test, staying(dataset.test)),
        datasets.batch(validation),
        datasets.batch(validation, staying(validation)),
        datasets.batch(dataset.test, leaving),
        datasets.batch(fresh),
    )


def _halves(validation: datasets.Split, halve: bool) -> tuple[datasets.Split, datasets.Split]:
    """Validation data to select on, and others to tune on: by lowest hash of the ids, half of them if asked."""
    tuned_on = np.zeros(len(validation.id), bool)
    tuned_on[datasets.lowest(validation.id, len(validation.id) // 2 if halve else 0, Hash.TUNE, 0)] = True
    return jax.tree.map(lambda leaf: leaf[~tuned_on], validation), jax.tree.map(lambda leaf: leaf[tuned_on], validation)


def request_keys(bench: Bench, purpose: Purpose = Purpose.REQUEST) -> jax.Array:
    """Raw keys of the lanes' requests and attacks, one per seed and the same for all ways."""
    return keys.raw(range(bench.config.seed, bench.config.seed + bench.config.seeds), purpose)


def find(fleets: list[Fleet], name: str) -> Fleet:
    """The fleet of a training in its default variant."""
    return next(one for one in fleets if (one.training, one.variant) == (name, "default"))
