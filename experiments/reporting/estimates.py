"""A value and its interval, `{"value": .., "interval": [low, high]}`: how rows of the judges have it and tables show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.comparison.methods import NONE
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
    found: dict[str, Any], digits: int = 3, *, scale: float = 1, brief: bool = False, ends: tuple[float, float] = ANY
) -> str:
    """A value with its interval in brackets, as far as its quantity goes; `brief`: without."""
    value, (low, high) = found["value"], found["interval"]
    if value is None:
        return NONE
    if brief or low is None:
        return f"{scale * value:.{digits}f}"
    low, high = max(low, ends[0]), min(high, ends[1])
    return f"{scale * value:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
