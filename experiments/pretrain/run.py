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
from experiments.configs.pretrain import Pretrain
from experiments.core import execution, fleet, keys, progress, workdirs
from experiments.core.config import validated
from experiments.core.errors import blame_user
from experiments.core.results import Row, Run
from experiments.data import datasets
from experiments.models import vits
from experiments.pretrain import report
from experiments.scoring import evaluation
from experiments.training import epochs, loop
from unlearn.losses import correct

CHECKPOINT = "vit.npz"  # in the workdir
SCORING = 0.02  # of the time of training, expected


def run(config: ml_collections.ConfigDict | Pretrain, workdir: str, command: str = "") -> Run:
    """Pre-train as `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = validated(Pretrain, config)
        folder = workdirs.Workdir(workdir, config.retired)
        if found := folder.finished(config.model_dump()):
            return found
        module, dataset = look(config)
    with folder.claimed(config.model_dump()), progress.Progress(config.train.steps * (1 + SCORING), "pretrain"):
        return _run(config, folder, module, dataset, command)


def look(config: Pretrain) -> tuple[vits.VisionTransformer, datasets.Dataset]:
    """The model and the data, refused if they will not do.

    Raises:
      ValueError (UserError and DataError among them): one line that says what to do.
    """
    dataset = datasets.only_classes(datasets.load(config.data), config.classes)
    datasets.check_splits(dataset, config.train.batch_size)
    module = vits.vit(config.model, dataset.classes)
    vits.init(module, keys.unused(), dataset.train.x)  # a wrong size of image shows before anything is written
    return module, dataset


def _run(
    config: Pretrain,
    folder: workdirs.Workdir,
    module: vits.VisionTransformer,
    dataset: datasets.Dataset,
    command: str,
) -> Run:
    trained = _train(config, folder, module, dataset)
    params = jax.tree.map(np.asarray, fleet.lane(trained.params, 0))
    vits.save_npz(folder.path / CHECKPOINT, params)
    progress.stage("score", SCORING * config.train.steps)
    scores = {f"{name}_accuracy": _accuracy(module, trained.params, getattr(dataset, name)) for name in SPLITS}
    row = Row(
        training="pretrain",
        variant="default",
        unlearner="none",
        setting="none",
        dataset=dataset.name,
        seed=config.seed,
        before=scores,
        after=scores,
        steps=config.train.steps,
        stop="reached",
        train_seconds=trained.seconds,
        extra={
            "classes": list(config.classes),
            "model": config.model,
            "examples": {name: len(getattr(dataset, name).id) for name in SPLITS},
        },
    )
    return folder.finish(command, [row])


SPLITS = ("train", "validation", "test")


def _train(
    config: Pretrain, folder: workdirs.Workdir, module: vits.VisionTransformer, dataset: datasets.Dataset
) -> loop.Trained:
    steps, size, examples = config.train.steps, config.train.batch_size, len(dataset.train.id)
    model = models.of_module(module, dataset.train.x.shape[1:])
    way = loop.Way(model, loop.optimizer(config.train, steps), steps, max(1, examples // size), size)
    lanes = loop.make_lanes([config.seed], np.ones(examples, bool), np.ones(examples))
    progress.stage("train", steps)

    def report(entry: dict[str, Any]) -> None:
        progress.reach(entry["step"], way.per_epoch)
        folder.log("train", **entry)

    trained = loop.train(
        way,
        lanes,
        jax.tree.map(jnp.asarray, datasets.batch(dataset.train)),
        None,
        epochs.make(way, execution.make("jit")),
        folder.path / "checkpoints",
        report,
        config.checkpoint_seconds,
    )
    progress.skip()  # what was not reported had been done before
    return trained


def _accuracy(module: vits.VisionTransformer, params: Any, split: datasets.Split) -> float:
    model = models.as_model(models.of_module(module, split.x.shape[1:]))
    logits = evaluation.make_predict(model, execution.make("jit"))(params, split.x)[0]
    return float(np.mean(correct(logits, split.y)))


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    return f"{report.present(workdir, found)}\ncheckpoint: {Path(workdir) / CHECKPOINT}"
