"""A number as pages show it: a value, its interval, and the text of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NONE = "–"  # where there is no value


@dataclass(frozen=True)
class Number:
    """A cell of a table that is a number.

    value, low, high: in the unit that is shown; NaN where there is none.
    text: the value as shown.  around: its interval, p-value and count as shown, "" if none.
    p: of a paired test.  count: how many of the rows had a finite value, if not all had.
    """

    value: float
    text: str
    around: str = ""
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    count: int | None = None

    def __str__(self) -> str:
        return f"{self.text} {self.around}".rstrip()


Cell = str | Number


def bare(value: float, text: str) -> Number:
    """A number without an interval; `text` is how it is shown."""
    return Number(value, text) if math.isfinite(value) else Number(math.nan, NONE)


def bracketed(value: float, low: float, high: float, digits: int = 1) -> Number:
    """A value with its interval in brackets, if it has one."""
    if not math.isfinite(value):
        return Number(math.nan, NONE)
    text = minus(f"{value:.{digits}f}")
    if not (math.isfinite(low) and math.isfinite(high)):
        return Number(value, text)
    around = f"[{minus(f'{low:.{digits}f}')}, {minus(f'{high:.{digits}f}')}]"
    return Number(value, text, around, low, high)


def led(trial: Mapping[str, Any], models: int) -> str:
    """How far a trial led on the way to its end, in whole % rounded down; "" if all models got there or nobody knows."""
    if "way" not in trial or trial["reached"] == models:  # older versions kept no way
        return ""
    return f" ({int(100 * trial['way'])}%)"


def minus(text: str) -> str:
    """The text of a number with a true minus sign."""
    return f"−{text[1:]}" if text.startswith("-") else text
