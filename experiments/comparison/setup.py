"""What all stages of a comparison share: the resolved config, the data, who is forgotten, the model, the devices."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from typing_extensions import TypeVar

from experiments import models
from experiments.comparison import checks
from experiments.configs.readiness import Comparison
from experiments.core import execution, keys, workdirs
from experiments.core.config import validated
from experiments.core.keys import Hash, Purpose
from experiments.data import datasets
from experiments.data.sets import Sets
from experiments.scoring import requests
from experiments.training import loop

ConfigT = TypeVar("ConfigT", bound=Comparison, default=Comparison, covariant=True)


class Bench(NamedTuple, Generic[ConfigT]):
    """What all stages share: the config, the data, the model, the devices and the folder.

    forget: positions in the training split.
    asked: what the request is about: all of the forget set, as one Batch.
    train: the training split as one Batch, on the device; if it is streamed, on the host with Images.
    """

    config: ConfigT
    workdir: workdirs.Workdir
    dataset: datasets.Dataset
    forget: np.ndarray
    asked: dict[str, np.ndarray]
    sets: Sets
    train: dict[str, Any]
    model: models.ModelFns
    devices: execution.Execution


class Fleet(NamedTuple):
    """One way's trained lanes, one per seed; `facts` are those of `results.Row`."""

    training: str
    variant: str
    trained: loop.Trained
    lanes: int  # of the program that trained it
    cost: dict[str, float]
    facts: dict[str, Any]


def resolved(config: ml_collections.ConfigDict | Comparison) -> Comparison:
    """The door: the validated config, with what readiness leaves unset filled in as suits the kind of request.

    Raises:
      ConfigError: one line for each mistake.
    """
    made = validated(Comparison, config).resolved()
    checks.check_options(made)
    return made


def set_up(
    config: ConfigT, folder: workdirs.Workdir, dataset: datasets.Dataset, ids: np.ndarray | None = None
) -> Bench[ConfigT]:
    """Resolve who is forgotten, who is scored, the model and the devices.

    Args:
      ids: of who is forgotten; None: as `config.forget` says.

    Raises:
      UserError (DataError among them): a model, ids or sets of examples that will not do; one line that says what to do.
    """
    datasets.check_splits(dataset, config.train.batch_size)
    named = _forget_ids(config, dataset, config.forget.target) if ids is None else ids
    forget = datasets.check_ids(dataset, named)
    model = models.build(config.model, dataset.train.x[:1], dataset.classes)
    train = datasets.batch(dataset.train)
    asked = datasets.batch(dataset.train, forget)
    sets = _sets(config, dataset, asked)
    checks.check_sets(config, asked, sets)
    if not config.data.stream:
        train = jax.tree.map(jnp.asarray, train)
    devices = execution.make(config.parallel, convolutional=model.convolutional)
    bench = Bench(config, folder, dataset, forget, asked, sets, train, model, devices)
    revocable(bench)  # refused here, whoever will be told
    return bench


def revocable(bench: Bench) -> np.ndarray:
    """Positions in the training split that training is told may be forgotten: the request's, another class's, or noisy."""
    config, dataset = bench.config, bench.dataset
    told = dataset.train.id[bench.forget]
    if config.forget.revocable >= 0:
        told = _forget_ids(config, dataset, config.forget.revocable)
    return datasets.check_ids(dataset, datasets.revocable_ids(dataset, told, config.readiness.noise, config.forget.seed))


def _forget_ids(config: Comparison, dataset: datasets.Dataset, target: int) -> np.ndarray:
    return datasets.forget_ids(dataset, config.forget.setting, target, config.forget.fraction, config.forget.seed)


def _sets(config: Comparison, dataset: datasets.Dataset, asked: dict[str, np.ndarray]) -> Sets:
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
