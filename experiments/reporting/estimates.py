"""Estimates in tables: `experiments.core.results.Estimate` at a path of names, and as the text of a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.core.results import Estimate
from experiments.reporting.numbers import Number, bracketed

NOTHING = Estimate()

# Where quantities end; a t-interval does not know.
SHARE, DISTANCE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)


def at(tree: Any, path: Sequence[str] = ()) -> Estimate:
    """What lies at a path of names, of a metric with more than its value that value; nothing where the path ends early."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    if isinstance(tree, Mapping):
        tree = tree.get("estimate")
    return tree if isinstance(tree, Estimate) else NOTHING


def more(metric: Any, name: str) -> Any:
    """What a metric has beside its value, by name; None where it has nothing, not being computed, say."""
    return metric.get(name) if isinstance(metric, Mapping) else None


def width(estimate: Estimate) -> float:
    """Of the interval; NaN where there is none."""
    return math.nan if estimate.low is None or estimate.high is None else estimate.high - estimate.low


def cell(
    estimate: Estimate, digits: int = 3, *, scale: float = 1, brief: bool = False, ends: tuple[float, float] = ANY
) -> Number:
    """A value with its interval in brackets, as far as its quantity goes; `brief`: without."""
    value = math.nan if estimate.value is None else scale * estimate.value
    if brief or estimate.low is None or estimate.high is None:
        return bracketed(value, math.nan, math.nan, digits)
    low, high = (scale * min(max(end, ends[0]), ends[1]) for end in (estimate.low, estimate.high))
    return bracketed(value, low, high, digits)
