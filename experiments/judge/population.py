"""Weaker witnesses of a judgement: population attacks, ZRF and CKA, of the models that are also attacked by relearning.

Each is known to miss or to overstate something (see its metric's file), and none says anything but beside the oracles'.
"""

from __future__ import annotations

import functools
from collections.abc import Sized
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from experiments import models
from experiments.core.keys import Hash, Purpose
from experiments.core.results import Estimate
from experiments.data import datasets
from experiments.data.sets import subsample
from experiments.judge import capacity, texts
from experiments.judge.cases import Case
from experiments.judge.metrics import Kept, Masks, given, or_why, over_lanes, wide
from experiments.scoring import evaluation
from experiments.scoring.statistics import Statistics, make_divergence
from unlearn.base import Array, Batch, Model
from unlearn.metrics import membership, zrf
from unlearn.metrics.cka import linear_cka

EXAMPLES = 256  # of the forget set, that are looked at for CKA
TEACHERS = 8  # untrained models that ZRF compares with


def features(case: Case, params: Any) -> np.ndarray:
    """What each lane's last layer is given, [lanes, EXAMPLES at most, width], on examples of the forget set.

    Of a model that names no features these are its logits: of few lanes and examples, but with an axis of classes. Of text
    to predict, the mean over the tokens of a row.
    """
    seen, model = subsample(_forget(case), EXAMPLES, Hash.FEATURES), models.as_features(case.trainer.model)
    part: Any = seen["x"]
    if case.trainer.model.language:
        part, model = {name: seen[name] for name in ("x", "token_weight")}, _of_rows(model)
    of = evaluation.make_predict(model, case.scorer.devices)
    return capacity.over(case, lambda lanes: of(lanes, part), params)


@functools.lru_cache
def _of_rows(model: Model) -> Model:
    """The model whose `apply` takes x and token weights of rows of text, and gives means over tokens."""

    def apply(params: Any, batch: Batch, key: Array | None) -> Array:
        weight = batch["token_weight"][..., None]
        total = jnp.sum(model.apply(params, batch["x"], key) * weight, axis=1)
        return total / jnp.maximum(jnp.sum(weight, axis=1), 1.0)

    return model._replace(apply=apply)


def teachers(case: Case) -> Any:
    """Parameters of TEACHERS models that know nothing."""
    return capacity.untrained(case, range(case.seed, case.seed + TEACHERS), Purpose.UNTRAINED)


def divergence(case: Case, params: Any) -> np.ndarray:
    """How far each lane's answers on the forget set are from those of models that know nothing, [lanes, examples] bits."""
    of, asked = make_divergence(case.scorer.model, case.scorer.devices), _forget(case)
    unknowing = teachers(case)
    found: np.ndarray = capacity.over(case, lambda lanes: of(lanes, unknowing, asked), params)
    if not case.problem.dataset.is_text:
        return found
    return texts.mean_by_document(found, asked["token_weight"].sum(axis=1), case.problem.units)


def _forget(case: Case) -> Batch:
    return datasets.batch(case.problem.dataset.train, case.problem.forget)


def heard(kept: Kept, oracle: Kept | None, masks: Masks) -> dict[str, Any]:
    """What the witnesses say of one entry: name -> Estimate or a mapping with one, means over the models with features.

    Args:
      kept, oracle, masks: as for `metrics.judged`.
    """
    lanes = range(len(kept.features))
    forget = [attackable(kept.pool, lane, masks.forgotten) for lane in lanes]
    others = [attackable(kept.test, lane, masks.others) for lane in lanes]
    return {
        "attacks": or_why(lambda: _attacks(forget, others)),
        "zrf": or_why(lambda: _mean([float(zrf.zrf(one)) for one in kept.divergence])),
        "cka": or_why(lambda: _mean(_cka(kept.features, given(oracle).features))),
    }


def attackable(statistics: Statistics, lane: int, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What population attacks look at: each of `membership.SCORES` of one model on some examples."""
    one = {name: wide(leaf[lane, mask]) for name, leaf in statistics._asdict().items()}
    one["confidence"] = expit(one["margin"])  # in float64, where it does not round to 1
    return {name: one[name] for name in membership.SCORES}


def _attacks(forget: list[dict[str, np.ndarray]], others: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Score -> {"auc", "balanced_accuracy"}; the value is the modified entropy's AUC, which no other column has."""
    lanes = [membership.population_attacks(one, other) for one, other in zip(forget, others, strict=True)]
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
