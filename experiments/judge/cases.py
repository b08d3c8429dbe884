"""A case: one forget set, who trains and scores on it, and what the judgement asks of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.comparison.rehearsals import Rehearsal, rehearsal
from experiments.configs.judge import Shared
from experiments.core import sections, workdirs
from experiments.core.keys import Hash
from experiments.data import datasets
from experiments.data.problem import Problem
from experiments.scoring.scorer import Scorer
from experiments.training.fleets import Trainer


class Case(NamedTuple):
    """One forget set F, and what it is judged by.

    problem: knows F.  pool: positions of P in the training split.
    readiness: how models are made ready for F, by training.
    trainer: on one copy of the data for all forget sets; so is what is `shared`.
    """

    name: str
    problem: Problem
    pool: np.ndarray
    scorer: Scorer
    readiness: dict[str, sections.Readiness]
    trainer: Trainer
    shared: Shared

    @property
    def workdir(self) -> workdirs.Workdir:
        """Where everything is kept."""
        return self.trainer.workdir

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.shared.seeds.start


def pool_of(problem: Problem) -> np.ndarray:
    """Positions of P: F itself if it is a class, else with as many others of the training split, by id."""
    ids, pool = problem.dataset.train.id, problem.forget
    if problem.by_class:
        return pool
    others = np.setdiff1d(np.arange(len(ids)), pool)
    more = others[datasets.lowest(ids[others], min(len(pool), len(others) // 2), Hash.POOL, problem.seed)]
    return np.union1d(pool, more)


def told_of_pool(case: Case) -> Case:
    """The case as the training of shadows sees it: that P may be asked for (of which a shadow holds a half)."""
    ids = case.problem.dataset.train.id
    return case._replace(problem=case.problem._replace(forget=case.pool, revocable=ids[case.pool]))


def rehearsed(case: Case, training: str) -> Rehearsal:
    """Readiness for what a case is told, by the name of a training."""
    return rehearsal("default", case.readiness[training], case.trainer, case.problem)
