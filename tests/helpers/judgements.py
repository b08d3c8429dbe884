"""The cases of a judgement, set up as its run sets them up."""

from __future__ import annotations

from experiments import models
from experiments.configs.judge import Judge
from experiments.core import workdirs
from experiments.core.machines import execution
from experiments.data import datasets, problem
from experiments.judge import making, run
from experiments.judge.cases import Case
from experiments.training import fleets


def trainer(config: Judge, folder: workdirs.Workdir, dataset: datasets.Dataset) -> fleets.Trainer:
    """Who trains for every forget set."""
    model = models.build(config.model, dataset.train.x[:1], dataset.classes, dataset.tokens)
    devices = execution.one_device(convolutional=model.convolutional)
    told = problem.alternatives_of(dataset, dataset.asked_as) if run.are_told(config.shared(), config.asked()) else None
    return fleets.make(model, devices, dataset.train, config.train, folder, alternatives=told)


def cases(config: Judge, folder: workdirs.Workdir, dataset: datasets.Dataset) -> list[Case]:
    """Of every forget set."""
    made = trainer(config, folder, dataset)
    return [making.make_case(made, config.shared(), asked, dataset) for asked in config.asked()]


def case(config: Judge, name: str, folder: workdirs.Workdir, dataset: datasets.Dataset) -> Case:
    """Of the forget set of a name."""
    made = trainer(config, folder, dataset)
    return next(making.make_case(made, config.shared(), asked, dataset) for asked in config.asked() if asked.name == name)
