"""The strict judge: every way of training x every algorithm against fleets of oracles and shadows, in one table.

`run(config, workdir)` goes case by case (a case is a forget set): train the fleets, choose how each request is carried out
with the same trials for all, carry it out on repeats and shadows, keep their logits, and compute every metric from what was
kept. Each finished stage is kept, so the same call resumes after a kill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments import (
    checks,
    cost,
    data,
    evaluation,
    fleet,
    judge_fleet,
    judge_metrics,
    judging,
    models,
    requesting,
    results,
)
from experiments.bench import Config, resolved, set_up
from experiments.configs import judge as configs
from experiments.errors import UserError, blame_user
from experiments.judge_fleet import ORACLES, REPEATS, SHADOWS, TUNING, Case, Fleets, Setting
from unlearn.metrics import gaps, relearning


def run(config: Config, workdir: str, command: str = "") -> dict[str, Any]:
    """Run or resume the judgement that `config` describes; a finished workdir is read back instead.

    Returns:
      The contents of results.json.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        checks.check_keys(config, configs.defaults())
        check(config)
        folder = results.Workdir(workdir)
        dataset_config = config.copy_and_resolve_references()
        if found := folder.finished(dataset_config.to_dict()):
            return found
        dataset = data.load(config.data)
        cases = [make_case(config, name, folder, dataset) for name in config.judge.sets]
    with folder.claimed(dataset_config.to_dict()):
        rows = [row for case in cases for row in judge(case)]
        return folder.finish(command, rows)


def check(config: Config) -> None:
    """Refuse what a judgement cannot work with.

    Raises:
      UserError: one line that says what to do.
    """
    one, tuning = config.judge, config.judge.tuning
    least = {"lanes": 12, "most_lanes": 1, "batch_size": 1, "retain": 1, "bootstraps": 1}  # intervals need 10 models
    for name, low in least.items():
        if one[name] < low:
            raise UserError(f"judge.{name} is {one[name]}: set --config.judge.{name} to {low} or more")
    if tuning.lanes < 1 or not tuning.steps or min(tuning.steps) < 1 or sorted(set(tuning.steps)) != list(tuning.steps):
        raise UserError("judge.tuning needs lanes of 1 or more and steps that increase: set --config.judge.tuning.steps")
    if not tuning.learning_rates or not all(0 < rate < float("inf") for rate in tuning.learning_rates):
        raise UserError("judge.tuning.learning_rates needs one or more numbers above 0")
    ways = set(config.trainings) - set(ORACLES)
    if config.trainings[:2] != ORACLES or not ways or ways - {"vanilla", "reweight", "readiness"}:
        raise UserError(
            "trainings must be oracle, heldout_oracle and then vanilla, reweight or readiness: set --config.trainings"
        )


def make_case(config: Config, name: str, folder: results.Workdir, dataset: data.Dataset) -> Case:
    """A forget set of the config, as the readiness comparison would set it up."""
    one = config.copy_and_resolve_references()
    one.forget.update(one.judge.sets[name])
    one = resolved(one, configs.defaults())
    checks.check(one)
    return judge_fleet.make_case(name, set_up(one, folder, dataset))


def judge(case: Case) -> list[dict[str, Any]]:
    """The rows of a case: both oracles, and every way with no algorithm and with each."""
    trained, config = judge_fleet.train(case), case.bench.config
    every = ("none", *config.request.unlearners)
    entries = [(name, one) for name in config.trainings for one in (("none",) if name in ORACLES else every)]
    rows, oracle = [], None
    with tqdm(entries, desc=f"judge {case.name}", unit="row") as bar:
        for name, unlearner in bar:
            setting = None if unlearner == "none" else choose(case, trained, name, unlearner)
            found = carried_out(case, trained, name, unlearner, setting)
            oracle = oracle or found
            judged = _judged(case, name, unlearner)
            rows.append(_row(case, name, unlearner, found, oracle, judged, _cost(case, trained, name, unlearner, found)))
    return rows


