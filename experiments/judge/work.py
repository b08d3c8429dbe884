"""What a judgement is expected to take, in steps of one model: for the one bar, and when it will be done."""

from __future__ import annotations

from experiments.core import progress
from experiments.judge import fleets
from experiments.judge.cases import Case
from experiments.judge.fleets import REPEATS, ROLES, SHADOWS, TUNING
from experiments.scoring import relearning
from experiments.training.fleets import PER_STEP, PRIVATE, READY

METRICS = 5.5e11  # FLOPs of training that take as long as every metric of one entry of 64 models, on two CPU cores


def begin(case: Case, stage: str, words: str, work: float) -> None:
    """Say that a stage begins; one that has finished before takes no time."""
    progress.stage(f"{case.name}, {words}", work)
    if case.workdir.has(stage):
        progress.skip()


def total(cases: list[Case], entries: list[tuple[str, str]]) -> float:
    """All of a judgement whose cases have these (training, unlearner)."""
    return sum(_training(case) + sum(_entry(case, *entry) for entry in entries) for case in cases) + _memorising(cases)


def _memorising(cases: list[Case]) -> float:
    judgement = cases[0].shared.judgement
    estimated = any(judgement.sets[case.name].setting == "memorised" for case in cases)
    return estimated * cases[0].trainer.section.steps * (judgement.memorisation_lanes + PER_STEP)


def _training(case: Case) -> float:
    """Of every fleet, as `fleets.train` divides them among programs."""
    models = {name: sum(fleets.count(case, name, role) for role in ROLES) for name in case.shared.trainings}
    plain = (
        sum(count for name, count in models.items() if name != fleets.PRIVATE and name not in case.readiness)
        - case.shared.judgement.tuning.lanes
    )
    steps = float(plain + PER_STEP)
    if fleets.PRIVATE in models:
        steps += PRIVATE * (models[fleets.PRIVATE] + PER_STEP)
    for name in models.keys() & case.readiness.keys():
        steps += READY * (models[name] + len(fleets.told_alike(case)) * PER_STEP)
    return case.trainer.section.steps * steps


def _entry(case: Case, training: str, unlearner: str) -> float:
    tried = trials(case, training) if unlearner != "none" else 0.0
    return tried + carrying(case, training, unlearner) + metrics(case, training)


def updates(case: Case, training: str, role: str, steps: int) -> float:
    """So many updates of a fleet: forget and retain data, and a look at the pool after each, which is a pass forward."""
    update = (2 * case.shared.judgement.batch_size + len(case.pool) / 3) / case.trainer.section.batch_size
    return steps * (fleets.count(case, training, role) * update + PER_STEP)


def trials(case: Case, training: str) -> float:
    """Of the tuning of one entry."""
    tuning = case.shared.judgement.tuning
    return len(tuning.learning_rates) * updates(case, training, TUNING, max(tuning.steps))


def carrying(case: Case, training: str, unlearner: str) -> float:
    """A request of repeats and of shadows, if there is one, as long as the longest trial, and the relearning attacks."""
    steps = max(case.shared.judgement.tuning.steps) if unlearner != "none" else 0
    request = sum(updates(case, training, role, steps) for role in (REPEATS, SHADOWS))
    attack, few = case.shared.relearn, len(case.shared.seeds)
    strong = relearning.strong_work(attack, case.problem, min(2 * few, fleets.count(case, training, REPEATS)))
    return request + relearning.work(attack, case.problem, few) + strong


def metrics(case: Case, training: str) -> float:
    """Of what is computed from kept statistics; most of it leaves models out and computes anew."""
    step_flops = case.trainer.cost(case.trainer.way(), "plain")["step_flops"]
    return METRICS / step_flops * fleets.count(case, training, REPEATS) / 64
