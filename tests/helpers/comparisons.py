"""The parts of a comparison, made of a config as its run makes them, for tests that look at one of them."""

from typing import NamedTuple

from experiments import models
from experiments.comparison import checks, run, trainings
from experiments.core import workdirs
from experiments.core.machines import execution
from experiments.data import datasets, problem
from experiments.scoring.scorer import Scorer
from experiments.scoring.serving import Requests
from experiments.training import fleets


class Parts(NamedTuple):
    problem: problem.Problem
    trainer: fleets.Trainer
    plan: trainings.Plan
    scorer: Scorer
    requests: Requests


def parts(config, dataset=None, workdir="nowhere"):
    """Of a config that the door has seen or has yet to see."""
    config, folder = checks.resolved(config), workdirs.Workdir(workdir)
    asked = problem_of(config, dataset)
    split = asked.dataset.train
    model = models.build(config.model, split.x[:1], asked.dataset.classes, asked.dataset.tokens)
    devices = execution.make(config.parallel, convolutional=model.convolutional)
    trainer = fleets.make(model, devices, split, config.train, folder, on_disk=config.data.stream)
    plan = run.planned(config, trainer, asked)
    scorer = Scorer(models.as_model(model), devices, asked.sets, model.generate)
    return Parts(
        asked, trainer, plan, scorer, Requests(scorer, asked, config.request, plan.seeds, config.train.batch_size, folder)
    )


def problem_of(config, dataset=None):
    """The problem of a resolved config."""
    tuned = bool(config.request.tune_steps)
    dataset = datasets.load(config.data, models.classifies_text(config.model)) if dataset is None else dataset
    return problem.make(dataset, config.forget, score_examples=config.data.score_examples, halve=tuned)
