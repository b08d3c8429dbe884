"""CSV files of a user's own, as lines of cells: what spreadsheets write is read, what is none is refused in one line."""

from __future__ import annotations

import codecs
import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

from experiments.core.archives import is_endless
from experiments.core.errors import line

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unusable(ValueError):
    """Why a file cannot be read, without its name."""


class Line(NamedTuple):
    """A line that is not blank.

    number: of it in the file, from 1.  cells: without the white space around them.
    """

    number: int
    cells: list[str]


def read(path: Path) -> list[Line]:
    """The lines of a file in UTF-8 with commas; a byte order mark, quotes and any ends of lines are understood.

    Raises:
      Unusable: a file that cannot be read, or is no such text.
    """
    try:
        if is_endless(path):
            raise Unusable("it is no file")
        content = path.read_bytes()
        if content.startswith(UTF16) or b"\0" in content:
            raise Unusable("it is in UTF-16, or no text: save it as UTF-8")
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        lines = [Line(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(map(str.strip, row))]
    except OSError as error:
        raise Unusable(error.strerror or line(error, 100)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unusable(line(error, 100)) from error
    return lines


def number(text: str) -> float:
    """The number of a cell, NaN for what is none: Python alone reads 1_2 as 12."""
    try:
        return float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan
