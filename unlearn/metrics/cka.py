"""Linear CKA: do two models represent the same examples alike? A weak witness, to be read beside the attacks.

It moves with outliers and with single directions of large variance, and it can be changed at will without changing what a
model does (2210.16156); two retrained models do not reach 1. So compare CKA(unlearned, oracle) with CKA(oracle, another
oracle), and conclude nothing from one value.
"""

from __future__ import annotations

import numpy as np

from unlearn.metrics import checks

EXAMPLES = 4  # the unbiased estimate divides by n (n - 3)


def linear_cka(a: np.ndarray, b: np.ndarray) -> float:
    """HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b)) of linear kernels (Kornblith et al., 1905.00414).

    HSIC is estimated without bias (Song et al., JMLR 2012): with the plain estimate, independent representations
    of fewer examples than features come out near 1. So values a little below 0 are noise around 0.

    Args:
      a, b: [examples, features], of the same examples in the same order; numbers of features may differ.

    Returns:
      1 for representations that agree up to rotation and scale; 0, up to noise, for independent ones.

    Raises:
      ValueError: not finite, different or fewer than 4 examples, or features that do not vary enough to say.
    """
    a, b = checks.finite(a, "representations"), checks.finite(b, "representations")
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < EXAMPLES:
        raise ValueError(f"need two arrays [at least {EXAMPLES} examples, features] alike, got {a.shape} and {b.shape}")
    kernels = [_kernel(features) for features in (a, b)]
    own = [_hsic(kernel, kernel) for kernel in kernels]
    if min(own) <= 0:
        raise ValueError(f"the representations of {len(a)} examples do not vary enough for CKA; use more examples")
    return _hsic(*kernels) / float(np.sqrt(own[0] * own[1]))


def _kernel(features: np.ndarray) -> np.ndarray:
    """Inner products of centred features without the diagonal, scaled to a largest entry of 1."""
    centred = features - features.mean(axis=0)
    kernel = centred @ centred.T
    np.fill_diagonal(kernel, 0.0)
    return kernel / (np.abs(kernel).max() or 1.0)


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased HSIC of two kernels [n, n] with zero diagonals, times n (n - 3)."""
    n = len(k)
    across, rows_k, rows_m = np.sum(k * m), k.sum(axis=0), m.sum(axis=0)
    return float(across + rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2)) - 2 * (rows_k @ rows_m) / (n - 2))
