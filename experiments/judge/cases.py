"""A case: one forget set, who trains and scores on it, and what the judgement asks of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.comparison.rehearsals import Rehearsal, rehearsal
from experiments.configs.judge import Shared
from experiments.core import forgetting, workdirs
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
    readiness: dict[str, forgetting.Readiness]
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
    """Positions of P: F itself if it is like no others, a class, a group or a part; else with as many others, by id."""
    if problem.by_class or problem.setting in ("group", "partition"):
        return problem.forget
    forgotten = len(np.unique(problem.units))
    others = len(np.unique(problem.dataset.asked_as)) - forgotten
    return _and_others(problem, min(forgotten, others // 2))


def as_told(case: Case, of_pool: bool) -> Case:
    """The case as training sees it: that F may be asked for; a shadow's, that P may (of which it holds a half).

    If `judge.revocable` is a larger share of the training split, others may be asked for beside them, the same for both.
    """
    problem, share = case.problem, case.shared.judgement.revocable
    ids = problem.dataset.train.id
    asked = case.pool if of_pool else problem.forget
    revocable = asked
    if share and not problem.by_class:
        every = len(np.unique(problem.dataset.asked_as))
        others = round(share * every) - len(np.unique(problem.units))
        revocable = np.union1d(case.pool, _and_others(problem, max(0, others)))
    return case._replace(problem=problem._replace(forget=asked, revocable=ids[revocable]))


def _and_others(problem: Problem, count: int) -> np.ndarray:
    """Positions of F and so many others of the training split, documents as wholes, by id: fewer are among more."""
    units = problem.dataset.asked_as
    others = np.setdiff1d(units, problem.units)
    drawn = others[datasets.lowest(others, count, Hash.POOL, problem.seed)]
    return np.union1d(problem.forget, np.flatnonzero(np.isin(units, drawn)))


def rehearsed(case: Case, training: str) -> Rehearsal:
    """Readiness for what a case is told, by the name of a training."""
    return rehearsal("default", case.readiness[training], case.trainer, case.problem)
