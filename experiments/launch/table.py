"""One table of all points of a sweep: means with 95% t-intervals over seeds, in a terminal and as CSV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.core import files
from experiments.reporting.document import Table
from experiments.reporting.numbers import Cell, Number
from unlearn.metrics.intervals import t_interval

SEED = "seed"  # the axis that intervals are over
IDENTITY = ("training", "variant", "unlearner", "setting", "dataset")  # of a row
SHOWN = (  # what a terminal shows of the numbers, where there are such
    "before.test_accuracy", "after.test_retain_accuracy", "after.forget_accuracy", "after.mia_auc", "steps", "extra.tow",
)  # fmt: skip
PARTS = (".low", ".high", ".n", ".reason")  # of an Estimate, beside its value


class Finished(NamedTuple):
    """A point that has finished: its values by key, and its rows as flat dicts (`experiments.loading.Run.table`)."""

    values: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]


Group = dict[str, dict[int, float]]  # column -> seed -> number


def make(points: Sequence[Finished]) -> Table:
    """All numbers of all points, seeds taken together; see `shown` for fewer columns."""
    groups = _groups(points)
    keys = [key for key in points[0].values if key != SEED]
    columns = list(dict.fromkeys(name for group in groups.values() for name in group))
    named = [*keys, *IDENTITY]
    rows: list[list[Cell]] = [
        [*key[: len(named)], *(_number(list(group.get(name, {}).values())) for name in columns)]
        for key, group in groups.items()
    ]
    return Table([*named, *columns], rows, left=len(named), name="sweep")


def shown(table: Table) -> Table:
    """The columns that a terminal has room for: names that differ between rows, and the main numbers."""
    names = [i for i in range(table.left) if i == 0 or len({row[i] for row in table.rows}) > 1]
    numbers = [table.headers.index(name) for name in SHOWN if name in table.headers]
    numbers = numbers or list(range(table.left, len(table.headers)))[: len(SHOWN)]
    chosen = names + numbers
    headers = ["\n".join(reversed(table.headers[i].split(".", 1))) for i in numbers]
    rows = [[row[i] for i in chosen] for row in table.rows]
    return Table([*(table.headers[i] for i in names), *headers], rows, left=len(names), stacked=True)


def _groups(points: Sequence[Finished]) -> dict[tuple[str, ...], Group]:
    """Rows that differ in nothing but their seed; several rows of one seed and one name are told apart by their order."""
    groups: dict[tuple[str, ...], Group] = {}
    for point in points:
        at = [value for key, value in point.values.items() if key != SEED]
        met: Counter[tuple[Any, ...]] = Counter()
        for row in point.rows:
            identity = [str(row[name]) for name in IDENTITY]
            met[*identity, row[SEED]] += 1
            group = groups.setdefault((*at, *identity, str(met[*identity, row[SEED]])), {})
            for name, value in row.items():
                if files.is_number(value) and name != SEED and not _is_part(name, row):
                    group.setdefault(name, {})[row[SEED]] = float(value)
    return groups


def _is_part(name: str, row: Mapping[str, Any]) -> bool:
    """Whether a column is an end or a count of an Estimate."""
    return any(name.endswith(part) and name.removesuffix(part) + ".value" in row for part in PARTS)


def _number(values: Sequence[float]) -> Number:
    mean, low, high, count = t_interval(np.array(values))
    if not count:
        return Number(math.nan, "–")
    around = "" if math.isnan(low) else f"± {(high - low) / 2:.2g}"
    return Number(mean, f"{mean:.4g}", around, low, high, count=count)
