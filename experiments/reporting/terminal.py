"""Tables and notes for a terminal, as wide as it is."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Sequence

from experiments.reporting.document import Table

LEAST, GAP = 12, 2  # columns that the first name gets at least; columns between two


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return max(50, shutil.get_terminal_size((80, 24)).columns)


def wrapped(text: str, columns: int) -> str:
    """A note in lines of at most so many columns."""
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)


def to_text(table: Table, columns: int) -> str:
    """Aligned columns; those that do not fit stand below, beside the names again. Headers hang, cells stand.

    A first name that is too long loses its middle.
    """
    lines, height = _lines(table)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    names = list(range(min(table.left, len(widths))))
    rest = max((w + GAP for w in widths[len(names) :]), default=0) + sum(widths[i] + GAP for i in names[1:])
    widths[0] = min(widths[0], max(LEAST, columns - rest))
    for line in lines:
        line[0] = _shortened(line[0], widths[0])
    groups = _groups(widths, len(names), columns)
    return "\n\n".join(_block(lines, height, [*names, *group], widths, table.left) for group in groups)


def _lines(table: Table) -> tuple[list[list[str]], int]:
    """All lines of all cells, headers first, and how many of them are headers."""
    headers = [header.split("\n") for header in table.headers]
    height = max(map(len, headers))
    lines = [list(line) for line in zip(*([""] * (height - len(h)) + h for h in headers), strict=True)]
    for row in table.rows:
        cells = [table.text(cell).split("\n") for cell in row]
        lines += map(list, itertools.zip_longest(*cells, fillvalue=""))
    return lines, height


def _groups(widths: Sequence[int], names: int, columns: int) -> list[list[int]]:
    """The columns beside the names, as many together as fit."""
    room = columns - sum(widths[:names]) - GAP * (names - 1)
    groups: list[list[int]] = [[]]
    left = room
    for i in range(names, len(widths)):
        if groups[-1] and widths[i] + GAP > left:
            groups.append([])
            left = room
        groups[-1].append(i)
        left -= widths[i] + GAP
    return groups


def _block(lines: Sequence[Sequence[str]], height: int, chosen: Sequence[int], widths: Sequence[int], left: int) -> str:
    aligned = [
        (" " * GAP).join(line[i].ljust(widths[i]) if i < left else line[i].rjust(widths[i]) for i in chosen)
        for line in lines
    ]
    rule = "-" * max(map(len, aligned))
    return "\n".join(line.rstrip() for line in [*aligned[:height], rule, *aligned[height:]])


def _shortened(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room // 2]}…{name[1 + room // 2 - room :]}"
