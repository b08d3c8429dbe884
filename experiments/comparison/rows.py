"""The rows of results.json: every way of training before and after every unlearner, beside the oracle of its seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.comparison.trainings import Fleet, find
from experiments.core import forgetting, progress
from experiments.core.keys import Hash, Purpose
from experiments.core.results import ORACLES, Row, rows_from
from experiments.data.sets import subsample
from experiments.scoring import algorithms, canaries, documents, relearning, tofu
from experiments.scoring.relearning import relearn
from experiments.scoring.requests import Setting
from experiments.scoring.serving import Requests, Served, Teachers
from experiments.training import loop
from unlearn import STOPS
from unlearn.metrics import gaps

DIAGNOSED = 1000  # forget and stable examples whose gradients are compared
Scores = list[dict[str, float]]  # of each lane


def work(requests: Requests, attack: forgetting.Relearn, ways: int) -> float:
    """What judging so many ways of training is expected to take, in steps of one model."""
    names, total = requests.section.unlearners, 0.0
    for name in names:
        sweeps = ways if algorithms.ends_at_level(name) else 1
        total += sweeps * requests.settings(name) * requests.work(name) + ways * _row_work(requests, attack, name)
    return total


def _row_work(requests: Requests, attack: forgetting.Relearn, name: str) -> float:
    """A request, and attacks that are watched at each step: one pass forward, and training costs three."""
    return requests.work(name) + relearning.work(attack, requests.problem, len(requests.seeds))


def judge(requests: Requests, attack: forgetting.Relearn, fleets: Sequence[Fleet], proxy: Any = None) -> list[Row]:
    """An oracle's own scores, and one row per unlearner and seed for every other way.

    Args:
      proxy: parameters of proxies of the oracle, if some were trained.
    """
    workdir, oracle = requests.workdir, find(fleets, "oracle").trained.params
    teachers = Teachers(oracle, proxy)
    settings = requests.choose(find(fleets, "vanilla").trained.params, teachers)
    progress.stage("score the oracle")
    beside = _numbers(workdir.stage("oracle", lambda: requests.scorer.score(requests.met(oracle))))
    if requests.problem.dataset.is_text:  # a stage of its own: an older version's run has the first alone
        kept = workdir.stage("oracle-documents", lambda: _of_documents(requests, requests.met(oracle)))
        beside = [a | b for a, b in zip(beside, _numbers(kept), strict=True)]
    rows: list[Row] = []
    for one in fleets:
        for name in ("none",) if one.training in ORACLES else requests.section.unlearners:
            asked = None if name == "none" else _asked(requests, one, teachers, name, settings.get(name))

            def compute(one: Fleet = one, name: str = name, asked: Asked | None = asked) -> list[Row]:
                return _rows(one, name, _measured(requests, attack, one, teachers, name, asked), requests, beside)

            stage = f"rows-{one.training}-{one.variant}-{name}"
            progress.stage(f"judge {one.training} {one.variant}, {name}", _row_work(requests, attack, name))
            if workdir.has(stage):
                progress.skip()
            rows += rows_from(workdir.stage(stage, compute))
    return rows


def _numbers(lanes: Sequence[dict[str, float | None]]) -> Scores:
    """Scores as a stage has them, with NaN for null."""
    return [{name: float("nan") if value is None else value for name, value in lane.items()} for lane in lanes]


def _score(requests: Requests, params: Any) -> Scores:
    """Scores of every lane; of text to predict, those of whole documents as well."""
    scores = requests.scorer.score(params)
    if not requests.problem.dataset.is_text:
        return scores
    return [a | b for a, b in zip(scores, _of_documents(requests, params), strict=True)]


def _of_documents(requests: Requests, params: Any) -> Scores:
    return documents.score(requests.scorer, requests.problem.dataset, params)


class Asked(NamedTuple):
    """How a way's request is carried out.

    levels: of unseen examples, if not where the config says.
    """

    setting: Setting
    levels: str | None = None


def _asked(requests: Requests, one: Fleet, teachers: Teachers, name: str, chosen: Setting | None) -> Asked:
    """How a way's request is carried out: as was chosen for vanilla, as was rehearsed, or as serves this way best."""
    if chosen:
        return Asked(chosen)
    prepared = one.prepared
    if prepared and prepared.algorithm == algorithms.base(name):
        return Asked(requests.setting(name, prepared.learning_rate, **prepared.options), prepared.levels)
    way, levels = f"{one.training}-{one.variant}", prepared.levels if prepared else None
    return Asked(requests.choose_to_level(way, one.trained.params, teachers, name, levels), levels)


