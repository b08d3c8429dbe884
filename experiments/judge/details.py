"""Tables of a judgement's page that not every judgement has: strong relearning, and what published code computes.

Each gives no block where there is nothing to show: a version that had none made the judgement, or none was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.core.results import Row
from experiments.judge import figures
from experiments.judge.metrics import KINDS
from experiments.reporting.document import Block, Table, Text
from experiments.reporting.estimates import at, cell
from experiments.reporting.numbers import Cell

STRONGER = (
    "The strong relearning attack has the rate and steps at which models of a row lie furthest from oracles, in standard "
    "deviations of the oracles' accuracy. They were chosen for every row, on models that relearning reports nothing of. "
    "The table is of others, beside held-out oracles under the same attack. Up to the strength 'unlike from' models look "
    "like oracles: it is the weakest, by rate x steps, at which their mean accuracy lies more than two such deviations "
    "away. What the held-out oracle's row has there is chance. Area above: accuracy above the oracles', mean over all "
    "steps, in points."
)


def strong(rows: Sequence[Row], labels: Sequence[str], ours: Sequence[int], prefix: str) -> list[Block]:
    """A table for each attack set, at the strength that was chosen.

    Args:
      labels: the names of the rows.  ours: which of them are ours.
      prefix: of the tables' files.
    """
    if not all(row.extra.get("relearn_strong") for row in rows):
        return []
    blocks: list[Block] = [Text(STRONGER)]
    for attack in figures.STRONG:
        lines: list[list[Cell]] = []
        for label, row in zip(labels, rows, strict=True):
            told = row.extra["relearn_strong"][attack]
            there, theirs = (cell(told[name], 1, scale=100, brief=True) for name in ("accuracy", "oracle"))
            areas = [cell(area, 1, scale=100, brief=True) for area in told["areas"].values()]
            apart = cell(told["estimate"], 1)
            lines.append([label, _strength(told), there, theirs, apart, _strength(told["unlike"]), *areas])
        rates = [f"area above,\n{rate}" for rate in rows[0].extra["relearn_strong"][attack]["areas"]]
        headers = ["rate x steps", "accuracy", "oracles'", "deviations\napart", "unlike\nfrom", *rates]
        table = Table([f"strong relearning, {attack}", *headers], lines, name=f"{prefix}-strong-{attack}", ours=ours)
        blocks.append(table)
    return blocks


def _strength(told: Mapping[str, Any] | None) -> str:
    return f"{told['rate']:g} x {told['step']}" if told else "never"


PUBLISHED = {
    **{f"KLoM\n{kind}": (("klom", kind, "published"), 2) for kind in KINDS},
    **{f"its P95\n{kind}": (("klom", kind, "published", "p95"), 2) for kind in KINDS},
    "epsilon": (("epsilon", "published"), 2),
    "F": (("epsilon", "published", "forgetting_quality"), 3),
    "F, ours": (("epsilon", "forgetting_quality"), 3),
}
AS_PUBLISHED = (
    "KLoM and epsilon as published code computes them, to compare with the tables of others: KLoM loses the largest margin "
    "of every example, and epsilon's attacks lie on a grid (see unlearn.metrics). F is the forgetting quality of the "
    "NeurIPS 2023 competition, 1 at best. They have no intervals there."
)


def published(rows: Sequence[Row], labels: Sequence[str], ours: Sequence[int], prefix: str) -> list[Block]:
    """KLoM and epsilon as published code has them; arguments as for `strong`."""
    if not any(at(row.extra, path).value is not None for row in rows for path, _ in list(PUBLISHED.values())[:-1]):
        return []
    picked = PUBLISHED.values()
    lines: list[list[Cell]] = [
        [label, *(cell(at(row.extra, path), digits, brief=True) for path, digits in picked)]
        for label, row in zip(labels, rows, strict=True)
    ]
    return [Text(AS_PUBLISHED), Table(["as published", *PUBLISHED], lines, name=f"{prefix}-published", ours=ours)]
