"""Tables of the docs, written from what runs wrote: `python -m tools.tables [--check] [PAGE ...]`.

A page says which numbers stand in a table, and what a run's own CSV files call them; the table below is written anew:

    <!-- table pydoc: Oracle; Vanilla; Readiness
    way = results: method
    retained = results: retained after .2f ±
    -->
    | way | retained |
    ...
    <!-- end of table -->

`docs/numbers/RUN` holds these files, taken by `python -m tools.tables --take WORKDIR RUN`. Behind the name of a column
stands the number's format; then ± adds half of its interval, and [] the interval. Behind the run's name stand its rows, set
apart by semicolons, all if none. Standard library only.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ROOT / "docs" / "numbers"
TABLE = re.compile(r"^<!-- table (\S+?)(?::[ ]*(.*?))?\n(.*?)^-->\n(.*?)^<!-- end of table -->$", re.MULTILINE | re.DOTALL)
COLUMN = re.compile(r"^(.+?) = (\S+?): (.+?)(?: ([+,]?\.\d[fg]|\.0%))?(?: (±|\[\]))?$")

Rows = dict[str, dict[str, str]]  # what the first column says -> the row


class Column(NamedTuple):
    """A column of a page's table: its header, and which column of which file it is; spec: of a number, "" for words."""

    header: str
    file: str
    name: str
    spec: str
    spread: str


def refreshed(page: str, numbers: Path) -> str:
    """The page with every table as the files have it.

    Raises:
      ValueError: what a table asks for is not there; one line.
    """
    return TABLE.sub(lambda found: _table(found, numbers), page)


def _table(found: re.Match[str], numbers: Path) -> str:
    run, wanted, spec, _ = found.groups()
    columns = [_column(line, run) for line in spec.splitlines() if line.strip()]
    files = {column.file: read(numbers / run / f"{column.file}.csv") for column in columns}
    first = files[columns[0].file]
    names = [name.strip() for name in wanted.split(";")] if wanted else list(first)
    lines = [[column.header for column in columns], [":--" if not column.spec else "--:" for column in columns]]
    lines += [[cell(column, files[column.file], name) for column in columns] for name in names]
    head = found.group(0)[: found.start(4) - found.start(0)]
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "<!-- end of table -->"


def _column(line: str, run: str) -> Column:
    found = COLUMN.match(line.strip())
    if not found:
        raise ValueError(
            f"a table of {run} has the line {line!r}: give HEADER = FILE: COLUMN, then a format as .2f, then ± or []"
        )
    header, file, name, spec, spread = found.groups()
    return Column(header, file, name, spec or "", spread or "")


def read(file: Path) -> Rows:
    """The rows of a CSV file by their first column; where some share it, by the first two, as in "Vanilla / Level"."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: take it from a run's folder by --take")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    keys = list(rows[0])
    single = len({row[keys[0]] for row in rows}) == len(rows)
    return {row[keys[0]] if single or not row[keys[1]] else f"{row[keys[0]]} / {row[keys[1]]}": row for row in rows}


def cell(column: Column, rows: Rows, name: str) -> str:
    """What stands in a row under a column.

    Example:
      >>> rows = {"Oracle": {"loss": "1.234", "loss low": "1.134", "loss high": "1.334", "aim": "5/5"}}
      >>> [cell(Column("", "", "loss", ".2f", spread), rows, "Oracle") for spread in ("", "±", "[]")]
      ['1.23', '1.23 ± .10', '1.23 [1.13, 1.33]']
      >>> cell(Column("", "", "aim", "", ""), rows, "Oracle")
      '5/5'
    """
    row = rows.get(name) or rows.get(name.split(" / ")[0])  # what comes before a request has no algorithm
    if row is None:
        raise ValueError(f"{column.file}.csv has no row {name!r}: it has {', '.join(rows)}")
    if column.name not in row:
        raise ValueError(f"{column.file}.csv has no column {column.name!r}: it has {', '.join(row)}")
    text = row[column.name]
    if not column.spec or not text:
        return text or "–"
    value = _written(float(text), column.spec)
    low, high = row.get(f"{column.name} low"), row.get(f"{column.name} high")
    if not column.spread or not low or not high:
        return value
    if column.spread == "±":
        return f"{value} ± {_written((float(high) - float(low)) / 2, column.spec.lstrip('+'))}"
    return f"{value} [{_written(float(low), column.spec)}, {_written(float(high), column.spec)}]"


def _written(value: float, spec: str) -> str:
    """A number as these pages have it: no zero before the point, and a true minus."""
    text = format(value, spec).replace("-", "−")
    return re.sub(r"(?<!\d)0(?=\.\d)", "", text)


def take(workdir: Path, run: str, numbers: Path = NUMBERS) -> None:
    """Copy a run's tables.

    Raises:
      ValueError: no finished run.
    """
    tables = workdir / "tables"
    if not (workdir / "results.json").is_file() or not tables.is_dir():
        raise ValueError(f"{workdir} holds no finished run with tables: give the workdir of one")
    folder = numbers / run
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in sorted(tables.glob("*.csv")):
        shutil.copyfile(file, folder / file.name)


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.tables", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="pages; all of docs if none is given")
    parser.add_argument("--check", action="store_true", help="write nothing; say which pages are stale, with status 1")
    parser.add_argument(
        "--take", nargs=2, metavar=("WORKDIR", "RUN"), help="copy the tables of a finished run to docs/numbers/RUN"
    )
    asked = parser.parse_args(arguments)
    try:
        if asked.take:
            take(Path(asked.take[0]), asked.take[1])
        stale = []
        for page in asked.pages or sorted((ROOT / "docs").glob("*.md")):
            text = page.read_text("utf-8")
            if (fresh := refreshed(text, NUMBERS)) != text:
                stale.append(page.name)
                if not asked.check:
                    page.write_text(fresh, "utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        "\n".join(f"{name}: {'stale' if asked.check else 'written anew'}" for name in stale)
        or "all tables are as their runs wrote them"
    )
    return int(asked.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
