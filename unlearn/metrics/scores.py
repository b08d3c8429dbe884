"""Per-example scores of logits: what membership attacks and comparisons of fleets look at, in float64.

All take logits [..., examples, classes] and integer labels [examples] and give [..., examples]. Leading axes are models.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_softmax

from unlearn.metrics.checks import finite


def loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy -log p_y = log(1 + exp(-M)) with M the `margin`: accurate also where p_y rounds to 1."""
    return np.logaddexp(0.0, -margin(logits, labels))


def confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """p_y, the probability of the label."""
    return expit(margin(logits, labels))


def entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-sum_i p_i log p_i. The labels are only checked: every score has one signature."""
    logits, _ = _checked(logits, labels)
    log_p, top = log_softmax(logits, axis=-1), logits.argmax(axis=-1)
    np.put_along_axis(log_p, top[..., None], -np.logaddexp(0.0, -_margin(logits, top))[..., None], axis=-1)  # exact near 0
    return -np.sum(np.exp(log_p) * log_p, axis=-1)


def modified_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i): low only where the model is sure and right.

    From Song and Mittal (2003.10595). Note log(1 - p_i): code that takes log p_i there computes something else. For the
    largest p_i, 1 - p_i is the sum of the others, so nothing cancels and the score is finite for all finite logits.
    """
    logits, labels = _checked(logits, labels)
    p, top, of_label = np.exp(log_softmax(logits, axis=-1)), logits.argmax(axis=-1), _margin(logits, labels)
    others = p.copy()
    np.put_along_axis(others, top[..., None], 0.0, axis=-1)
    log_rest = np.log1p(-others)
    log_rest_of_top = -np.logaddexp(0.0, _margin(logits, top))
    np.put_along_axis(log_rest, top[..., None], log_rest_of_top[..., None], axis=-1)
    terms = -p * log_rest
    np.put_along_axis(terms, labels[..., None], 0.0, axis=-1)
    return expit(-of_label) * np.logaddexp(0.0, -of_label) + terms.sum(axis=-1)


def margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The margin M = z_y - log sum over j != y of exp z_j, which is the logit-scaled confidence log p_y - log(1 - p_y).

    With Z the sum over all classes, log p_y = z_y - log Z and log(1 - p_y) = log sum_{j != y} exp z_j - log Z: log Z
    cancels, so KLoM's margin and LiRA's score are one function, and no probability is formed that could round to 1.
    """
    return _margin(*_checked(logits, labels))


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits as float64 and labels [..., examples], one for each score.

    Raises:
      ValueError: logits not finite, fewer than 2 classes, labels that are no integers in [0, classes) or do not match.
    """
    logits, labels = finite(logits, "logits"), np.asarray(labels)
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise ValueError(f"logits: need [..., examples, classes] with at least 2 classes, got shape {logits.shape}")
    if labels.shape != logits.shape[-2:-1]:
        raise ValueError(f"labels: need one for each of {logits.shape[-2]} examples, got shape {labels.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[-1]:
        raise ValueError(f"labels must be integers from 0 to {logits.shape[-1] - 1}")
    return logits, np.broadcast_to(labels.astype(np.intp), logits.shape[:-1])


def _margin(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    chosen, others = classes[..., None], logits.copy()
    np.put_along_axis(others, chosen, -np.inf, axis=-1)
    top = others.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(others - top).sum(axis=-1)) + top[..., 0]
    return np.take_along_axis(logits, chosen, axis=-1)[..., 0] - log_sum
