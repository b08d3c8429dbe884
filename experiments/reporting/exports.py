"""Tables as CSV and LaTeX files, figures as SVG and PDF files, beside the page that shows them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.core.errors import WorkdirError
from experiments.core.files import write_bytes, write_text
from experiments.reporting.document import Block, Figures, Headline, Panel, Table
from experiments.reporting.numbers import NONE, Cell, Number

PARTS = {"low": "low", "high": "high", "p": "p", "count": "n"}  # of a number -> how its column is called


def write(folder: Path, blocks: Sequence[Block]) -> list[str]:
    """Write `tables/NAME.csv|.tex` and `figures/NAME.svg|.pdf` of all blocks that have a name; these names.

    Raises:
      ValueError: two tables, or two figures, of one name.
      WorkdirError: a folder cannot be made, as where a file has its name.
    """
    tables = [block for block in blocks if isinstance(block, Table) and block.name]
    panels = list(panels_of(blocks))
    for kind, names in (("tables", [table.name for table in tables]), ("figures", [panel.name for panel in panels])):
        if len(names) != len(set(names)):
            raise ValueError(f"two {kind} have one name: {sorted(name for name in names if names.count(name) > 1)[0]}")
        try:
            (folder / kind).mkdir(exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"cannot make the folder {folder / kind} ({error.strerror}): move what is there") from error
    for table in tables:
        write_text(folder / "tables" / f"{table.name}.csv", to_csv(table))
        write_text(folder / "tables" / f"{table.name}.tex", to_latex(table))
    for panel in panels:
        write_text(folder / "figures" / f"{panel.name}.svg", panel.svg)
        write_bytes(folder / "figures" / f"{panel.name}.pdf", panel.pdf)
    return [table.name for table in tables] + [panel.name for panel in panels]


def panels_of(blocks: Iterable[Block]) -> Iterable[Panel]:
    """All figures of a page."""
    for block in blocks:
        if isinstance(block, Headline):
            yield block.panel
        elif isinstance(block, Figures):
            yield from block.panels


def to_csv(table: Table) -> str:
    """Comma-separated values: numbers in full, in the unit that the page shows, and bounds in columns of their own."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.headers)
    parts = [_parts(column) for column in columns]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [" ".join(header.split()) for header in table.headers]
    writer.writerow([f"{name} {PARTS[part]}".strip() if part else name for name, all_ in zip(names, parts, strict=True)
                     for part in ("", *all_)])  # fmt: skip
    for row in table.rows:
        writer.writerow([field for cell, all_ in zip(row, parts, strict=True) for field in _fields(cell, all_)])
    return out.getvalue()


def _parts(column: Sequence[Cell]) -> list[str]:
    """The parts that some number of a column has."""
    numbers = [cell for cell in column if isinstance(cell, Number)]
    return [part for part in PARTS if any(_exact(getattr(number, part)) for number in numbers)]


def _fields(cell: Cell, parts: Sequence[str]) -> list[str]:
    if isinstance(cell, Number):
        return [_exact(cell.value), *(_exact(getattr(cell, part)) for part in parts)]
    return ["" if cell == NONE else " ".join(cell.split()), *([""] * len(parts))]


def _exact(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value)).removesuffix(".0")


# --- LaTeX ------------------------------------------------------------------------------------------------------------

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "†": r"\dag{}", "…": r"\ldots{}",
}  # fmt: skip


def latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(text.split()))


def to_latex(table: Table) -> str:
    """A tabular of the booktabs package, ours in bold."""
    shape = "".join("l" if i < table.left else "r" for i in range(len(table.headers)))
    lines = [f"\\begin{{tabular}}{{{shape}}}", r"\toprule", _line(map(latex, table.headers)), r"\midrule"]
    for i, row in enumerate(table.rows):
        cells = [latex(str(cell)) for cell in row]
        lines.append(_line(f"\\textbf{{{cell}}}" if cell else "" for cell in cells) if i in table.ours else _line(cells))
    return "\n".join(["% needs \\usepackage{booktabs}", *lines, r"\bottomrule", r"\end{tabular}", ""])


def _line(cells: Iterable[str]) -> str:
    line = " & ".join(cells)
    return re.sub(r"^\[", "{[}", line) + r" \\"