def choose(case: Case, trained: Fleets, name: str, unlearner: str) -> Setting:
    """The trial with the smallest gap: the mean of |accuracy - oracles'| on forget data and on validation data that stay.

    The same trials for every way and algorithm, on models that nothing is reported of, against oracles of their own.
    """
    bench, tuning = case.bench, case.bench.config.judge.tuning
    sets = bench.sets.forget, bench.sets.validation_retain

    def accuracies(params: Any) -> np.ndarray:
        return np.array([evaluation.measure(judging.predictor(bench), params, batch)[0].mean() for batch in sets])

    def trials() -> list[dict[str, Any]]:
        oracle, found = accuracies(trained.params["oracle", TUNING]), []
        for rate in tuning.learning_rates:
            ended = judge_fleet.forget(case, trained.params[name, TUNING], TUNING, unlearner, rate, tuple(tuning.steps))
            for steps, params in zip(tuning.steps, ended, strict=True):
                seen = accuracies(params)
                gap = float(np.abs(seen - oracle).mean())
                found.append({"learning_rate": rate, "steps": steps, "forget": seen[0], "kept": seen[1], "gap": gap})
        return found

    kept = bench.workdir.stage(f"trials-{case.name}-{name}-{unlearner}", trials)
    best = min(kept, key=lambda trial: np.inf if trial["gap"] is None else trial["gap"])  # None: it diverged
    bench.workdir.log("trials", case=case.name, training=name, unlearner=unlearner, trials=kept, chosen=best)
    return Setting(best["learning_rate"], best["steps"])


def carried_out(case: Case, trained: Fleets, name: str, unlearner: str, setting: Setting | None) -> dict[str, Any]:
    """Carry out the request on all repeats and shadows, keep their logits, and score what parameters alone can tell."""
    bench = case.bench
    file = _file(case, name, unlearner)

    def compute() -> dict[str, Any]:
        ended, seconds = {role: trained.params[name, role] for role in (REPEATS, SHADOWS)}, 0.0
        if setting:
            for role, params in ended.items():
                with results.stopwatch() as stopwatch:
                    after = judge_fleet.forget(case, params, role, unlearner, setting.learning_rate, (setting.steps,))
                    (ended[role],) = jax.block_until_ready(after)
                seconds += stopwatch()
        judge_metrics.keep(file, _logits(case, ended))
        few = slice(0, bench.config.seeds)
        before, after = (fleet.lane(params, few) for params in (trained.params[name, REPEATS], ended[REPEATS]))
        return {
            "before": judging.score(bench, before),
            "after": judging.score(bench, after),
            "relearning": judging.relearn(bench, after),
            "setting": setting._asdict() if setting else None,
            "seconds": seconds / (2 * bench.config.judge.lanes),
        }

    return bench.workdir.stage(f"carried-{case.name}-{name}-{unlearner}", compute, beside=file)


def _file(case: Case, name: str, unlearner: str) -> Path:
    return case.bench.workdir.path / "logits" / f"{case.name}-{name}-{unlearner}.npz"


def _logits(case: Case, ended: dict[str, Any]) -> dict[str, np.ndarray]:
    """[lanes, examples, classes] of the repeats on every kind of example, and of the shadows on the pool."""
    predict, points = judging.predictor(case.bench), points_of(case)
    found = {kind: predict(ended[REPEATS], batch["x"]) for kind, batch in points.items()}
    return found | {"shadows": predict(ended[SHADOWS], points["pool"]["x"])}


