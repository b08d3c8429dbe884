"""Erasure: pure functions that take clients out of a federated model, each with what it needs declared beside it.

`METHODS` has them by name, `needs_of` tells who must help, what the server must have kept, and when a method is exact.
Methods of which no public text or code gives all are "after" their paper, and say what is ours.

Xu et al. (2406.12516) fine-tune the channels that matter most for a class. How these are found is not public, so it has no
row here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from federated.erase.adapters import Adapter, attach, fused, layer_changes, make_adapter
from federated.erase.calibrating import calibrated, crab, crab_keep, federaser
from federated.erase.contract import AskClient, Erased, Needs, ServerStep, ask, asking, averaging, needs_of, remaining
from federated.erase.copies import layer_sigma, mpu, zero_sum_noise
from federated.erase.estimating import curvature_product, fedrecover
from federated.erase.requests import REQUESTS, check_request, class_shares, removed_shares
from federated.erase.ridge import Statistics, add, delete, head, ridge, statistics
from federated.erase.rollback import first_affected, retrain, rollback
from federated.erase.rolling import correction, fast_fedul, medu, rollback_variance, round_change
from federated.erase.sums import Sums, init_sums, running_sums, stored_bytes, summed, sums_without, update_sums
from federated.erase.walking import Walked, noise_scale, rr_du

METHODS: dict[str, Callable[..., Any]] = {
    "retrain": retrain,
    "rollback": rollback,
    "running_sums": running_sums,
    "fast_fedul": fast_fedul,
    "medu": medu,
    "federaser": federaser,
    "fedrecover": fedrecover,
    "crab": crab,
    "ridge": ridge,
    "fused": fused,
    "rr_du": rr_du,
    "mpu": mpu,
}


def find_method(name: str) -> Callable[..., Any]:
    """The method by its name.

    Raises:
      ValueError: no such method; one line with the nearest names, or with all of them.

    Example:
      >>> needs_of(find_method("medu")).helpers
      'the server alone'
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(METHODS)}"
        raise ValueError(f"method {name!r} is unknown: {hint}")
    return METHODS[name]


__all__ = [
    "METHODS", "REQUESTS", "Adapter", "AskClient", "Erased", "Needs", "ServerStep", "Statistics", "Sums", "Walked", "add",
    "ask", "asking", "attach", "averaging", "calibrated", "check_request", "class_shares", "correction", "crab",
    "crab_keep", "curvature_product", "delete", "fast_fedul", "federaser", "fedrecover", "find_method", "first_affected",
    "fused", "head", "init_sums", "layer_changes", "layer_sigma", "make_adapter", "medu", "mpu", "needs_of",
    "noise_scale", "remaining", "removed_shares", "retrain", "ridge", "rollback", "rollback_variance", "round_change",
    "rr_du", "running_sums", "statistics", "stored_bytes", "summed", "sums_without", "update_sums", "zero_sum_noise",
]  # fmt: skip
