"""Requests and scores: the setting chosen for vanilla, the request carried out on every way, the rows of results.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.comparison.setup import Bench, Fleet, find, request_keys
from experiments.comparison.trainings import PER_STEP
from experiments.core import environment, fleet, progress, sections
from experiments.core.keys import Hash, Purpose
from experiments.core.results import ORACLES, Row, rows_from
from experiments.data import datasets
from experiments.scoring import algorithms, evaluation, requests
from experiments.training import cost, loop
from readiness.requests import nearest_classes, nearest_examples
from unlearn import STOPS
from unlearn.base import Batch
from unlearn.metrics import gaps
from unlearn.until import DIVERGED, REACHED

WATCHED = 500  # forget examples that relearning is measured on


def work(bench: Bench, ways: int) -> float:
    """What judging so many ways of training is expected to take, in steps of one model."""
    config, names = bench.config.request, len(bench.config.request.unlearners)
    settings = len(config.clips) * len(config.learning_rates)
    return names * settings * _request_work(bench) + ways * names * _row_work(bench)


def _request_work(bench: Bench) -> float:
    return bench.config.request.parts * bench.config.request.max_steps * (bench.config.seeds + PER_STEP)


def _row_work(bench: Bench) -> float:
    """A request, and four attacks that are watched at each step: one pass forward, and training costs three."""
    config = bench.config.relearn
    watched = 1 + WATCHED / (3 * config.batch_size)
    return _request_work(bench) + 4 * config.steps * watched * (bench.config.seeds + PER_STEP)


def judge(bench: Bench, fleets: list[Fleet]) -> list[Row]:
    """The rows of results.json: an oracle's own scores, and one row per unlearner and seed for every other way."""
    settings = choose_settings(bench, fleets)
    progress.stage("score the oracle")
    kept = bench.workdir.stage("oracle", lambda: score(bench, _at_request(bench, find(fleets, "oracle"))))
    oracle = [{name: float("nan") if value is None else value for name, value in lane.items()} for lane in kept]
    rows: list[Row] = []
    for one in fleets:
        for name in ("none",) if one.training in ORACLES else bench.config.request.unlearners:

            def compute(one: Fleet = one, name: str = name) -> list[Row]:
                return _rows(bench, one, fleets, name, settings.get(name), oracle)

            stage = f"rows-{one.training}-{one.variant}-{name}"
            _begin(bench, stage, f"judge {one.training} {one.variant}, {name}", _row_work(bench))
            rows += rows_from(bench.workdir.stage(stage, compute))
    return rows


def _begin(bench: Bench, stage: str, words: str, work: float) -> None:
    """Say that a stage begins; one that has finished before takes no time."""
    progress.stage(words, work)
    if bench.workdir.has(stage):
        progress.skip()


def choose_settings(bench: Bench, fleets: list[Fleet]) -> dict[str, requests.Setting]:
    """For each unlearner, the learning rate and clipping that serve vanilla best on validation data, by a kept sweep.

    Best is the highest mean accuracy on the validation examples that stay, among the settings that fulfil the request in
    every lane; failing that, among those that fulfil it in the most lanes.
    """
    config = bench.config.request
    vanilla = find(fleets, "vanilla")
    settings = {}
    for name in config.unlearners:

        def sweep(name: str = name) -> list[dict[str, Any]]:
            trials = []
            grid = [(rate, clip) for clip in config.clips for rate in config.learning_rates]
            for rate, clip in grid:
                setting = _setting(config, rate, clip)
                outcome, _ = _request(bench, _at_request(bench, vanilla), fleets, name, setting)
                right, _ = evaluation.measure(predictor(bench), outcome.params, bench.sets.validation_retain)
                trials.append(
                    {
                        "learning_rate": rate,
                        "clip": clip,
                        "reached": int((outcome.stop == REACHED).sum()),
                        "steps": outcome.steps,
                        "validation_retain_accuracy": np.nan_to_num(right).mean(),
                    }
                )
                progress.advance(_request_work(bench))
            return trials

        tried = len(config.clips) * len(config.learning_rates)
        _begin(bench, f"sweep-{name}", f"try {tried} settings of {name}", tried * _request_work(bench))
        trials = bench.workdir.stage(f"sweep-{name}", sweep)
        best = max(trials, key=lambda t: (t["reached"], t["validation_retain_accuracy"]))
        chosen = {which: best[which] for which in ("learning_rate", "clip")}
        settings[name] = _setting(config, **chosen)
        bench.workdir.log("sweep", unlearner=algorithms.short(name), trials=trials, chosen=chosen, selected_for="vanilla")
    return settings