def points_of(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """The examples that logits are kept on, by kind."""
    bench, train = case.bench, case.bench.dataset.train
    outside = np.setdiff1d(np.arange(len(train.id)), case.pool)
    return {
        "pool": data.batch(train, case.pool),
        "retain": requesting.subsample(data.batch(train, outside), bench.config.judge.retain, "judge"),
        "validation": bench.sets.validation,
        "test": bench.sets.test,
    }


def _judged(case: Case, name: str, unlearner: str) -> dict[str, Any]:
    """Every metric that kept logits give."""
    config = case.bench.config

    def compute() -> dict[str, Any]:
        labels = {kind: batch["y"] for kind, batch in points_of(case).items()}
        known = judge_metrics.Labels(**labels, forgotten=np.isin(case.pool, case.bench.forget))
        read = lambda *entry: judge_metrics.load(_file(case, *entry), case.included)  # noqa: E731
        oracle = None if name == ORACLES[0] else read(ORACLES[0], "none")
        return judge_metrics.judged(read(name, unlearner), oracle, known, config.seed, config.judge.bootstraps)

    return case.bench.workdir.stage(f"judged-{case.name}-{name}-{unlearner}", compute)


def _cost(case: Case, trained: Fleets, name: str, unlearner: str, found: dict[str, Any]) -> dict[str, Any]:
    """FLOPs, seconds and bytes of one model's training and of its request."""
    bench, setting, flops = case.bench, found["setting"], 0.0
    if setting:

        def count() -> float:
            size = bench.config.judge.batch_size
            batch = data.batch(bench.dataset.train, np.zeros(size, int))
            how = requesting.Setting(setting["learning_rate"], 0.0, setting["steps"], size)
            params = fleet.lane(trained.params[name, REPEATS], 0)
            model, options = models.as_model(bench.module), judging.options(bench, unlearner)
            return cost.of_update(model, unlearner, options, params, requesting.RequestData(batch, batch, batch), how)

        flops = bench.workdir.stage(f"flops-{unlearner}", count) * setting["steps"]
    return trained.cost[name] | {"unlearn_flops": flops, "unlearn_seconds": found["seconds"]}


def _row(
    case: Case,
    name: str,
    unlearner: str,
    found: dict[str, Any],
    oracle: dict[str, Any],
    judged: dict[str, Any],
    spent: dict[str, Any],
) -> dict[str, Any]:
    """One line of results.json; every metric as {"value", "interval"}."""
    config = case.bench.config
    before, after, beside = (judge_metrics.numbers(lanes) for lanes in (found["before"], found["after"], oracle["after"]))
    reference = {key: float(np.nanmean(values)) for key, values in beside.items()}
    lanes = [{key: values[i] for key, values in after.items()} for i in range(config.seeds)]
    over_lanes = lambda measure: judge_metrics.over_lanes([measure(lane) for lane in lanes])  # noqa: E731
    curves = {attack: np.array(curve, float) for attack, curve in found["relearning"].items()}
    theirs = np.array(oracle["relearning"]["part"], float).mean(axis=0)
    original = float(np.nanmean(before["forget_accuracy"]))
    area = [relearning.normalised_area(curve, theirs, original) for curve in curves["part"]]
    extra = judged | {
        "tow": over_lanes(lambda lane: gaps.tow(lane, reference)),
        "tow_mia": over_lanes(lambda lane: gaps.tow_mia(lane, reference)),
        "average_gap": over_lanes(lambda lane: gaps.average_gap(lane, reference)),
        "mia": over_lanes(lambda lane: lane["mia_auc"]),
        "relearn": judge_metrics.over_lanes(area) | {"curves": curves},
        "cost": {"value": spent["unlearn_flops"], "interval": [spent["unlearn_flops"]] * 2, **spent},
        "setting": found["setting"],
        "models": {"repeats": config.judge.lanes, "shadows": config.judge.lanes},
        "intervals": {key: judge_metrics.over_lanes(after[key]) for key in ("forget_accuracy", "test_retain_accuracy")},
    }
    finite = np.isfinite(after["forget_accuracy"]).all()
    return {
        "training": name,
        "variant": "default",
        "unlearner": unlearner,
        "setting": case.name,
        "dataset": config.data.name,
        "seed": config.seed,
        "before": {key: float(np.nanmean(values)) for key, values in before.items()},
        "after": {key: float(np.nanmean(values)) for key, values in after.items()},
        "steps": found["setting"]["steps"] if found["setting"] else 0,
        "stop": "budget" if finite else "diverged",
        "train_seconds": spent["train_seconds"],
        "unlearn_seconds": spent["unlearn_seconds"],
        "train_flops": spent["train_flops"],
        "unlearn_flops": spent["unlearn_flops"],
        "peak_bytes": spent["peak_bytes"],
        "extra": extra,
    }
