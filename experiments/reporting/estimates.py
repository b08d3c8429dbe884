"""A value and its interval, `{"value": .., "interval": [low, high]}`: how rows of the judges have it and tables show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.reporting.numbers import NONE, Number
from unlearn.metrics.intervals import Interval

NOTHING: dict[str, Any] = {"value": None, "interval": [None, None]}

# Where quantities end; a t-interval does not know.
SHARE, DISTANCE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)


def valued(interval: Interval) -> dict[str, Any]:
    """The value of an interval."""
    return {"value": interval.mean, "interval": [interval.low, interval.high]}


def at(tree: Any, path: Sequence[str]) -> dict[str, Any]:
    """What lies at a path of names; nothing where it ends early."""
    for name in path:
        tree = (tree or {}).get(name)
    return tree or NOTHING


def cell(
    estimate: dict[str, Any], digits: int = 3, *, scale: float = 1, brief: bool = False, ends: tuple[float, float] = ANY
) -> Number:
    """A value with its interval in brackets, as far as its quantity goes; `brief`: without."""
    value, (low, high) = estimate["value"], estimate["interval"]
    if value is None:
        return Number(math.nan, NONE)
    if brief or low is None:
        return Number(scale * value, f"{scale * value:.{digits}f}")
    low, high = (scale * min(max(end, ends[0]), ends[1]) for end in (low, high))
    return Number(scale * value, f"{scale * value:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]", low, high)
