"""Weaker witnesses of a judgement: population attacks, ZRF and CKA, of the models that are also attacked by relearning.

Each is known to miss or to overstate something (see its metric's file), and none says anything but beside the oracles'.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import jax
import numpy as np

from experiments import models
from experiments.core.keys import Hash, Purpose
from experiments.core.results import Estimate
from experiments.data.sets import subsample
from experiments.judge import capacity, metrics
from experiments.judge.cases import Case
from experiments.judge.metrics import Kept, Labels, given, or_why, over_lanes
from experiments.scoring import evaluation
from unlearn.metrics import membership, zrf
from unlearn.metrics.cka import linear_cka

EXAMPLES = 256  # of the forget set, that are looked at for CKA
TEACHERS = 8  # untrained models that ZRF compares with


def features(case: Case, params: Any) -> np.ndarray:
    """What each lane's last layer is given, [lanes, EXAMPLES at most, width], on examples of the forget set."""
    seen = subsample(case.problem.asked, EXAMPLES, Hash.FEATURES)
    of = evaluation.make_predict(models.as_features(case.trainer.model), case.scorer.devices)
    return capacity.over(case, lambda lanes: of(lanes, seen["x"]), params)


def untrained(case: Case) -> np.ndarray:
    """Logits of models that know nothing on the forget set, [TEACHERS, examples, classes], kept beside the others'."""
    problem, file = case.problem, case.workdir.path / "logits" / f"{case.name}-untrained.npz"
    if not file.exists():
        params = jax.device_get(capacity.untrained(case, range(case.seed, case.seed + TEACHERS), Purpose.UNTRAINED))
        metrics.keep(file, {"forget": capacity.predict(case, params, problem.dataset.train.x[problem.forget])})
    return metrics.read(file)["forget"]


def heard(kept: Kept, oracle: Kept | None, labels: Labels, teachers: np.ndarray) -> dict[str, Any]:
    """What the witnesses say of one entry: name -> Estimate or a mapping with one, means over the models with features.

    Args:
      kept, oracle, labels: as for `judge_metrics.judged`.
      teachers: [teachers, forget examples, classes] logits of untrained models.
    """
    lanes = len(kept.features)
    pool, test = kept.pool[:lanes, labels.forgotten], kept.test[:lanes, labels.others]
    return {
        "attacks": or_why(lambda: _attacks(pool, labels.pool[labels.forgotten], test, labels.test[labels.others])),
        "zrf": or_why(lambda: _mean([float(zrf.zrf(one, teachers).mean()) for one in pool])),
        "cka": or_why(lambda: _mean(_cka(kept.features, given(oracle).features))),
    }


def _attacks(forget: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray) -> dict[str, Any]:
    """Score -> {"auc", "balanced_accuracy"}; the value is the modified entropy's AUC, which no other column has."""
    both = zip(forget, others, strict=True)
    lanes = [membership.population_attacks(one, labels, other, other_labels) for one, other in both]
    _some(lanes)
    hows = membership.Attack._fields
    found = {score: {how: over_lanes([getattr(lane[score], how) for lane in lanes]) for how in hows} for score in lanes[0]}
    return {"estimate": found["modified_entropy"]["auc"], **found}


def _cka(features: np.ndarray, oracle: np.ndarray) -> list[float]:
    """Of each model, the mean over oracles, which stay as they are: an interval is over the models."""
    _some(oracle)
    return [float(np.mean([linear_cka(one, other) for other in oracle])) for one in features]


def _mean(values: list[float]) -> Estimate:
    _some(values)
    return over_lanes(values)


def _some(models: Sized) -> None:
    if not len(models):
        raise ValueError("no model has finite logits")
