"""The rows of a judgement: what was carried out, every metric as an Estimate, and what it cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.core.results import Estimate, Row
from experiments.judge import fleets, memorisation, metrics, strength, texts
from experiments.judge.cases import Case
from experiments.judge.fleets import REPEATS, SHADOWS, TUNING
from experiments.reporting.estimates import at
from experiments.scoring import algorithms
from unlearn.metrics import cost, gaps, relearning

REQUESTS = (1, 10, 100)  # in a model's life, that its preparation is spread over


class Entry(NamedTuple):
    """One way and algorithm.

    found: scores of the first lanes before and after the request, relearning curves, weak and strong, the setting, seconds.
    judged: metrics of the kept statistics.  trials: of the tuning.  cost: FLOPs, seconds and bytes of one model.
    enough: forget accuracy at which a request rests.
    """

    training: str
    unlearner: str
    found: dict[str, Any]
    judged: dict[str, Any]
    trials: list[dict[str, Any]]
    cost: dict[str, float]
    enough: float


def rows(case: Case, entries: list[Entry]) -> list[Row]:
    """The rows of results.json of one case, against its oracles and against vanilla models that never forgot."""
    find = lambda *key: next(one.found for one in entries if (one.training, one.unlearner) == key)  # noqa: E731
    oracle, original = find("oracle", "none"), find("vanilla", "none")
    retraining = next(one.cost["train_flops"] for one in entries if one.training == "oracle")
    seeds, rates = len(case.shared.seeds), case.shared.relearn.rates

    def strong(entry: Entry) -> dict[str, Any]:
        """Nothing where there was no strong attack."""
        theirs = find(strength.reference(entry.training), "none").get("strong", {})
        return strength.judged(entry.found.get("strong", {}), theirs, rates, seeds)

    return [_row(case, entry, oracle, original, retraining, strong(entry)) for entry in entries]


def _row(
    case: Case,
    entry: Entry,
    oracle: dict[str, Any],
    original: dict[str, Any],
    retraining: float,
    strong: dict[str, Any],
) -> Row:
    found, spent = entry.found, entry.cost
    before, after, beside = (metrics.numbers(lanes) for lanes in (found["before"], found["after"], oracle["after"]))
    reference = {key: float(np.nanmean(values)) for key, values in beside.items()}
    lanes = [{key: values[i] for key, values in after.items()} for i in range(len(case.shared.seeds))]
    over_lanes = lambda measure: metrics.over_lanes([measure(lane) for lane in lanes])  # noqa: E731
    extra = entry.judged | {
        "tow": over_lanes(lambda lane: gaps.tow(lane, reference)),
        "tow_mia": over_lanes(lambda lane: gaps.tow_mia(lane, reference)),
        "average_gap": over_lanes(lambda lane: gaps.average_gap(lane, reference)),
        "mia": over_lanes(lambda lane: lane["mia_auc"]),
        "relearn": relearned(found["relearning"], oracle["relearning"], _accuracy(original)),
        "relearn_strong": strong,
        "klom": {"estimate": at(entry.judged["klom"], ("forget",)), **entry.judged["klom"]},
        "cost": cost_of_life(entry, retraining),
        "setting": found["setting"],
        "trials": entry.trials,
        "updates": _updates(found.get("updates_of_each")),
        "models": {role: fleets.count(case, entry.training, role) for role in (REPEATS, SHADOWS, TUNING)},
        "intervals": {key: metrics.over_lanes(after[key].tolist()) for key in ("forget_accuracy", "test_retain_accuracy")},
    }
    forgotten = after["forget_accuracy"]
    enough = (forgotten <= entry.enough).all()
    if algorithms.ends_at_level(entry.unlearner):
        enough = found["reached"] == fleets.count(case, entry.training, REPEATS)
    stop = "reached" if enough else "budget"
    return Row(
        training=entry.training.partition(" ")[0],
        variant=entry.training.partition(" ")[2] or "default",
        unlearner=algorithms.short(entry.unlearner),
        setting=case.name,
        dataset=case.problem.dataset.name,
        seed=case.seed,
        before={key: _mean(values) for key, values in before.items()},
        after={key: _mean(values) for key, values in after.items()},
        steps=found["updates"],
        stop=stop if np.isfinite(forgotten).all() else "diverged",
        train_seconds=spent["train_seconds"],
        unlearn_seconds=spent["unlearn_seconds"],
        train_flops=spent["train_flops"],
        unlearn_flops=spent["unlearn_flops"],
        peak_bytes=spent["peak_bytes"],
        storage_bytes=spent["storage_bytes"],
        facts=fleets.guarantee(case, entry.training),
        extra=extra,
    )


def cost_of_life(entry: Entry, retraining: float) -> dict[str, Any]:
    """What one model and its requests cost; the value is FLOPs per request, of oracles those of retraining.

    Args:
      retraining: FLOPs of ordinary training, which every request costs who has prepared for none.

    Returns:
      beside the counts of one model: models that are stored, `preparation_flops` beyond ordinary training,
      `amortised_flops` per request by the number of requests, and `break_even_requests` against retraining, infinite (null
      in results.json) if it never pays.
    """
    spent = entry.cost
    request = retraining if entry.training in fleets.ORACLES else spent["unlearn_flops"]
    preparation = max(spent["train_flops"] - retraining, 0.0)
    return {
        "estimate": Estimate(request, request, request, 1),
        **spent,
        "models": 1,
        "preparation_flops": preparation,
        "amortised_flops": {str(count): cost.amortised(preparation, request, count) for count in REQUESTS},
        "break_even_requests": cost.break_even(preparation, request, retraining),
    }


def relearned(curves: dict[str, Any], oracle: dict[str, Any], original: float) -> dict[str, Any]:
    """Relearning on each attack set: the value is the area of the attack with a part of the forget set.

    Args:
      curves, oracle: attack -> [lanes, steps + 1] accuracies on forget data.
      original: forget accuracy of vanilla models that never forgot.

    Returns:
      {"estimate", "curves", "attacks": attack -> {"area", "steps"}}: the area between a curve and the oracles'
      mean curve, as a share of what never forgot; the steps until accuracy is half way from the oracles' start to the
      original, over the lanes that get there in time, which its `n` counts.
    """
    attacks = {}
    for attack, kept in curves.items():
        lanes, theirs = np.array(kept, float), np.nanmean(np.array(oracle[attack], float), axis=0)
        level = (theirs[0] + original) / 2
        sound = [lane for lane in lanes if np.isfinite(lane).all()]
        area = [relearning.normalised_area(lane, theirs, original) for lane in lanes]
        steps = [relearning.steps_to_recover(lane, level) for lane in sound] if original > theirs[0] else []
        attacks[attack] = {"area": metrics.over_lanes(area), "steps": metrics.over_lanes(steps)}
    return {"estimate": attacks["part"]["area"], "curves": curves, "attacks": attacks}


def _updates(each: list[int] | None) -> dict[str, float] | None:
    """Median and most updates over the models; None where an older version kept their mean alone."""
    return {"median": float(np.median(each)), "most": max(each)} if each else None


def _accuracy(found: dict[str, Any]) -> float:
    return _mean(metrics.numbers(found["before"])["forget_accuracy"])


def _mean(values: np.ndarray) -> float:
    """Over lanes that did not fail."""
    return float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")


def forget_set(case: Case) -> dict[str, Any]:
    """What is forgotten; the mean memorisation of it, if that was estimated in this judgement."""
    dataset = case.problem.dataset
    every, forget, pool = (
        texts.documents(dataset, dataset.train.id[rows]) for rows in (slice(None), case.problem.forget, case.pool)
    )
    told = {**case.shared.judgement.sets[case.name].model_dump(), "forget": len(forget), "pool": len(pool)}
    if dataset.tokens:
        told["texts"] = True
    if case.workdir.has(memorisation.STAGE):
        forgotten = np.isin(every, forget)
        told["memorisation"] = float(memorisation.memorisation(case)[forgotten].mean())
    return told
