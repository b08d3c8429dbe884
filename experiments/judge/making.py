"""Cases, made of forget sets: who is forgotten is found, and what cannot be judged is refused before any training."""

from __future__ import annotations

import numpy as np

from experiments import models
from experiments.comparison import checks
from experiments.configs.judge import Asked, Shared
from experiments.configs.judged_sets import Cluster, MemorisedSet, Named, NearDuplicates
from experiments.core import forgetting
from experiments.core.errors import UserError
from experiments.data import datasets, forget_sets, problem
from experiments.judge import memorisation, texts
from experiments.judge.cases import Case, pool_of
from experiments.scoring.scorer import Scorer
from experiments.training.fleets import Trainer
from experiments.training.loop import ALTERNATIVE
from unlearn.base import CLASSIFIER, LANGUAGE
from unlearn.metrics.membership import FOLDS


def make_case(
    trainer: Trainer, shared: Shared, asked: Asked, dataset: datasets.Dataset, scores: np.ndarray | None = None
) -> Case:
    """A forget set, as the readiness comparison would set it up.

    Args:
      scores: [examples] memorisation, if tiers are to be what they are called; no size depends on it.

    Raises:
      UserError: a set that cannot be judged; one line that says what to do.
    """
    readiness = {name.partition(" ")[2]: section for name, section in asked.readiness.items()}  # by variant
    checks.check_options(shared.request, readiness, LANGUAGE if trainer.model.language else CLASSIFIER)
    chosen = _chosen(asked, dataset, scores)
    forgotten = problem.make(
        dataset,
        asked.forget,
        dataset.train.id[chosen.forget] if chosen else None,
        score_examples=asked.score_examples,
        alternatives=ALTERNATIVE in trainer.data,
    )
    if forgotten.setting in forgetting.ASKED_BY:
        _enough(asked.name, len(np.unique(forgotten.units)), "name more")
    checks.check_problem(forgotten, max(section.noise for section in readiness.values()))
    checks.check_own(shared.request, readiness, trainer.model, forgotten, shared.judgement.batch_size)
    case = Case(
        asked.name,
        forgotten,
        chosen.pool if chosen else pool_of(forgotten),
        Scorer(models.as_model(trainer.model), trainer.devices, forgotten.sets),
        asked.readiness,
        trainer,
        shared,
    )
    left = len(np.setdiff1d(dataset.asked_as, dataset.asked_as[case.pool]))
    if left < (retain := shared.judgement.retain):
        raise UserError(f"judge.retain is {retain}, but set {case.name!r} leaves {left}: set --config.judge.retain")
    return case


def _chosen(asked: Asked, dataset: datasets.Dataset, scores: np.ndarray | None) -> forget_sets.Chosen | None:
    """Who is forgotten, if what the comparison forgets is not what is wanted; of text to predict, whole documents."""
    name, wanted, seed = asked.name, asked.wanted, asked.forget.seed
    ids = np.unique(dataset.asked_as)
    if not isinstance(wanted, Named):
        _enough(name, round(wanted.fraction * len(ids)), "raise its fraction")
    if isinstance(wanted, MemorisedSet):
        known = np.zeros(len(ids)) if scores is None else scores
        chosen = forget_sets.memorised(ids, known, wanted.tier, wanted.fraction, seed)
    elif isinstance(wanted, NearDuplicates | Cluster):
        find = {"near_duplicates": forget_sets.near_duplicates, "cluster": forget_sets.cluster}[wanted.setting]
        chosen = find(ids, texts.compared(dataset), wanted.fraction, seed)
        _enough(name, len(chosen.forget), "raise its fraction")
    else:
        return None
    return forget_sets.Chosen(*(texts.rows_of(dataset, positions) for positions in chosen))


def _enough(name: str, size: int, instead: str) -> None:
    if size < FOLDS:
        raise UserError(f"forget set {name!r} has {size} examples, {FOLDS} or more are needed: {instead}")


def settled(asked: Asked, case: Case) -> Case:
    """The case itself, or, of a tier, with the scores that it waited for; those are estimated once for all."""
    if not isinstance(asked.wanted, MemorisedSet):
        return case
    return make_case(case.trainer, case.shared, asked, case.problem.dataset, memorisation.memorisation(case))
