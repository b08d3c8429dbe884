"""The rows of results.json: every way of training before and after every unlearner, beside the oracle of its seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.comparison.trainings import Fleet, find
from experiments.core import progress, sections
from experiments.core.keys import Hash, Purpose
from experiments.core.results import ORACLES, Row, rows_from
from experiments.data.sets import subsample
from experiments.scoring import algorithms, relearning
from experiments.scoring.relearning import relearn
from experiments.scoring.requests import Setting
from experiments.scoring.serving import Requests, Served
from experiments.training import loop
from unlearn import STOPS
from unlearn.metrics import gaps

DIAGNOSED = 1000  # forget and stable examples whose gradients are compared
Scores = list[dict[str, float]]  # of each lane


def work(requests: Requests, attack: sections.Relearn, ways: int) -> float:
    """What judging so many ways of training is expected to take, in steps of one model."""
    section, names = requests.section, len(requests.section.unlearners)
    settings = len(section.clips) * len(section.learning_rates)
    return names * settings * requests.work + ways * names * _row_work(requests, attack)


def _row_work(requests: Requests, attack: sections.Relearn) -> float:
    """A request, and attacks that are watched at each step: one pass forward, and training costs three."""
    return requests.work + relearning.work(attack, len(requests.seeds))


def judge(requests: Requests, attack: sections.Relearn, fleets: Sequence[Fleet]) -> list[Row]:
    """An oracle's own scores, and one row per unlearner and seed for every other way."""
    workdir, oracle = requests.workdir, find(fleets, "oracle").trained.params
    settings = requests.choose(find(fleets, "vanilla").trained.params, oracle)
    progress.stage("score the oracle")
    kept = workdir.stage("oracle", lambda: requests.scorer.score(requests.met(oracle)))
    beside = [{name: float("nan") if value is None else value for name, value in lane.items()} for lane in kept]
    rows: list[Row] = []
    for one in fleets:
        for name in ("none",) if one.training in ORACLES else requests.section.unlearners:

            def compute(one: Fleet = one, name: str = name) -> list[Row]:
                return _rows(
                    one, name, _measured(requests, attack, one, oracle, name, settings.get(name)), requests, beside
                )

            stage = f"rows-{one.training}-{one.variant}-{name}"
            progress.stage(f"judge {one.training} {one.variant}, {name}", _row_work(requests, attack))
            if workdir.has(stage):
                progress.skip()
            rows += rows_from(workdir.stage(stage, compute))
    return rows


class Measured(NamedTuple):
    """What one way and unlearner led to, of all lanes.

    setting, served: None where nothing was asked.
    seconds: of the request.  flops: of an update.
    curves: of relearning.  diagnosis: of the gradients before.
    digests: of the parameters before and after.
    """

    before: Scores
    after: Scores
    setting: Setting | None
    served: Served | None
    seconds: float
    flops: float
    curves: dict[str, np.ndarray]
    diagnosis: dict[str, Any]
    digests: tuple[list[str], list[str]]


def _measured(
    requests: Requests, attack: sections.Relearn, one: Fleet, oracle: Any, name: str, setting: Setting | None
) -> Measured:
    """Carry out the request, if there is one, and look at what it left."""
    scorer, problem = requests.scorer, requests.problem
    met = params = requests.met(one.trained.params)
    before = after = scorer.score(met)
    served, seconds, flops = None, 0.0, 0.0
    if setting:
        served, seconds = requests.carry_out(met, oracle, name, setting)
        params = served.params
        after = scorer.score(params)
        flops = requests.update_flops(met, name, setting)
    curves = relearn(scorer, attack, problem, params, requests.keys(Purpose.ATTACK))
    forget, stable = (subsample(batch, DIAGNOSED, Hash.DIAGNOSE) for batch in (problem.sets.forget, problem.sets.retain))
    diagnosis = scorer.diagnose(met, forget, stable)
    digests = loop.digests(met), loop.digests(params)
    return Measured(before, after, setting, served, seconds, flops, curves, diagnosis, digests)


def _rows(one: Fleet, name: str, measured: Measured, requests: Requests, oracle: Scores) -> list[Row]:
    """One row for each lane."""
    before, after, served, problem = measured.before, measured.after, measured.served, requests.problem
    rows = []
    for i, seed in enumerate(requests.seeds):
        steps = int(served.steps[i]) if served else 0
        extra = {
            "lanes": one.lanes,
            "average_gap": gaps.average_gap(after[i], oracle[i]),
            "tow": gaps.tow(after[i], oracle[i]),
            "oracle_mia_auc": oracle[i]["mia_auc"],
            "relearning": {which: curve[i] for which, curve in measured.curves.items()},
            "curve": _curve(served, i) if served else {},
            "diagnostics": {which: float(values[i]) for which, values in measured.diagnosis.items()},
            "setting": measured.setting._asdict() if measured.setting else None,
            "step_flops": one.cost["step_flops"],
            "meta_step_flops": one.cost["meta_step_flops"],
            "params_sha256": dict(zip(("before", "after"), (lanes[i] for lanes in measured.digests), strict=True)),
        }
        row = Row(
            training=one.training,
            variant=one.variant,
            unlearner=algorithms.short(name),
            setting=problem.setting,
            dataset=problem.dataset.name,
            seed=seed,
            before=before[i],
            after=after[i],
            steps=steps,
            stop=STOPS[int(served.stop[i])] if served else "reached",
            train_seconds=one.trained.seconds,
            unlearn_seconds=measured.seconds / len(requests.seeds),
            train_flops=one.cost["train_flops"],
            unlearn_flops=measured.flops * steps,
            peak_bytes=one.cost["peak_bytes"],
            facts=one.facts,
            extra=extra,
        )
        rows.append(row)
    return rows


def _curve(served: Served, lane: int) -> dict[str, np.ndarray]:
    """A lane's observations, without what follows its end and what was not finite."""
    finite = np.all([np.isfinite(rows[lane]) for rows in served.curve.values()], axis=0)
    return {name: rows[lane][finite] for name, rows in served.curve.items()}
