"""The cases of a judgement, set up as its run sets them up."""

from __future__ import annotations

from experiments import models
from experiments.configs.judge import Judge
from experiments.core import execution, workdirs
from experiments.data import datasets
from experiments.judge import run
from experiments.judge.cases import Case, Judging
from experiments.training import fleets


def judging(config: Judge, folder: workdirs.Workdir, dataset: datasets.Dataset) -> Judging:
    """What every forget set is judged by."""
    model = models.build(config.model, dataset.train.x[:1], dataset.classes)
    devices = execution.one_device(convolutional=model.convolutional)
    return Judging(
        fleets.make(model, devices, dataset.train, config.train, folder, save_every=config.checkpoint_seconds),
        config.trainings,
        range(config.seed, config.seed + config.seeds),
        config.reweight,
        config.dpsgd,
        config.request,
        config.relearn,
        config.judge,
    )


def cases(config: Judge, folder: workdirs.Workdir, dataset: datasets.Dataset) -> list[Case]:
    """Of every forget set."""
    shared = judging(config, folder, dataset)
    return [run.make_case(shared, asked, dataset) for asked in config.asked()]


def case(config: Judge, name: str, folder: workdirs.Workdir, dataset: datasets.Dataset) -> Case:
    """Of the forget set of a name."""
    shared = judging(config, folder, dataset)
    return next(run.make_case(shared, asked, dataset) for asked in config.asked() if asked.name == name)
