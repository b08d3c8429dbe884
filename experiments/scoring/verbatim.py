"""Verbatim memory: what a decoder says after the first half of forgotten rows, beside what they say."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.core.machines import fleet
from experiments.data.ids import Array
from experiments.data.text.tokenisers import Tokeniser
from experiments.scoring.rouge import rouge_l
from unlearn.base import Batch

DOCUMENTS = 16  # at most, the first row of each
Generate = Callable[..., Any]  # as of `ModelFns`


class Halves(NamedTuple):
    """Rows cut in two: the tokens given, [rows, longest] and how many of each count, and those that come next."""

    prompts: Array
    lengths: Array
    rests: list[Array]


def score(generate: Generate, tokeniser: Tokeniser, params: Any, batch: Batch, documents: Array) -> list[float]:
    """Mean ROUGE-L F1 of greedy continuations with what the rows say, for each lane (VerbMem of MUSE, 2407.06460).

    A continuation ends where the model ends a document, or where its row has no place for more.

    Args:
      params: of all lanes.
      batch: rows; of each document the first is continued, of DOCUMENTS documents at most.
      documents: [rows], the document of each.

    Returns:
      NaN where no row has place for a token after its first half.
    """
    rows = first_rows(batch["id"], documents)
    rows = rows[has_place(batch, rows)][:DOCUMENTS]
    if not rows.size:
        return [math.nan] * fleet.lane_count(params)
    prompts, lengths, rests = halves(batch, rows)
    said, most = [tokeniser.decode(rest.tolist()) for rest in rests], max(map(len, rests))
    scores = []
    for lane in range(fleet.lane_count(params)):
        made = np.asarray(generate(fleet.lane(params, lane), prompts, lengths, most, stop=tokeniser.eos))
        told = [tokeniser.decode(row[: len(rest)].tolist()) for row, rest in zip(made, rests, strict=True)]
        scores.append(float(rouge_l(said, told).f1.mean()))
    return scores


def lacking() -> str:
    """Why nothing that a model says is set beside what it should say; '' where it is."""
    if importlib.util.find_spec("rouge_score") is None:
        return "rouge-score is not installed (pip install 'forethought[text]')"
    return ""


def first_rows(ids: Array, documents: Array) -> Array:
    """The position of each document's first row, by increasing documents; without it, as in a sample, of another."""
    order = np.lexsort((ids != documents, documents))  # a first row has its document's id
    return order[np.unique(documents[order], return_index=True)[1]]


def has_place(batch: Batch, rows: Array) -> Array:
    """[rows] bool: whether a row's tokens that count begin before its last place, behind which a decoder has no more."""
    counts = batch["token_weight"][rows] > 0
    return counts.argmax(axis=1) < counts.shape[1] - 1


def halves(batch: Batch, rows: Array) -> Halves:
    """Rows cut in the middle of the tokens that count; each rest ends where its own row has no place for more.

    Example:
      >>> tokens = {"x": np.array([[9, 1, 2, 3]]), "y": np.array([[1, 2, 3, 4]]), "token_weight": np.ones((1, 4))}
      >>> halves(tokens, np.array([0]))
      Halves(prompts=array([[9, 1]]), lengths=array([2]), rests=[array([2, 3])])
    """
    counts = batch["token_weight"][rows] > 0
    length = counts.shape[1]
    first, end = counts.argmax(axis=1), length - counts[:, ::-1].argmax(axis=1)
    cuts = first + np.maximum((end - first) // 2, 1)
    rests = [
        batch["y"][row, cut - 1 : end_][: max(length - cut, 1)] for row, cut, end_ in zip(rows, cuts, end, strict=True)
    ]
    return Halves(batch["x"][rows, : int(cuts.max())], cuts, rests)
