"""The rows of federated erasure: one for each way, every number a mean over seeds with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.configs.federated import Leaver
from experiments.core.errors import line
from experiments.core.results import Estimate, Row, Scalar
from experiments.erasure import trial
from experiments.erasure.methods import HELDOUT, ORACLE, RIDGE, SERVED, repair_facts
from experiments.erasure.trial import Programs
from experiments.judge import ulira
from federated import erase
from federated.archive import Scheme
from federated.erase.contract import CLASS, CLIENT, REMAINING
from unlearn.metrics.intervals import t_interval

Told = Mapping[str, Any]
SCORES = ("test_accuracy", "test_gap", "leaver_accuracy", "leaver_gap", "backdoor", "distance", "disagreement")
COSTS = ("seconds", "rounds", "updates", "stored", "sent", "bits", "kept", "ratio")
BY_UPDATES = ("running_sums", "fast_fedul", "medu")  # exact of whole clients at most
FEWEST = 6  # seeds for U-LiRA: three shadows of either kind in each half


def ways(trials: Sequence[Told]) -> list[str]:
    """The ways of all seeds, in the order of the first one; a seed of an older version may have fewer than others."""
    return [name for name in trials[0]["ways"] if all(name in told["ways"] for told in trials)]


def rows(run: Programs, trials: Sequence[Told]) -> list[Row]:
    """One row for each way that all seeds have.

    Args:
      run: what was run.
      trials: of `trial.trial`, one for each seed.
    """
    config = run.problem.config
    facts = described(run)
    made = []
    for name in ways(trials):
        each = [told["ways"][name] for told in trials]
        refused = next((way["reason"] for way in each if "reason" in way), "")
        scores = {score: [way["scores"][score] for way in each if "scores" in way] for score in SCORES}
        extra: dict[str, Any] = {score: over_seeds(values, refused) for score, values in scores.items()}
        extra |= {cost: over_seeds([way[cost] for way in each if cost in way]) for cost in COSTS}
        extra |= {"ulira": membership(name, trials), "each": scores, "reason": refused}
        after = {score: _mean(values) for score, values in scores.items()}
        made.append(
            Row(
                training={ORACLE: "oracle", HELDOUT: "heldout_oracle"}.get(name, "federated"),
                variant=name,
                unlearner=str(facts[name]["method"]),
                setting=setting(config.leaver),
                dataset=run.problem.dataset.name,
                seed=config.seed,
                before={score: _mean([told["ways"][SERVED]["scores"][score] for told in trials]) for score in SCORES},
                after=after,
                steps=extra["rounds"].value or 0.0,
                stop="reached" if not refused else "diverged",
                train_seconds=_mean([told["seconds"] for told in trials]),
                unlearn_seconds=_median([way["seconds"] for way in each if "seconds" in way]),
                storage_bytes=extra["stored"].value,
                facts=facts[name],
                extra=extra,
            )
        )
    return made


def setting(leaver: Leaver) -> str:
    """What a row's setting is: honest, backdoor, class or examples."""
    if leaver.request == CLIENT:
        return "backdoor" if leaver.backdoor else "honest"
    return leaver.request


def described(run: Programs) -> dict[str, dict[str, Scalar]]:
    """What sets each row apart, by name of the way: method, helpers, when it is exact, and settings."""
    found: dict[str, dict[str, Scalar]] = {way.name: {**_needs(way.method), **way.facts} for way, _ in run.ways}
    for name in (trial.RIDGE_SERVED, RIDGE, trial.RIDGE_ORACLE):
        found[name] = _needs("ridge") | {"penalty": run.settings.penalty}
    for name, (scheme, _) in run.archives.items():
        for alpha in run.alphas:
            told: dict[str, Scalar] = {"alpha": alpha, "chosen": alpha == run.settings.alpha, "scheme": name}
            found[trial.archive_name(name, alpha)] = _needs("medu") | told | _shown(scheme)
        found[trial.recover_name(name)] = _needs("fedrecover") | {"scheme": name} | _shown(scheme)
        for rounds, alpha in run.settings.before_repair.items():
            chosen: dict[str, Scalar] = {"alpha": alpha, "chosen": True, "scheme": name}
            found[trial.repaired_name(name, alpha, rounds)] = (
                _needs("medu") | chosen | repair_facts(rounds) | _shown(scheme)
            )
    request = run.problem.config.leaver.request
    for facts in found.values():
        if request != CLIENT and facts["helpers"] == REMAINING:  # nobody leaves
            facts["helpers"] = "all clients"
        if request == CLASS and facts["method"] in BY_UPDATES:  # a client's update without a class is another one
            facts["exact"] = "never, of a class"
    return found


