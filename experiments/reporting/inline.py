"""What a notebook shows of itself: rows as a table, and a figure of a report. Neither needs pandas or IPython."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

from experiments.reporting.names import INK
from experiments.reporting.numbers import NONE

# matplotlib's settings for pictures in a notebook, in the look of reports.
STYLE: dict[str, Any] = {
    "figure.figsize": (9.0, 3.4), "figure.dpi": 100, "figure.constrained_layout.use": True, "savefig.facecolor": "white",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.grid": True, "axes.axisbelow": True,
    "axes.titlesize": 11, "axes.titlelocation": "left", "grid.color": "#e4e8ec", "legend.frameon": False,
}  # fmt: skip


class Table(list[dict[str, Any]]):
    """Rows with the same columns; a list that a notebook shows as a table. `pandas.DataFrame(table)` takes it as it is."""

    def _repr_html_(self) -> str:
        headers = "".join(f"<th>{html.escape(name)}</th>" for name in (self[0] if self else ()))
        lines = ["".join(f"<td>{html.escape(cell(value))}</td>" for value in row.values()) for row in self]
        return f"<table><tr>{headers}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


class Figure(NamedTuple):
    """An SVG, on white: a notebook's page may be dark."""

    svg: str

    def _repr_html_(self) -> str:
        return f'<div style="background: white; max-width: 640px">{self.svg[self.svg.index("<svg") :]}</div>'


def cell(value: Any) -> str:
    """A value as a table shows it: numbers by four digits.

    Example:
      >>> cell(0.123456), cell(12), cell(None)
      ('0.1235', '12', '–')
    """
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)
