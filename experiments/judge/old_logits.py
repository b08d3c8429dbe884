"""Workdirs of version 0.1 kept whole logits of every entry: those are read once, and kept anew as statistics.

What is computed here on the host in float64 is what `scoring.statistics` reduces on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.core.files import Arrays, unreadable
from experiments.core.machines import processes
from experiments.core.workdirs import AGAIN
from experiments.judge import metrics, population
from experiments.judge.cases import Case
from experiments.scoring import evaluation
from experiments.scoring.statistics import of_logits
from unlearn.base import Batch
from unlearn.metrics.zrf import js_divergence


def convert(case: Case, old: Path, new: Path, points: Mapping[str, Batch]) -> None:
    """Write the statistics of the logits that an entry kept, if it did and has none.

    Args:
      old, new: files.
      points: the examples that were looked at, by kind.

    Raises:
      WorkdirError: the old file cannot be read.
    """
    if not processes.first(lambda: old.exists() and not new.exists()):
        return
    logits = processes.first(lambda: metrics.read(old))
    try:
        labels = {kind: batch["y"] for kind, batch in points.items()}
        statistics = {kind: of_logits(logits[kind], labels.get(kind, labels["pool"])) for kind in (*labels, "shadows")}
        features = logits["features"]
        forgotten = np.isin(case.pool, case.problem.forget)
        divergence = _divergence(case, logits["pool"][: len(features), forgotten])
    except (ValueError, KeyError) as error:
        raise unreadable(old, error, AGAIN) from error
    arrays: Arrays = metrics.flat(statistics) | {"features": features, "divergence": divergence}
    processes.first(lambda: metrics.keep(new, arrays))


def _divergence(case: Case, logits: np.ndarray) -> np.ndarray:
    """[lanes, forget examples] from untrained models, NaN where a logit is not finite."""
    predict = evaluation.make_predict(case.scorer.model, case.scorer.devices)
    teachers = predict(population.teachers(case), case.problem.dataset.train.x[case.problem.forget])
    finite = np.isfinite(logits).all(axis=-1)
    divergence = js_divergence(np.where(finite[..., None], logits, 0.0)[:, None], teachers[None]).mean(axis=1)
    return np.where(finite, divergence, np.nan)