def _needs(method: str) -> dict[str, Scalar]:
    if method == SERVED:
        return {"method": SERVED, "helpers": "", "exact": "", "source": ""}
    needs = erase.needs_of(erase.find_method(method))
    return {"method": method, "helpers": needs.helpers, "exact": needs.exact, "source": needs.source}


def _shown(scheme: Scheme) -> dict[str, Scalar]:
    return {name: getattr(scheme, name) for name in ("lattice", "rate", "users", "reference", "entries", "amount")}


def swept(alphas: Sequence[float], trials: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, dict[str, Estimate]]:
    """Alpha -> score -> mean over seeds, of Fast-FedUL on the uncompressed history; empty if it was not run."""
    if not all(trials):
        return {}
    return {
        f"{alpha:g}": {score: over_seeds([told[i][score] for told in trials]) for score in SCORES}
        for i, alpha in enumerate(alphas)
    }


def over_seeds(values: Sequence[float | None], reason: str = "") -> Estimate:
    """The mean over seeds with its 95% t-interval; what is not finite counts as missing."""
    kept = [np.nan if value is None else float(value) for value in values]
    if not np.isfinite(kept).any():
        return Estimate(reason=reason or "not measured")
    return Estimate.of(t_interval(np.asarray(kept)))


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(kept)) if kept else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


# --- Membership -------------------------------------------------------------------------------------------------------


def membership(name: str, trials: Sequence[Told]) -> Any:
    """U-LiRA of what goes: had this federation these examples, which were then taken out, or never?

    The fleet is that of all seeds: half of its models are what a way makes of each, half their retrainings. Seeds of the
    first half attack those of the second, and the other way round. Intervals leave out seeds: their two models are much
    alike. Of the retraining itself there is nothing to ask.

    Returns:
      AUC and rates as `judge.ulira.attacked` gives them, or an Estimate without a value and with the reason.
    """
    reference = trial.RIDGE_ORACLE if name in (trial.RIDGE_SERVED, RIDGE, trial.RIDGE_ORACLE) else ORACLE
    if name == reference:
        return Estimate(reason="it is what others are told apart from")
    if len(trials) < FEWEST:
        return Estimate(reason=f"needs at least {FEWEST} seeds")
    if any("margins" not in told["ways"][name] for told in trials):
        return Estimate(reason="the way refused")
    pairs = [(told["ways"][name]["margins"], told["ways"][reference]["margins"]) for told in trials]
    margins = np.array(pairs, np.float64)  # [seeds, 2, examples]
    if not np.isfinite(margins).all():
        return Estimate(reason="margins are not finite")
    seeds, _, examples = margins.shape
    if np.array_equal(margins[:, 0], margins[:, 1]):  # the attack refuses scores that are all alike
        chance = Estimate(0.5, 0.5, 0.5, 2 * seeds)
        return {"estimate": chance, "estimate90": chance, "balanced_accuracy": chance}
    included = np.broadcast_to(np.array([True, False])[None, :, None], margins.shape).reshape(2 * seeds, examples)
    second = np.repeat(np.arange(seeds) >= seeds // 2, 2)
    try:
        found = ulira.attacked(margins.reshape(2 * seeds, examples), included, second, together=2)
    except ValueError as refused:
        return Estimate(reason=line(refused))
    return {key: found[key] for key in ("estimate", "estimate90", "balanced_accuracy")}