def _rows(
    bench: Bench, one: Fleet, fleets: list[Fleet], name: str, setting: requests.Setting | None, oracle: list[dict]
) -> list[Row]:
    config = bench.config
    model = models.as_model(bench.model)
    seeds = config.seeds
    at_request = params = _at_request(bench, one)
    before = after = score(bench, params)
    outcome, seconds, flops = None, 0.0, 0.0
    if setting:
        outcome, seconds = _request(bench, at_request, fleets, name, setting)
        params = outcome.params
        after = score(bench, params)
        flops = _update_flops(bench, at_request, name, setting)
    curves = relearn(bench, params)
    forget, stable = (requests.subsample(batch, 1000, Hash.DIAGNOSE) for batch in (bench.sets.forget, bench.sets.retain))
    diagnosis = evaluation.make_diagnose(model, bench.devices)(at_request, forget, stable)
    sha_before, sha_after = loop.digests(at_request), loop.digests(params)
    rows = []
    for i in range(seeds):
        steps = int(outcome.steps[i]) if outcome else 0
        extra = {
            "lanes": one.lanes,
            "average_gap": gaps.average_gap(after[i], oracle[i]),
            "tow": gaps.tow(after[i], oracle[i]),
            "oracle_mia_auc": oracle[i]["mia_auc"],
            "relearning": {which: curve[i] for which, curve in curves.items()},
            "curve": _curve(outcome, i) if outcome else {},
            "diagnostics": {k: float(v[i]) for k, v in diagnosis.items()},
            "setting": setting._asdict() if setting else None,
            "step_flops": one.cost["step_flops"],
            "meta_step_flops": one.cost["meta_step_flops"],
            "params_sha256": {"before": sha_before[i], "after": sha_after[i]},
        }
        row = Row(
            training=one.training,
            variant=one.variant,
            unlearner=algorithms.short(name),
            setting=config.forget.setting,
            dataset=bench.dataset.name,
            seed=config.seed + i,
            before=before[i],
            after=after[i],
            steps=steps,
            stop=STOPS[int(outcome.stop[i])] if outcome else "reached",
            train_seconds=one.trained.seconds,
            unlearn_seconds=seconds / seeds,
            train_flops=one.cost["train_flops"],
            unlearn_flops=flops * steps,
            peak_bytes=one.cost["peak_bytes"],
            facts=one.facts,
            extra=extra,
        )
        rows.append(row)
    return rows


def score(bench: Bench, params: Any) -> list[dict[str, float]]:
    """Scores of every lane on the bench's sets."""
    return evaluation.score(predictor(bench), params, bench.sets)


def predictor(bench: Bench) -> Callable:
    """`evaluation.make_predict` of the bench's model."""
    return evaluation.make_predict(models.as_model(bench.model), bench.devices)


def _update_flops(bench: Bench, params: Any, name: str, setting: requests.Setting) -> float:
    def count() -> float:
        request = _request_data(bench)[0]
        return cost.of_update(
            models.as_model(bench.model), name, options(bench, name), fleet.lane(params, 0), request, setting
        )

    return bench.workdir.stage(f"flops-{name}", count)


def options(bench: Bench, name: str) -> dict[str, Any]:
    """What the config sets of an algorithm's options."""
    return dict(bench.config.request.options.get(algorithms.short(name), {}))


def _setting(config: sections.Request, learning_rate: float, clip: float) -> requests.Setting:
    return requests.Setting(learning_rate, clip, config.max_steps, config.batch_size)


class Served(NamedTuple):
    """How the lanes came out of a request, or of several in a row: a stop is the worst of them, steps are their sum."""

    params: Any
    steps: np.ndarray
    stop: np.ndarray
    curve: dict[str, np.ndarray]


def _at_request(bench: Bench, one: Fleet) -> Any:
    """The parameters that meet the request: as trained, or after fine-tuning on new data in between."""
    config = bench.config.request
    if not config.tune_steps:
        return one.trained.params
    tune = evaluation.make_relearn(
        models.as_model(bench.model), config.tune_rate, config.tune_steps, bench.config.train.batch_size, bench.devices
    )
    fresh = jax.tree.map(jnp.asarray, bench.sets.fresh)
    return tune((one.trained.params, request_keys(bench)), fresh, fresh)[0]