class Measured(NamedTuple):
    """What one way and unlearner led to, of all lanes.

    asked, served: None where nothing was asked.
    seconds: of the request.  flops: of an update.
    curves: of relearning.  diagnosis: of the gradients before.
    digests: of the parameters before and after.
    tofu: scores of TOFU's questions before and after, of each lane; none where there are none.
    canaries: the same of canaries.
    """

    before: Scores
    after: Scores
    asked: Asked | None
    served: Served | None
    seconds: float
    flops: float
    curves: dict[str, np.ndarray]
    diagnosis: dict[str, Any]
    digests: tuple[list[str], list[str]]
    tofu: list[dict[str, Any]]
    canaries: list[dict[str, Any]]


def _measured(
    requests: Requests, attack: forgetting.Relearn, one: Fleet, teachers: Teachers, name: str, asked: Asked | None
) -> Measured:
    """Carry out the request, if there is one, and look at what it left."""
    scorer, problem = requests.scorer, requests.problem
    met = params = requests.met(one.trained.params)
    before = after = _score(requests, met)
    served, seconds, flops = None, 0.0, 0.0
    if asked:
        served, seconds = requests.carry_out(met, teachers, name, asked.setting, asked.levels)
        params = served.params
        after = _score(requests, params)
        flops = requests.update_flops(met, name, asked.setting)
    curves = relearn(scorer, attack, problem, params, requests.keys(Purpose.ATTACK))
    forget, stable = (subsample(batch, DIAGNOSED, Hash.DIAGNOSE) for batch in (problem.sets.forget, problem.sets.retain))
    diagnosis = scorer.diagnose(met, forget, stable)
    digests = loop.digests(met), loop.digests(params)
    asked_about = tofu.scores(requests, met, params, teachers.oracle, itself=one.training == "oracle")
    exposed = canaries.scores(requests, met, params)
    return Measured(before, after, asked, served, seconds, flops, curves, diagnosis, digests, asked_about, exposed)


def _rows(one: Fleet, name: str, measured: Measured, requests: Requests, oracle: Scores) -> list[Row]:
    """One row for each lane."""
    before, after, served, problem = measured.before, measured.after, measured.served, requests.problem
    if problem.dataset.is_text:
        before, after = ([*map(documents.beside_oracle, lanes, oracle)] for lanes in (before, after))
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
            "setting": _told(measured.asked.setting) if measured.asked else None,
            "step_flops": one.cost["step_flops"],
            "meta_step_flops": one.cost["meta_step_flops"],
            "params_sha256": dict(zip(("before", "after"), (lanes[i] for lanes in measured.digests), strict=True)),
        }
        if problem.dataset.is_text:
            extra["distance"] = documents.distances(after[i], oracle[i])
        if served and isinstance(served.level, np.ndarray):
            extra["level"] = {"aim": float(served.level[i]), "undone": int(np.asarray(served.undone)[i])}
        if measured.tofu:
            extra["tofu"] = measured.tofu[i]
        if measured.canaries:
            extra["canaries"] = measured.canaries[i]
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


def _told(setting: Setting) -> dict[str, Any]:
    """A setting in a row."""
    values = setting._asdict()
    return {name: value for name, value in values.items() if name != "options"} | dict(setting.options)


def _curve(served: Served, lane: int) -> dict[str, np.ndarray]:
    """A lane's observations, without what follows its end and what was not finite."""
    finite = np.all([np.isfinite(rows[lane]) for rows in served.curve.values()], axis=0)
    return {name: rows[lane][finite] for name, rows in served.curve.items()}
