"""Documents as the judge sees them: of text to predict, an example is a document, whatever rows it takes.

A document whose rows have n_i tokens and mean token losses l_i has the loss sum n_i l_i / sum n_i. Its margin is that of
p = exp(-loss), log p - log(1 - p); what else is kept of it are means over its tokens, too. Anything else, texts to classify
among them, is seen example by example, as it stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.data import datasets
from experiments.data.datasets import Dataset
from experiments.judge import capacity
from experiments.judge.cases import Case
from experiments.scoring import aims
from experiments.scoring.relearning import bags
from experiments.scoring.statistics import Statistics
from unlearn.base import Batch

LEAST = np.finfo(np.float64).tiny  # of a loss: that of 0 would have the margin infinity


def statistics(case: Case, params: Any, batch: Batch) -> Statistics:
    """Of a batch, [lanes, documents] in the order of `documents`; of anything but text to predict [lanes, examples]."""
    found = capacity.statistics(case, params, batch)
    if not case.problem.dataset.is_text:
        return found
    return by_document(found, batch["token_weight"].sum(axis=1), case.problem.dataset.units_of(batch["id"]))


def costs(case: Case, params: Any) -> dict[str, float]:
    """The mean loss of retained texts to predict that are watched, in nats, by name; of anything else nothing.

    What a language model knows by heart is what it loses; held-out documents it never knew.
    """
    if not case.problem.dataset.is_text:
        return {}
    retained = aims.watched(case.problem.sets.retain, case.shared.request.to_level.retained)
    _, losses = case.scorer.measure(params, retained)
    return {"retained_loss": float(losses.mean())}


def by_document(rows: Statistics, tokens: np.ndarray, units: np.ndarray) -> Statistics:
    """The statistics of documents from those of their rows; a value that is not finite spoils its document alone.

    Args:
      rows: [..., rows].
      tokens: [rows], how many of each count.
      units: [rows], the document of each.

    Returns:
      [..., documents] float32, by increasing document.
    """
    means = Statistics(*(mean_by_document(leaf, tokens, units) for leaf in rows))
    margin = -means.loss - np.log(-np.expm1(-np.maximum(means.loss, LEAST)))
    return Statistics(*(leaf.astype(np.float32) for leaf in means._replace(margin=margin)))


def mean_by_document(values: np.ndarray, tokens: np.ndarray, units: np.ndarray) -> np.ndarray:
    """sum n_i v_i / sum n_i over the rows of each document, [..., rows] -> [..., documents] float64."""
    order = np.argsort(units, kind="stable")
    starts = np.unique(units[order], return_index=True)[1]
    total = lambda rows: np.add.reduceat(rows[..., order].astype(np.float64), starts, axis=-1)  # noqa: E731
    return total(values * tokens) / total(tokens)


def documents(dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    """The documents of rows by their ids, increasing, each once; of anything but text to predict the ids as they stand."""
    return np.unique(dataset.units_of(ids)) if dataset.is_text else ids


def first_rows(dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    """Which of some training examples stand for a whole: the first row of each document, in the order of `documents`."""
    return np.unique(dataset.asked_as[positions], return_index=True)[1]


def rows_of(dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    """Positions of all rows of the documents at these positions among all documents of the training split."""
    return np.flatnonzero(np.isin(dataset.asked_as, np.unique(dataset.asked_as)[positions]))


def some(dataset: Dataset, batch: Batch, most: int, purpose: str) -> Batch:
    """At most so many examples of a batch of training data, documents as wholes; which follows from their ids alone."""
    units = dataset.units_of(batch["id"])
    each = np.unique(units)
    if len(each) <= most:
        return batch
    rows = np.flatnonzero(np.isin(units, each[datasets.lowest(each, most, purpose, 0)]))
    return {name: leaf[rows] for name, leaf in batch.items()}


def compared(dataset: Dataset) -> np.ndarray:
    """What training examples lie near to one another by, [documents, ...]: pixels, or shares of tokens, pads left out.

    Counts of tokens have the length 1, so that documents of few tokens are not alike for that.
    """
    train, tokens = dataset.train, dataset.tokens
    if tokens is None:
        return np.asarray(train.x)
    counts = bags(train.x, tokens)
    order = np.argsort(dataset.asked_as, kind="stable")
    whole = np.add.reduceat(counts[order], first_rows(dataset, order), axis=0)
    return whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1.0)
