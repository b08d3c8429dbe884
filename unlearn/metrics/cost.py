"""Cost of a way to unlearn over its life: what preparing for requests costs, and after how many it has paid."""

from __future__ import annotations

import numpy as np

from unlearn.metrics import checks


def amortised(preparation: float, per_request: float, requests: float) -> float:
    """Cost per request, preparation / requests + per_request, in whatever unit both come in: seconds, FLOPs, bytes.

    Args:
      preparation: what training cost beyond ordinary training.
      requests: how many there are to be.

    Raises:
      ValueError: a cost negative or not finite, or no request.
    """
    _check(preparation, per_request)
    if not requests > 0:
        raise ValueError(f"need more than 0 requests, got {requests:g}")
    return preparation / requests + per_request


def break_even(preparation: float, per_request: float, other_per_request: float) -> float:
    """The number of requests from which on a prepared way costs no more than one without preparation.

    Args:
      preparation, per_request: as for `amortised`.
      other_per_request: of the way without, such as retraining.

    Returns:
      preparation / (other - own): 0 without preparation, infinity if a request is not cheaper and so never pays.

    Raises:
      ValueError: a cost negative or not finite.
    """
    _check(preparation, per_request, other_per_request)
    saved = other_per_request - per_request
    if preparation == 0 and saved >= 0:
        return 0.0
    return preparation / saved if saved > 0 else float("inf")


def _check(*costs: float) -> None:
    if checks.finite(np.array(costs), "costs").min() < 0:
        raise ValueError(f"costs must be at least 0, got {min(costs):g}")
