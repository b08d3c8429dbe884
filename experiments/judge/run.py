"""The strict judge: every way of training x every algorithm against fleets of oracles and shadows, in one table.

`run(config, workdir)` goes case by case (a case is a forget set): train the fleets, choose how each request is carried out
with the same trials for all, carry it out on repeats and shadows, keep their statistics of single examples, and compute
every metric from what was kept. Each finished stage is kept, so the same call resumes after a kill.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments import models
from experiments.comparison import checks
from experiments.configs.begun import as_begun, section_of
from experiments.configs.judge import Asked, Judge, Shared, shipped
from experiments.core import keys, progress, workdirs
from experiments.core.config import validated
from experiments.core.errors import blame_user
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import environment, execution, fleet, processes, switches
from experiments.core.results import Row, Run, revived
from experiments.data import datasets, digests, problem
from experiments.judge import (
    calibration,
    capacity,
    fleets,
    making,
    metrics,
    old_logits,
    population,
    rows,
    strength,
    texts,
    tuning,
    work,
)
from experiments.judge.cases import Case
from experiments.judge.fleets import ORACLES, PRIVATE, REPEATS, SHADOWS, Fleets, Setting
from experiments.scoring import algorithms
from experiments.scoring.relearning import relearn
from experiments.scoring.statistics import Statistics
from experiments.training import fleets as training_fleets
from experiments.training import privacy
from unlearn.base import Batch
from unlearn.until import REACHED


def run(config: ml_collections.ConfigDict | Judge, workdir: str, command: str = "") -> Run:
    """Run or resume the judgement that `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = validated(Judge, config)
        folder = workdirs.Workdir(workdir, config.retired, Judge().model_dump())
        config = attacked_as_begun(as_begun(config, shipped(config), folder.begun()), folder.begun())
        config = checks.with_tokeniser(config)
        if found := folder.finished(config.model_dump()):
            return found
        switches.settle()
        dataset = datasets.load(config.data, models.classifies_text(config.model))
        datasets.check_splits(dataset, config.train.batch_size)
        model = models.build(config.model, dataset.train.x[:1], dataset.classes, dataset.tokens)
        if "dpsgd" in config.trainings:
            checks.check_private(dataset)
            if not config.dpsgd.shuffled:
                privacy.warn()
        # Lanes are what is divided among devices, not batches: a step asks nothing of another device.
        devices = execution.one_device(convolutional=model.convolutional)
        shared, asked = config.shared(), config.asked()
        trainer = training_fleets.make(
            model,
            devices,
            dataset.train,
            config.train,
            folder,
            alternatives=problem.alternatives_of(dataset, dataset.asked_as) if are_told(shared, asked) else None,
            save_every=config.checkpoint_seconds,
        )
        cases = [making.make_case(trainer, shared, one, dataset) for one in asked]
        inputs = {"data": digests.digest(dataset[1:4]), "parameters": models.digest(config.model)}
    with (
        folder.claimed(config.model_dump(), inputs, config.tracker),
        progress.Progress(work.total(cases, entries(cases[0])), "judge"),
    ):
        cases = [making.settled(*pair) for pair in zip(asked, cases, strict=True)]
        judged = judge_all(cases)
        progress.stage("calibration")
        facts = {"calibration": calibrated(cases), "sets": {case.name: rows.forget_set(case) for case in cases}}
        return folder.finish(command, judged, facts)


def are_told(shared: Shared, asked: list[Asked]) -> bool:
    """Whether anybody, in a request or a rehearsal, is told what questions are to be answered with instead."""
    rehearsed = [section.rehearsed for one in asked for section in one.readiness.values()]
    return algorithms.are_told([*shared.request.unlearners, *rehearsed])


def attacked_as_begun(config: Judge, begun: dict[str, Any] | None) -> Judge:
    """The config, without the strong attack if a version that had none began the folder: it goes on as it began.

    Args:
      begun: the folder's config.json, if there is one.
    """
    if begun is None or "rates" in section_of(begun, ["relearn"]):
        return config
    return config.model_copy(update={"relearn": config.relearn.model_copy(update={"rates": (), "strong_steps": 0})})


def judge_all(cases: list[Case]) -> list[Row]:
    """The rows of every case."""
    found: list[Row] = []
    for case in cases:
        found += judge(case)
        # Most programs are of one set's shapes. Those of a dozen sets, kept, need more maps of memory than Linux gives a
        # process (65,530), and the compiler does not survive that.
        jax.clear_caches()
    return found


def entries(case: Case) -> list[tuple[str, str]]:
    """(training, unlearner) of each row: both oracles, and every way with no algorithm and with each."""
    every = ("none", *case.shared.request.unlearners)
    return [(name, one) for name in case.shared.trainings for one in (("none",) if name in ORACLES else every)]


def judge(case: Case) -> list[Row]:
    """The rows of a case."""
    trained = fleets.train(case)
    found = []
    for name, unlearner in entries(case):
        setting, trials = tuning.settled_on(case, trained, name, unlearner)
        done = carried_out(case, trained, name, unlearner, setting)
        judged, spent = _judged(case, name, unlearner), _cost(case, trained, name, unlearner, done)
        found.append(rows.Entry(name, unlearner, done, judged, trials, spent, tuning.aim(case, trained)[0]))
    return rows.rows(case, found)


def carried_out(case: Case, trained: Fleets, name: str, unlearner: str, setting: Setting | None) -> dict[str, Any]:
    """Carry out the request on all repeats and shadows, keep their statistics, and score what parameters alone can tell."""
    stage, file = f"carried-{case.name}-{name}-{unlearner}", _file(case, name, unlearner)
    old_logits.convert(case, case.workdir.path / "logits" / file.name, file, points_of(case))

    def compute() -> dict[str, Any]:
        ended, seconds = {role: trained.params[name, role] for role in (REPEATS, SHADOWS)}, 0.0
        updates, reached = np.zeros(1), None
        if setting:
            rate, stops, (enough, _) = setting.learning_rate, (setting.steps,), tuning.aim(case, trained)
            for role, params in ended.items():
                with environment.stopwatch() as stopwatch:
                    (after,) = fleets.forget(
                        case,
                        params,
                        name,
                        role,
                        unlearner,
                        rate,
                        stops,
                        enough,
                        options=setting.options,
                        teacher=fleets.teacher(case, trained, name, role),
                    )
                ended[role], seconds = after.params, seconds + stopwatch()
                progress.advance(work.updates(case, name, role, setting.steps))
                if role == REPEATS:
                    updates, reached = after.updates, int((after.stop == REACHED).sum())
        few = slice(0, len(case.shared.seeds))
        before, after = (fleet.lane(params, few) for params in (trained.params[name, REPEATS], ended[REPEATS]))
        raw = keys.raw(case.shared.seeds, Purpose.RELEARNING)
        witnesses = {"features": population.features(case, after), "divergence": population.divergence(case, after)}
        arrays = metrics.flat(_statistics(case, ended)) | witnesses
        processes.first(lambda: metrics.keep(file, arrays))
        return {
            "before": case.scorer.score(before),
            "after": case.scorer.score(after),
            "relearning": relearn(case.scorer, case.shared.relearn, case.problem, after, raw),
            "strong": strength.attacked(case, ended[REPEATS]),
            "setting": _told(setting) if setting else None,
            "updates": float(updates.mean()),
            "updates_of_each": updates.tolist(),
            "reached": reached,
            "seconds": seconds / (2 * fleets.count(case, name, REPEATS)),
        }

    work.begin(case, stage, f"requests of {name}, {unlearner}", work.carrying(case, name, unlearner))
    return case.workdir.stage(stage, compute, beside=file)


def _told(setting: Setting) -> dict[str, float]:
    """A setting in a row."""
    return {"learning_rate": setting.learning_rate, "steps": setting.steps, **dict(setting.options)}


def _file(case: Case, name: str, unlearner: str) -> Path:
    return case.workdir.path / "statistics" / f"{case.name}-{name}-{unlearner}.npz"


def _statistics(case: Case, ended: dict[str, Any]) -> dict[str, Statistics]:
    """Of the repeats on every kind of example, and of the shadows on the pool."""
    points = points_of(case)
    found = {kind: texts.statistics(case, ended[REPEATS], batch) for kind, batch in points.items()}
    return found | {"shadows": texts.statistics(case, ended[SHADOWS], points["pool"])}


def points_of(case: Case) -> dict[str, Batch]:
    """The examples that statistics are kept of, by kind."""
    sets, dataset = case.scorer.sets, case.problem.dataset
    outside = datasets.batch(dataset.train, np.setdiff1d(np.arange(len(dataset.train.id)), case.pool))
    return {
        "pool": datasets.batch(dataset.train, case.pool),
        "retain": texts.some(dataset, outside, case.shared.judgement.retain, Hash.JUDGE),
        "validation": sets.validation,
        "test": sets.test,
    }


def _judged(case: Case, name: str, unlearner: str) -> dict[str, Any]:
    """Every metric that kept statistics give."""
    section = case.shared.judgement

    def compute() -> dict[str, Any]:
        reference = fleets.reference(name)
        oracle = _read(case, reference, "none") if reference else None
        kept = _read(case, name, unlearner)
        found = metrics.judged(kept, oracle, _masks(case))
        found |= population.heard(kept, oracle, _masks(case))
        fewer = PRIVATE in case.shared.trainings and section.private_lanes < section.lanes
        if name == ORACLES[1] and fewer:  # the floor of a way that has not as many models
            found["fewer"] = metrics.distances(kept, oracle, _masks(case), section.private_lanes)
        return found

    stage = f"judged-{case.name}-{name}-{unlearner}"
    work.begin(case, stage, f"metrics of {name}, {unlearner}", work.metrics(case, name))
    return revived(case.workdir.stage(stage, lambda: processes.first(compute)))


def _read(case: Case, name: str, unlearner: str) -> metrics.Kept:
    whole = texts.first_rows(case.problem.dataset, case.pool)
    return metrics.load(_file(case, name, unlearner), fleets.included(case, name)[:, whole])


def _masks(case: Case) -> metrics.Masks:
    sets, dataset = case.scorer.sets, case.problem.dataset
    of = functools.partial(texts.documents, dataset)
    pool, forgotten = (of(dataset.train.id[rows]) for rows in (case.pool, case.problem.forget))
    others = np.isin(of(sets.test["id"]), of(sets.others["id"]))
    return metrics.Masks(forgotten=np.isin(pool, forgotten), others=others)


def calibrated(cases: list[Case]) -> dict[str, Any]:
    """What attacks find between oracles and held-out oracles, by forget set and pooled: attack -> group -> AUC."""

    def compute() -> dict[str, Any]:
        groups = {}
        for case in cases:
            oracle, held_out = (_read(case, name, "none") for name in ORACLES)
            groups[case.name] = calibration.Group(held_out, oracle, _masks(case))
        return calibration.calibrated(groups)

    return revived(cases[0].workdir.stage("calibration", lambda: processes.first(compute)))


def _cost(case: Case, trained: Fleets, name: str, unlearner: str, found: dict[str, Any]) -> dict[str, Any]:
    """FLOPs, seconds and bytes of one model's training and of its request, looking whether it may rest included."""
    flops = 0.0
    if found["setting"]:
        looking = capacity.prediction_cost(case)["flops"] * len(case.pool)
        flops = (capacity.update_cost(case, unlearner)["flops"] + looking) * found["updates"]
    stored = sum(leaf[0].nbytes for leaf in jax.tree.leaves(trained.params[name, REPEATS]))
    return trained.cost[name] | {"unlearn_flops": flops, "unlearn_seconds": found["seconds"], "storage_bytes": stored}
