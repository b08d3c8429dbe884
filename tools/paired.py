"""Differences between ways over the seeds of several runs, for docs/numbers: more seeds may come after a run has ended.

    python -m tools.paired speeches_five readiness WORKDIR WORKDIR --column 'relearned=extra.relearning.part.20'

It writes docs/numbers/speeches_five/differences.csv: a row for each other way that has the same seeds, and of each column
the mean difference with its 95% t-interval. Each way has one request in these runs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.core.errors import UserError
from experiments.core.results import Row
from experiments.loading import load
from tools.tables import NUMBERS
from unlearn.metrics.intervals import paired

Seeds = dict[int, Row]


def value(row: Row, path: str) -> float:
    """A number of a row, by names and places, as in extra.relearning.part.20.

    Raises:
      ValueError: the row has none there.
    """
    node: Any = row
    try:
        for name in path.split("."):
            node = node[name] if isinstance(node, Mapping) else node[int(name)] if name.isdigit() else getattr(node, name)
        return float(node)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError):
        raise ValueError(f"{path} is no number of {row.training}, seed {row.seed}: name one of its results.json") from None


def by_way(rows: Sequence[Row]) -> dict[str, Seeds]:
    """Way of training -> seed -> row.

    Raises:
      ValueError: a way has two rows of one seed.
    """
    ways: dict[str, Seeds] = {}
    for row in rows:
        seeds = ways.setdefault(row.training, {})
        if row.seed in seeds:
            raise ValueError(f"{row.training} has two rows of seed {row.seed}: give runs of other seeds, with one request")
        seeds[row.seed] = row
    return ways


def differences(rows: Sequence[Row], ours: str, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """`ours` minus each other way that has all of its seeds.

    Raises:
      ValueError: no such way, or a number that is not there.
    """
    ways = by_way(rows)
    if ours not in ways:
        raise ValueError(f"there is no way {ours!r}: choose one of {', '.join(ways)}")
    seeds = sorted(ways[ours])
    found = []
    for name, theirs in ways.items():
        if name == ours or not set(seeds) <= set(theirs):
            continue
        line: dict[str, Any] = {"minus": name, "seeds": len(seeds)}
        for column, path in columns.items():
            mine, other = (np.array([value(of[seed], path) for seed in seeds]) for of in (ways[ours], theirs))
            mean, low, high, _ = paired(mine, other).difference
            line |= {column: mean, f"{column} low": low, f"{column} high": high}
        found.append(line)
    return found


def _column(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} names no number: give NAME=PATH")
    return name, path


def parser() -> argparse.ArgumentParser:
    """The command line's."""
    made = argparse.ArgumentParser(prog="python -m tools.paired", description=__doc__.splitlines()[0])
    made.add_argument("name", help="of a folder of docs/numbers")
    made.add_argument("ours", help="the way that the others are taken from")
    made.add_argument("workdirs", nargs="+", type=Path, help="of finished runs")
    made.add_argument(
        "--column", type=_column, action="append", required=True, metavar="NAME=PATH", help="a number of a row"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit status."""
    asked = parser().parse_args(arguments)
    try:
        rows = [row for workdir in asked.workdirs for row in load(workdir).rows]
        lines = differences(rows, asked.ours, dict(asked.column))
        file = NUMBERS / asked.name / "differences.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(lines[0]) if lines else ["minus"])
            writer.writeheader()
            writer.writerows(lines)
    except (UserError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{file}: {asked.ours} minus {', '.join(line['minus'] for line in lines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
