"""KLoM: per example, how far the margins of unlearned models are from those of oracles (2410.23232)."""

from __future__ import annotations

import numpy as np

from unlearn.metrics import checks

MODELS = 10  # of each kind, at least; 100 are adequate
BINS = 20
CLIP = 100.0
FLOOR = 1e-5


def klom(*, unlearned: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """KL(histogram of unlearned margins || histogram of oracle margins) of each example, in nats.

    Margins (`scores.margin`) are clipped to +-100 and counted in 20 equal bins on the joint range of both kinds, the
    largest in the last bin; the oracles' share of a bin that holds an unlearned margin is at least 1e-5, and shares are
    then made to sum to 1. KL is not symmetric: arguments have names. Bins, floor and finite fleets give exact unlearning
    a value above 0, so read it beside that of held-out oracles in as many models.

    Args:
      unlearned: [models, examples] margins of models that were trained on the forget set and unlearned it.
      oracle: [models, examples] margins of models trained without it, for the same examples.

    Returns:
      [examples] float64, 0 where the histograms agree and at most about log(1 / 1e-5) = 11.5. Its mean and 95th
      percentile on forget, retain and validation data are what is reported.

    Raises:
      ValueError: margins not finite, fewer than 10 models of a kind, other examples, or oracles that are copies.
    """
    unlearned = np.clip(checks.table(unlearned, "unlearned margins", MODELS), -CLIP, CLIP)
    oracle = np.clip(checks.table(oracle, "oracle margins", MODELS), -CLIP, CLIP)
    if unlearned.shape[1] != oracle.shape[1]:
        raise ValueError(f"margins must be of the same examples, got {unlearned.shape[1]} and {oracle.shape[1]}")
    if not np.ptp(oracle, axis=0).any():
        raise ValueError("oracle margins: need at least 2 distinct values of some example; these oracles are copies")
    low = np.minimum(unlearned.min(axis=0), oracle.min(axis=0))
    width = np.maximum(unlearned.max(axis=0), oracle.max(axis=0)) - low
    scale = BINS / np.where(width > 0, width, 1.0)
    p, q = _histogram((unlearned - low) * scale), _histogram((oracle - low) * scale)
    q = np.where(p > 0, np.maximum(q, FLOOR), q)
    q /= q.sum(axis=1, keepdims=True)
    log_ratio = np.log(np.where(p > 0, p, 1.0)) - np.log(np.where(p > 0, q, 1.0))
    return np.sum(p * log_ratio, axis=1)


def _histogram(position: np.ndarray) -> np.ndarray:
    """Shares [examples, bins] of positions [models, examples] in [0, bins]."""
    models, examples = position.shape
    index = np.minimum(position.astype(np.intp), BINS - 1) + BINS * np.arange(examples)
    return np.bincount(index.ravel(), minlength=BINS * examples).reshape(examples, BINS) / models
