"""Scores of whole documents: what language models remember of them, from statistics of their single tokens.

A document takes as many rows as it needs. Its tokens are put side by side before anything is reduced over them, and the
score of a set is the mean over its documents, each of which counts as one. Extraction strength alone is of rows, weighted
by their tokens: a model reads a row without those before it, so no prompt reaches from one into the next.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.core.machines.execution import Execution
from experiments.data.ids import Array
from experiments.data.sets import Sets
from experiments.data.splits import Dataset
from experiments.scoring import verbatim
from experiments.scoring.scorer import Scorer
from experiments.scoring.statistics import entries_of, in_chunks
from unlearn.base import Batch, Model
from unlearn.metrics import gaps, text
from unlearn.metrics.text import TokenStatistics

SCORED = ("forget", "retain", "test")
SHARE = 0.2  # of a document's tokens, in Min-K% and Min-K%++
MUSE_SHARE = 0.4  # the same in PrivLeak
UNSEEN = "min_40_unseen_auc"  # of which PrivLeak is made
Tokens = Callable[[Any, Batch], TokenStatistics]  # (params of all lanes, batch) -> [lanes, rows, length] each
Scores = dict[str, float]


@functools.lru_cache
def make_tokens(model: Model, devices: Execution) -> Tokens:
    """`(params of all lanes, batch) -> TokenStatistics` [lanes, rows, length], in chunks; no logits leave the device."""

    def reduced(params: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return tuple(text.token_statistics(model.apply(params, x, None), y))

    over = devices.lanes(reduced)

    def tokens(params: Any, batch: Batch) -> TokenStatistics:
        looked_at = {"x": batch["x"], "y": batch["y"]}
        entries = entries_of(model, params, batch["x"])
        return TokenStatistics(*in_chunks(lambda part: over(params, part["x"], part["y"]), looked_at, entries))

    return tokens


def score(scorer: Scorer, dataset: Dataset, params: Any) -> list[Scores]:
    """Scores of every lane on the documents of its sets; NaN throughout where a token's statistics are not finite.

    Of forget, retain and test documents:
      token_loss: in nats per token.  perplexity: exp of it.
      extraction_strength, exact_memorisation: as `unlearn.metrics.text` has them.
    min_k_auc, min_k_plus_auc: how often a forgotten document scores above a held-out one by Min-K% and Min-K%++; 1: all
      of them look seen, .5: nothing is told, below: they stand out as unseen.
    min_40_unseen_auc: the other way round, by Min-40%, as PrivLeak takes it.
    forget_rouge_l: of `verbatim`, of a scorer that generates and data with a tokeniser, if rouge-score is installed.
    """
    tokens, sets = make_tokens(scorer.model, scorer.devices), scorer.sets
    measured = {name: tokens(params, getattr(sets, name)) for name in SCORED}
    lanes = len(measured["forget"].log_p)
    of_lane = lambda i: {name: TokenStatistics(*(leaf[i] for leaf in found)) for name, found in measured.items()}  # noqa: E731
    scores = [_score(of_lane(i), sets, dataset.units_of) for i in range(lanes)]
    if dataset.corpus is None or scorer.generate is None or verbatim.lacking():
        return scores
    documents = dataset.units_of(sets.forget["id"])
    rouge = verbatim.score(scorer.generate, dataset.corpus.tokeniser, params, sets.forget, documents)
    sound = [math.isfinite(lane["forget_token_loss"]) for lane in scores]
    return [
        {**lane, "forget_rouge_l": value if ok else math.nan} for lane, value, ok in zip(scores, rouge, sound, strict=True)
    ]


def _score(found: Mapping[str, TokenStatistics], sets: Sets, units_of: Callable[[Array], Array]) -> Scores:
    """Scores of one lane."""
    scores: Scores = {}
    sound, looks = True, {}
    for name, statistics in found.items():
        batch = getattr(sets, name)
        weights, documents = batch["token_weight"], units_of(batch["id"])
        sound &= all(np.isfinite(np.asarray(leaf)[weights > 0]).all() for leaf in statistics)
        known = TokenStatistics(*(np.nan_to_num(leaf) for leaf in statistics))
        whole, whole_weights = joined(known, weights, documents)
        loss = float(text.token_loss(whole, whole_weights).mean())
        scores[f"{name}_token_loss"] = loss
        with np.errstate(over="ignore"):
            scores[f"{name}_perplexity"] = float(np.exp(loss))
        scores[f"{name}_extraction_strength"] = float(extraction(known, weights, documents).mean())
        scores[f"{name}_exact_memorisation"] = float(text.exact_memorisation(whole, whole_weights).mean())
        looks[name] = (
            text.min_k(whole, whole_weights, SHARE),
            text.min_k_plus(whole, whole_weights, SHARE),
            text.min_k(whole, whole_weights, MUSE_SHARE),
        )
    alike = np.isin(np.unique(units_of(sets.test["id"])), units_of(sets.others["id"]))  # held out, like the forgotten
    pairs = [(forget, test[alike]) for forget, test in zip(looks["forget"], looks["test"], strict=True)]
    unseen = [text.looks_unseen(*pair) for pair in pairs]
    scores |= {"min_k_auc": 1 - unseen[0], "min_k_plus_auc": 1 - unseen[1], UNSEEN: unseen[2]}
    return {name: value if sound else float("nan") for name, value in scores.items()}


def joined(tokens: TokenStatistics, weights: Array, documents: Array) -> tuple[TokenStatistics, Array]:
    """The tokens of rows as those of documents, and their weights: [documents, most tokens], filled up with weight 0.

    Documents come by increasing ids, and only tokens that count; those of several rows as the rows stand.

    Args:
      tokens, weights: [rows, length].
      documents: [rows], the document of each.

    Example:
      >>> log_p, rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[1, 1], [1, 0], [1, 1]])
      >>> whole, weights = joined(TokenStatistics(*[log_p] * 4), rows, np.array([8, 7, 8]))
      >>> whole.log_p.tolist(), weights.tolist()
      ([[3.0, 0.0, 0.0, 0.0], [1.0, 2.0, 5.0, 6.0]], [[1, 0, 0, 0], [1, 1, 1, 1]])
    """
    _, of_row = np.unique(documents, return_inverse=True)
    counts = weights > 0
    of_token = np.repeat(of_row, counts.sum(axis=1))
    order, sizes = np.argsort(of_token, kind="stable"), np.bincount(of_token)
    place = np.arange(len(of_token)) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    def put(values: Any) -> Array:
        whole = np.zeros((len(sizes), sizes.max()), values.dtype)
        whole[of_token[order], place] = np.asarray(values)[counts][order]
        return whole

    return TokenStatistics(*map(put, tokens)), put(weights)


def extraction(tokens: TokenStatistics, weights: Array, documents: Array) -> Array:
    """[documents] by increasing ids: the mean extraction strength of a document's rows, each by its tokens that count.

    It is the share of a document's tokens that the model adds by itself, once it is given the beginning of each row.
    """
    _, of_row = np.unique(documents, return_inverse=True)
    sizes = (weights > 0).sum(axis=1)
    return np.bincount(of_row, text.extraction_strength(tokens, weights) * sizes) / np.bincount(of_row, sizes)


def beside_oracle(scores: Scores, oracle: Scores) -> Scores:
    """Scores with PrivLeak, in percent against the oracle of the same seed; NaN where that has no AUC to divide by."""
    pair = scores[UNSEEN], oracle[UNSEEN]
    return {**scores, "privleak": text.privleak_of(*pair) if pair[1] > 0 else float("nan")}


def distances(scores: Scores, oracle: Scores) -> Scores:
    """Token losses minus the oracle's of the same seed, in nats, and the mean of their sizes.

    Below 0, forgotten documents are still remembered; above, they stand out.
    """
    apart = {name: scores[f"{name}_token_loss"] - oracle[f"{name}_token_loss"] for name in SCORED}
    return {**apart, "mean": gaps.loss_gap(scores, oracle)}
