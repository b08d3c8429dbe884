"""How each way's request is carried out: the same trials for all, on models that nothing is reported of."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.core import progress
from experiments.core.errors import UserError
from experiments.judge import fleets, texts, work
from experiments.judge.cases import Case, rehearsed
from experiments.judge.fleets import TUNING, Fleets, Setting
from experiments.scoring import aims, algorithms
from unlearn.until import REACHED


def settled_on(case: Case, trained: Fleets, name: str, unlearner: str) -> tuple[Setting | None, list[dict[str, Any]]]:
    """How a request is carried out, and the trials that it was chosen by: none if it is as was rehearsed."""
    if unlearner == "none":
        return None, []
    prepared = rehearsed(case, name).prepared if name in case.readiness else None
    by_level = algorithms.ends_at_level(unlearner)
    if prepared and by_level and prepared.algorithm == algorithms.base(unlearner):
        steps = max(case.shared.judgement.tuning.steps)
        return Setting(prepared.learning_rate, steps, tuple(sorted(prepared.options.items()))), []
    if by_level:
        trials = tried_to_level(case, trained, name, unlearner)
        best = max(trials, key=_rank)
        options = (("beta", best["beta"]),) if "beta" in best else ()
        return Setting(best["learning_rate"], best["steps"], options), trials
    trials = tried(case, trained, name, unlearner)
    return chosen(trials), trials


def _rank(trial: dict[str, Any]) -> tuple[int, float, float]:
    """The merit of a trial; what it kept is accuracy or, of texts to predict, less loss of what stays."""
    if "retained_loss" in trial:  # not in trials of older versions
        loss = trial["retained_loss"]
        return aims.merit(trial, -np.inf if loss is None else -loss)
    return aims.merit(trial, -1.0 if trial["kept"] is None else trial["kept"])


def tried_to_level(case: Case, trained: Fleets, name: str, unlearner: str) -> list[dict[str, Any]]:
    """The trials of one way whose request ends at a level: each setting, how many models settled, how far they came on the
    way there, and what they kept.

    As many for every way, on models that nothing is reported of. No oracle is asked: what is kept is on
    validation data or, of texts to predict, on retained ones.
    """
    tuning, section = case.shared.judgement.tuning, case.shared.request.to_level
    settings: list[dict[str, float]] = [{"learning_rate": rate} for rate in tuning.learning_rates]
    if unlearner == "level":
        settings = [{"learning_rate": rate, "beta": beta} for beta in section.betas for rate in section.learning_rates]
    most = max(tuning.steps)

    def trials() -> list[dict[str, Any]]:
        found = []
        for setting in settings:
            options = tuple((key, value) for key, value in setting.items() if key != "learning_rate")
            (ended,) = fleets.forget(
                case,
                trained.params[name, TUNING],
                name,
                TUNING,
                unlearner,
                setting["learning_rate"],
                (most,),
                options=options,
                teacher=fleets.teacher(case, trained, name, TUNING),
            )
            forget, kept = _accuracies(case, ended.params)
            reached = int((ended.stop == REACHED).sum())
            way = float(np.nan_to_num(ended.way).mean())
            trial = setting | {"steps": most, "reached": reached, "way": way, "forget": forget, "kept": kept}
            found.append(trial | texts.costs(case, ended.params))
            progress.advance(work.trials(case, name) / len(settings))
        return found

    stage = f"trials-{case.name}-{name}-{unlearner}"
    work.begin(case, stage, f"tune {name}, {unlearner}", work.trials(case, name))
    kept: list[dict[str, Any]] = case.workdir.stage(stage, trials)
    case.workdir.log("trials", case=case.name, training=name, unlearner=unlearner, trials=kept)
    return kept


def tried(case: Case, trained: Fleets, name: str, unlearner: str) -> list[dict[str, Any]]:
    """The trials of one way and algorithm: each rate after each number of steps, and how far that is from the oracles.

    The same trials for every way and algorithm, on models that nothing is reported of, against oracles of their own. The
    gap is the mean of |accuracy - oracles'| on forget data and on validation data that stay; None if models diverged.
    """
    tuning = case.shared.judgement.tuning

    def trials() -> list[dict[str, Any]]:
        oracle, found = np.array(aim(case, trained)), []
        for rate in tuning.learning_rates:
            stops = tuple(tuning.steps)
            ended = fleets.forget(case, trained.params[name, TUNING], name, TUNING, unlearner, rate, stops, oracle[0])
            for steps, one in zip(tuning.steps, ended, strict=True):
                seen = np.array(_accuracies(case, one.params))
                gap = float(np.abs(seen - oracle).mean())
                found.append({"learning_rate": rate, "steps": steps, "forget": seen[0], "kept": seen[1], "gap": gap})
            progress.advance(work.trials(case, name) / len(tuning.learning_rates))
        return found

    stage = f"trials-{case.name}-{name}-{unlearner}"
    work.begin(case, stage, f"tune {name}, {unlearner}", work.trials(case, name))
    kept = case.workdir.stage(stage, trials)
    case.workdir.log("trials", case=case.name, training=name, unlearner=unlearner, trials=kept)
    return kept


def aim(case: Case, trained: Fleets) -> list[float]:
    """What requests aim at, on models that nothing is reported of: oracles' accuracy on forget data, where a request rests,
    and on validation data that stay.

    Raises:
      UserError: an oracle diverged; one line that says what to do.
    """
    found = case.workdir.stage(f"aim-{case.name}", lambda: _accuracies(case, trained.params["oracle", TUNING]))
    if None in found:
        raise UserError(
            f"oracles of set {case.name!r} have logits that are not finite, so that no request has an aim: lower "
            "--config.train.learning_rate and use an empty --workdir"
        )
    return found


def _accuracies(case: Case, params: Any) -> list[float]:
    sets, measure = case.scorer.sets, case.scorer.measure
    return [float(measure(params, batch)[0].mean()) for batch in (sets.forget, sets.validation_retain)]


def chosen(trials: list[dict[str, Any]]) -> Setting:
    """The trial with the smallest gap; the first if all diverged."""
    best = min(trials, key=lambda trial: np.inf if trial["gap"] is None else trial["gap"])
    return Setting(best["learning_rate"], best["steps"])
