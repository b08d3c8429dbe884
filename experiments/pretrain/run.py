"""Pre-train a ViT, kept in the published layout, or a small decoder, kept as a folder: the backbone that s3t later freezes.

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
from experiments.core import keys, progress, workdirs
from experiments.core.config import validated
from experiments.core.errors import DataError, blame_user
from experiments.core.machines import execution, fleet, processes, switches
from experiments.core.results import Row, Run
from experiments.core.sections import Train
from experiments.data import datasets, digests
from experiments.data.text.loading import refused
from experiments.models import vits
from experiments.pretrain import decoders, report
from experiments.pretrain.learner import Learner
from experiments.scoring.statistics import make_statistics
from experiments.training import epochs, loop

CHECKPOINT = "vit.npz"  # in the workdir
SPLITS = ("train", "validation", "test")
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
        folder = workdirs.Workdir(workdir, config.retired, Pretrain().model_dump())
        if found := folder.finished(config.model_dump()):
            progress.stage("pre-trained before", passes(config.train))  # of a run that this one is part of
            progress.skip()
            return found
        switches.settle()
        learner = look(config)
        execution.make("jit").check_parts(config.train.microbatches, config.train.batch_size)
        dataset = learner.dataset
        inputs = {"data": digests.digest(dataset[1:4])}
    with folder.claimed(config.model_dump(), inputs, config.tracker), progress.part(passes(config.train), "pretrain"):
        trained = _train(config.train, config.seed, config.checkpoint_seconds, folder, learner)
        params = jax.tree.map(np.asarray, fleet.lane(trained.params, 0))
        processes.first(lambda: learner.save(folder.path, params))
        progress.stage("score the pre-trained", SCORING * _examples(config.train))
        scores = _scores(learner, trained.params)
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
                **({} if dataset.is_text else {"examples": {name: len(getattr(dataset, name).id) for name in SPLITS}}),
            },
        )
        return folder.finish(command, [row])


def look(config: Pretrain) -> Learner:
    """The model and the data, refused if they will not do.

    Raises:
      ValueError (UserError and DataError among them): one line that says what to do.
    """
    if config.model in decoders.NAMES:
        learner = decoders.look(config)
    elif (dataset := datasets.load(config.data)).is_text:
        raise refused(config.data.name)
    elif config.share:
        raise DataError(f"share is of documents, and {config.data.name!r} has none: leave it 0")
    else:
        dataset = datasets.only_classes(dataset, config.classes)
        module = vits.vit(config.model, dataset.classes)
        vits.init(module, keys.unused(), dataset.train.x)  # a wrong size of image shows before anything is written
        model = models.of_module(module, dataset.train.x.shape[1:])
        learner = Learner(model, dataset, lambda folder, params: vits.save_npz(folder / CHECKPOINT, params))
    datasets.check_splits(learner.dataset, config.train.batch_size)
    return learner


def checkpoint_of(model: str) -> str:
    """What a workdir of pre-training has the model in."""
    return decoders.FOLDER if model in decoders.NAMES else CHECKPOINT


def passes(train: Train) -> float:
    """What a run is expected to take: examples forward and backward through the model, in which progress is counted."""
    return (1 + SCORING) * _examples(train)


def _examples(train: Train) -> int:
    return train.steps * train.batch_size


def _train(
    train: Train,
    seed: int,
    checkpoint_seconds: float,
    folder: workdirs.Workdir,
    learner: Learner,
) -> loop.Trained:
    dataset = learner.dataset
    steps, size, examples = train.steps, train.batch_size, len(dataset.train.id)
    per_epoch, parts = max(1, examples // size), train.microbatches
    way = loop.Way(learner.model, loop.optimizer(train, steps), steps, per_epoch, size, microbatches=parts)
    lanes = loop.make_lanes([seed], np.ones(examples, bool), np.ones(examples))
    progress.stage("pre-train", _examples(train))

    def report(entry: dict[str, Any]) -> None:
        progress.reach(entry["step"] * size, way.per_epoch * size)
        folder.log("train", **entry)

    trained = loop.train(
        way,
        lanes,
        jax.tree.map(jnp.asarray, datasets.batch(dataset.train)),
        None,
        epochs.make(way, execution.make("jit")),
        folder.path / "checkpoints",
        report,
        checkpoint_seconds,
    )
    progress.skip()  # what was not reported had been done before
    return trained


def _scores(learner: Learner, params: Any) -> dict[str, float]:
    """The accuracy on each split, of text that of the next token, and beside it the loss in nats."""
    statistics, scores = make_statistics(models.as_model(learner.model), execution.make("jit")), {}
    for name in SPLITS:
        found = statistics(params, datasets.batch(getattr(learner.dataset, name)))
        scores[f"{name}_accuracy"] = float(found.correct.mean())
        if learner.dataset.is_text:
            scores[f"{name}_loss"] = float(found.loss.mean())
    return scores


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    file = Path(workdir) / checkpoint_of(found.rows[0].extra["model"])
    gone = "" if file.exists() else " is not there any more: remove results.json beside it and run again, which writes it"
    return f"{report.present(workdir, found)}\ncheckpoint: {file}{gone}"
