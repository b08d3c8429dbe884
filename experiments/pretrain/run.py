"""Pre-train a ViT and keep it as a checkpoint of the published layout: the backbone that s3t later freezes.

`run(config, workdir)` is what the command line and a notebook call. Training resumes after a kill and ends with the same
bytes. Nothing it has seen can be unlearnt by s3t: pre-train on other data, or on other classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import models
from experiments.comparison import checks
from experiments.configs import pretrain
from experiments.core import execution, fleet, workdirs
from experiments.core.errors import UserError, blame_user
from experiments.data import datasets
from experiments.models import vits
from experiments.pretrain import report
from experiments.scoring import evaluation
from experiments.training import loop
from unlearn.losses import correct

CHECKPOINT = "vit.npz"  # in the workdir


def run(config: ml_collections.ConfigDict, workdir: str, command: str = "") -> dict[str, Any]:
    """Pre-train as `config` describes; a finished workdir is read back instead.

    Returns:
      The contents of results.json.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        check(config)
        folder = workdirs.Workdir(workdir)
        if found := folder.finished(config.to_dict()):
            return found
        module, dataset = look(config)
    with folder.claimed(config.to_dict()):
        return _run(config, folder, module, dataset, command)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuse a config that cannot be, before its data are read.

    Raises:
      UserError: one line that says what to do.
    """
    checks.check_keys(config, pretrain.get_config())
    checks.check_values(config)
    if config.data.stream:
        raise UserError("pre-training holds its images in memory: set --config.data.stream=False")


def look(config: ml_collections.ConfigDict) -> tuple[vits.VisionTransformer, datasets.Dataset]:
    """The model and the data, refused if they will not do.

    Raises:
      ValueError (UserError and DataError among them): one line that says what to do.
    """
    dataset = datasets.only_classes(datasets.load(config.data), config.classes)
    checks.check_splits(dataset, config.train.batch_size)
    module = vits.vit(config.model, dataset.classes)
    vits.init(module, jax.random.key(0), dataset.train.x)  # a wrong size of image shows before anything is written
    return module, dataset


def _run(
    config: ml_collections.ConfigDict,
    folder: workdirs.Workdir,
    module: vits.VisionTransformer,
    dataset: datasets.Dataset,
    command: str,
) -> dict[str, Any]:
    trained = _train(config, folder, module, dataset)
    params = jax.tree.map(np.asarray, fleet.lane(trained.params, 0))
    vits.save_npz(folder.path / CHECKPOINT, params)
    scores = {f"{name}_accuracy": _accuracy(module, trained.params, getattr(dataset, name)) for name in SPLITS}
    row = {
        "training": "pretrain",
        "variant": "default",
        "unlearner": "none",
        "dataset": dataset.name,
        "seed": config.seed,
        "before": scores,
        "after": scores,
        "steps": config.train.steps,
        "train_seconds": trained.seconds,
        "extra": {
            "classes": list(config.classes),
            "model": config.model,
            "examples": {name: len(getattr(dataset, name).id) for name in SPLITS},
        },
    }
    return folder.finish(command, [row])


SPLITS = ("train", "validation", "test")


def _train(
    config: ml_collections.ConfigDict, folder: workdirs.Workdir, module: vits.VisionTransformer, dataset: datasets.Dataset
) -> loop.Trained:
    steps, size, examples = config.train.steps, config.train.batch_size, len(dataset.train.id)
    way = loop.Way(module, loop.optimizer(config.train, steps), steps, max(1, examples // size), size)
    lanes = loop.make_lanes([config.seed], np.ones(examples, bool), np.ones(examples))
    return loop.train(
        way,
        lanes,
        jax.tree.map(jnp.asarray, datasets.batch(dataset.train)),
        None,
        loop.make_epoch(way, execution.make("jit"), loops=False),
        folder.path / "checkpoints",
        lambda entry: folder.log("train", **entry),
        config.checkpoint_seconds,
    )


def _accuracy(module: vits.VisionTransformer, params: Any, split: datasets.Split) -> float:
    logits = evaluation.make_predict(models.as_model(module), loops=False)(params, split.x)[0]
    return float(np.mean(correct(logits, split.y)))


def present(workdir: str, found: dict[str, Any]) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    return f"{report.present(workdir, found)}\ncheckpoint: {Path(workdir) / CHECKPOINT}"
