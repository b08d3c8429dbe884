"""Exposure of planted canaries: how far up their secrets stand among all that they could have been.

Every secret of the space is tried, so the rank is exact. Candidates are ordered by the loss of the whole document, summed
over its tokens: secrets may have different numbers of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.core.machines.execution import Execution
from experiments.data.text import canaries
from experiments.data.text.corpus import Corpus
from experiments.scoring.scorer import Scorer
from experiments.scoring.serving import Requests
from experiments.scoring.statistics import entries_of, in_chunks
from unlearn.base import Batch, Model
from unlearn.metrics import text

Lane = dict[str, dict[str, Any]]


def scores(requests: Requests, before: Any, after: Any) -> list[Lane]:
    """Exposures before and after a request, of each lane; none if no canaries were planted.

    Of the canaries that are forgotten and of those that stay, if there are any: forget_exposure and retain_exposure, means
    in bits, and forget_exposures and retain_exposures, of each by its number. NaN of lanes that are not finite.

    Args:
      before, after: parameters of all lanes.
    """
    corpus = requests.problem.dataset.corpus
    if corpus is None or corpus.planted is None:
        return []
    forgotten = np.isin(corpus.planted.ids, requests.problem.units)
    every = (before,) if after is before else (before, after)
    found = [exposures(requests.scorer, params, corpus) for params in every]
    return [
        {"before": _scored(first, forgotten), "after": _scored(last, forgotten)}
        for first, last in zip(found[0], found[-1], strict=True)
    ]


def exposures(scorer: Scorer, params: Any, corpus: Corpus) -> np.ndarray:
    """[lanes, canaries] exposure in bits of what is planted in a corpus; NaN of lanes that are not finite."""
    planted = corpus.planted
    assert planted is not None
    losses = document_losses(scorer, params, corpus)
    found = np.full(losses.shape[:2], np.nan)
    for lane, of_lane in enumerate(losses):
        for canary, (tried, secret) in enumerate(zip(of_lane, planted.secrets.tolist(), strict=True)):
            if np.isfinite(tried).all():
                found[lane, canary] = text.exposure(tried[[secret]], np.delete(tried, secret))[0]
    return found


@functools.lru_cache
def make_losses(model: Model, devices: Execution) -> Callable[[Any, Batch], np.ndarray]:
    """`(params of all lanes, batch) -> [lanes, rows]` mean loss of a token, and nothing else: there are many rows."""
    over = devices.lanes(lambda params, batch: model.loss(model.apply(params, batch["x"], None), batch))

    def losses(params: Any, batch: Batch) -> np.ndarray:
        found: np.ndarray = in_chunks(lambda part: over(params, part), batch, entries_of(model, params, batch["x"]))
        return found

    return losses


def document_losses(scorer: Scorer, params: Any, corpus: Corpus) -> np.ndarray:
    """[lanes, canaries, SPACE] the loss in nats of every canary with every secret."""
    planted = corpus.planted
    assert planted is not None
    tried = canaries.candidates(planted, corpus.documents.prompts is not None)
    rows = corpus._replace(most=0).rows(tried)  # one for each: that they fit was checked as they were planted
    width = int(np.flatnonzero(rows.token_weight.any(axis=0))[-1]) + 1
    x, y, weight = (leaf[:, :width] for leaf in (rows.x, rows.y, rows.token_weight))
    batch = {"x": x, "y": np.where(weight > 0, y, 0), "token_weight": weight}
    loss = make_losses(scorer.model, scorer.devices)(params, batch).astype(np.float64)
    return (loss * weight.sum(axis=1)).reshape(-1, len(planted.ids), canaries.SPACE)


def _scored(exposed: np.ndarray, forgotten: np.ndarray) -> dict[str, Any]:
    """The scores of a lane."""
    parts = {"forget": exposed[forgotten], "retain": exposed[~forgotten]}
    means = {f"{name}_exposure": float(part.mean()) for name, part in parts.items() if part.size}
    return means | {f"{name}_exposures": part.tolist() for name, part in parts.items() if part.size}
