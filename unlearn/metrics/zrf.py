"""ZRF: how much a model's answers on the forget set resemble those of a model that knows nothing (2205.08096).

The oracle, too, generalises to what it never saw, so a ZRF is good if it is the oracle's, not if it is 1.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, xlogy

from unlearn.metrics import checks


def js_divergence(logits: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of kept logits, (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, in bits.

    Summed over classes for each example: between 0 and 1 however many classes there are. (A mean over classes is not, and
    shrinks as they grow in number.)

    Args:
      logits, teacher: [..., examples, classes]; leading axes (models) broadcast.

    Returns:
      [..., examples] float64; symmetric.

    Raises:
      ValueError: logits not finite, of fewer than 2 classes, or of different examples or classes.
    """
    logits, teacher = checks.finite(logits, "logits"), checks.finite(teacher, "teacher's logits")
    if min(logits.ndim, teacher.ndim) < 2 or logits.shape[-2:] != teacher.shape[-2:] or logits.shape[-1] < 2:
        raise ValueError(f"need logits [..., examples, at least 2 classes] alike, got {logits.shape} and {teacher.shape}")
    p, q = np.exp(log_softmax(logits, axis=-1)), np.exp(log_softmax(teacher, axis=-1))
    middle = (p + q) / 2
    nats = (xlogy(p, p) + xlogy(q, q)) / 2 - xlogy(middle, middle)
    return np.clip(nats.sum(axis=-1) / np.log(2), 0.0, 1.0)


def zrf(divergences: np.ndarray) -> np.ndarray:
    """1 - the mean over examples of JS(model, randomly initialised teacher): 1 where the model says what the teacher says.

    Args:
      divergences: [..., examples] of models from a teacher on the forget set: see `js_divergence`, and
        `unlearn.losses.js_divergence` on the device.

    Returns:
      [...] float64 in [0, 1], one per model.

    Raises:
      ValueError: no examples, or divergences that are not finite.
    """
    return 1 - checks.finite(divergences, "divergences").mean(axis=-1)