def _request(bench: Bench, params: Any, fleets: list[Fleet], name: str, setting: requests.Setting) -> tuple[Served, float]:
    """Carry out the request, part after part, on all lanes: the outcome, and the program's seconds without compiling."""
    config = bench.config
    run = requests.make_request(models.as_model(bench.model), name, setting, options(bench, name), bench.devices)
    keys, targets = request_keys(bench), _targets(bench, fleets)
    steps, stop, curves, seconds = np.zeros(config.seeds, int), np.zeros(config.seeds, int), [], 0.0
    for part in _request_data(bench):
        with environment.stopwatch() as stopwatch:
            outcome = jax.block_until_ready(run((params, keys, targets), part))
        params, seconds = outcome.state.params, seconds + stopwatch()
        steps, stop = steps + np.asarray(outcome.steps), _worst(stop, np.asarray(outcome.stop))
        curves.append(outcome.curve)
    joined = {which: np.concatenate([np.asarray(curve[which]) for curve in curves], axis=1) for which in curves[0]}
    return Served(params, steps, stop, joined), seconds


def _worst(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == DIVERGED) | (b == DIVERGED), DIVERGED, np.maximum(a, b))


def _curve(served: Served, lane: int) -> dict[str, np.ndarray]:
    """A lane's observations, without what follows its end and what was not finite."""
    finite = np.all([np.isfinite(rows[lane]) for rows in served.curve.values()], axis=0)
    return {name: rows[lane][finite] for name, rows in served.curve.items()}


def _request_data(bench: Bench) -> list[requests.RequestData]:
    """What is asked for, in order: all at once, or in parts that share `overlap` of the part before."""
    config, sets = bench.config.request, bench.sets
    watch = requests.subsample(sets.test_retain, config.observe, Hash.OBSERVE)
    parts = []
    for asked in requests.parts(bench.asked["id"], config.parts, config.overlap, bench.config.forget.seed):
        forget = {name: leaf[asked] for name, leaf in bench.asked.items()}
        parts.append(requests.RequestData(*jax.tree.map(jnp.asarray, (forget, sets.retain, watch))))
    return parts


def _targets(bench: Bench, fleets: list[Fleet]) -> jax.Array:
    """Forget accuracy at which a request is fulfilled, for each lane: 0 for a class, the oracle's for random data."""
    if bench.config.forget.setting == "class":
        return jnp.zeros(bench.config.seeds)
    right, _ = evaluation.measure(predictor(bench), _at_request(bench, find(fleets, "oracle")), bench.asked)
    return jnp.asarray(right.mean(axis=1), jnp.float32)


def relearn(bench: Bench, params: Any, purpose: Purpose = Purpose.REQUEST) -> dict[str, np.ndarray]:
    """Relearning curves [lanes, steps + 1] on four attack sets, watched on others, but for "all" of a random forget set."""
    config, attacks, curves = bench.config.relearn, _attacks(bench), {}
    attack_by = evaluation.make_relearn(
        models.as_model(bench.model), config.learning_rate, config.steps, config.batch_size, bench.devices
    )
    widest = max(len(attack["id"]) for attack, _ in attacks.values())
    for name, (attack, watch) in attacks.items():
        watch = requests.padded(requests.subsample(watch, WATCHED, Hash.WATCH), WATCHED)
        sets = jax.tree.map(jnp.asarray, (requests.padded(attack, widest), watch))
        curves[name] = np.asarray(attack_by((params, request_keys(bench, purpose)), *sets)[1])
    return curves


def _attacks(bench: Bench) -> dict[str, tuple[Batch, Batch]]:
    """What relearning trains on, and what it is watched on."""
    config, forget, retain = bench.config.relearn, bench.sets.forget, bench.sets.retain
    by_class = bench.config.forget.setting == "class"
    rows = lambda batch, part: {name: leaf[part] for name, leaf in batch.items()}  # noqa: E731
    join = lambda a, b: {name: np.concatenate([a[name], b[name]]) for name in a}  # noqa: E731
    both = join(forget, retain)
    asked = np.arange(len(both["id"])) < len(forget["id"])
    if by_class:
        similar = nearest_classes(both["x"], both["y"], asked, 3)
    else:
        similar = nearest_examples(both["x"], asked, 2 * config.size)
    few = min(max(1, round(config.share * config.size)), len(forget["id"]) // 2)
    known = np.isin(forget["id"], forget["id"][datasets.lowest(forget["id"], few, Hash.RELEARN, 0)])
    stable = requests.subsample(retain, config.size, Hash.RELEARN)
    beside = rows(stable, datasets.lowest(stable["id"], config.size - few, Hash.RELEARN, 0))
    return {
        "stable": (stable, forget),
        "similar": (requests.subsample(rows(both, similar), config.size, Hash.RELEARN), forget),
        "part": (join(rows(forget, known), beside), rows(forget, ~known)),
        "all": (forget, bench.sets.others if by_class else forget),
    }
