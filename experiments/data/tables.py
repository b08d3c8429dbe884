"""Arrays and tables of a user's own: an .npz with x and y, or a .csv with a column of labels.

An example is called by its id: a column (`data.id_column`, or one called id) or an array (`id`) of numbers or names.
Without one it is called by a hash of what it holds, so that lines may come and go; but then a corrected value makes
another example, and two equal ones cannot be told apart, so they are refused. A column of ids is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.core import archives
from experiments.core.errors import DataError, line
from experiments.data import csv_files
from experiments.data.ids import Array, check_spelling, content_id, distinct, hashed_names, ids_of
from experiments.data.sources import Source, check_classes, held

KEYS = ("x", "y", "id", "split")  # of an .npz; the last two need not be there
SPLITS = ("train", "test")
LARGEST = 1e38  # the difference of two such numbers is still finite in single precision, in which models compute


class Table(NamedTuple):
    """A csv as it is written.

    columns: names of the header.  rows: cells as text.  lines: number of each row's line in the file.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]


def read_csv(path: Path, label: str, id_column: str) -> Source:
    """The rows of a file with a header: a column of labels, perhaps one of ids, and numbers in all others.

    Args:
      label: name of the column of labels, which may be text.
      id_column: name of the column of ids; '' is a column called id, if there is one.

    Raises:
      DataError: a file that cannot be read; a column that is not there; a cell that is empty or no number, by line and
        column; two examples of one id.
    """
    table = _table(path)
    id_column = id_column or ("id" if "id" in table.columns and label != "id" else "")
    for key, column in (("label", label), ("id_column", id_column)):
        if column not in table.columns and (column or key == "label"):
            raise DataError(f"{path} has no column {column!r} (it has {_some(table.columns)}): set --config.data.{key}")
    if label == id_column:
        raise DataError(f"data.label and data.id_column are both {label!r}: name two columns")
    features = [i for i, name in enumerate(table.columns) if name not in (label, id_column)]
    if not features:
        raise DataError(f"{path} has no column beside labels and ids: add columns of numbers")
    labels = _texts(path, table, label)
    x = _numbers(path, table, features)
    where = [f"line {number} of {path}" for number in table.lines]
    return _source(str(path), x, labels, _texts(path, table, id_column) if id_column else None, where, None, "a column")


def read_npz(path: Path) -> Source:
    """Arrays as `np.savez(path, x=x, y=y, id=ids, split=splits)` writes them.

    x: [examples, features] is a table, [examples, height, width] grey images, [examples, height, width, channels] images;
    numbers.  y: [examples] whole numbers or text.  id: [examples] the same; may be missing.  split: [examples] 'train' or
    'test'; may be missing, then test examples are drawn by id.

    Raises:
      DataError: a file that is no such .npz; an array of another shape or type; two examples of one id.
    """
    arrays = _arrays(path)
    x, y = arrays["x"], arrays["y"]
    if x.dtype.kind not in "biuf" or x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise DataError(
            f"x of {path} is {x.dtype}{list(x.shape)}: give numbers [examples, features], [examples, height, width] or "
            "[examples, height, width, channels]"
        )
    for name in ("y", "id", "split"):
        column = arrays.get(name)
        if column is not None and (column.dtype.kind not in "iuU" or column.shape != x.shape[:1]):
            raise DataError(
                f"{name} of {path} is {column.dtype}{list(column.shape)}: give whole numbers or text [{len(x)}], "
                "one for each example of x"
            )
    bad = np.flatnonzero(~_usable(x.reshape(len(x), -1)).all(axis=1))
    if bad.size:
        raise DataError(
            f"example {bad[0]} of x of {path} holds a number that is not finite or beyond {LARGEST:g}: fill it in, scale "
            "it, or leave it out"
        )
    test = None
    if "split" in arrays:
        unknown = sorted(set(map(str, arrays["split"])) - {*SPLITS})
        if unknown:
            raise DataError(f"split of {path} has {unknown[0]!r}: use 'train' and 'test'; validation is drawn from 'train'")
        test = arrays["split"] == "test"
    x = x.astype(np.float64) if x.ndim == 2 else x.astype(np.uint8) if x.dtype == bool else x
    where = [f"example {i} of {path}" for i in range(len(x))]
    names = arrays["id"].tolist() if "id" in arrays else None
    labels = [str(label) for label in y.tolist()]
    ids = None if names is None else [str(name) for name in names]
    return _source(str(path), x[..., None] if x.ndim == 3 else x, labels, ids, where, test, "an array")


def _source(
    path: str, x: Array, labels: list[str], names: list[str] | None, where: list[str], test: Array | None, what: str
) -> Source:
    """A source of what was read.

    Args:
      names: ids as text, or None.
      where: what to call each example in an error.
      what: an id is kept in, "a column" or "an array".
    """
    classes = ordered({*labels})
    check_spelling(path, "label", classes)
    number = {name: i for i, name in enumerate(classes)}
    y = np.array([number[label] for label in labels], np.int32)
    check_classes(path, classes, y, np.zeros(len(y), bool) if test is None else test)
    if names is None:
        option = " called id (or named by --config.data.id_column)" if what == "a column" else " called id"
        mend = f"are the same example, and nothing tells them apart: add {what} of ids{option}, or keep one of them"
        called = None
        ids = distinct(np.array([content_id(*one) for one in zip(x, labels, strict=True)], np.int64), where, mend)
    else:
        ids = ids_of(names, where, "have one id, however accents in it are written: give each example an id of its own")
        called = hashed_names(ids, names)
    return held(x, y, ids, test, len(classes), called)


def ordered(labels: Iterable[str]) -> list[str]:
    """Labels in the order of their numbers, if all are numbers, else of the alphabet."""
    try:
        return sorted(labels, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(labels)


def _table(path: Path) -> Table:
    try:
        found = csv_files.read(path)
    except csv_files.Unusable as error:
        raise DataError(f"cannot read {path} ({error}): give a CSV file in UTF-8 with commas") from error
    columns = found[0].cells if found else []
    rows, lines = [one.cells for one in found[1:]], [one.number for one in found[1:]]
    if not rows:
        raise DataError(f"{path} has no rows: the first line names the columns, each other line is an example")
    if len(columns) == 1:
        raise DataError(f"{path} has one column, {columns[0]!r}: separate columns by commas")
    if len(set(columns)) < len(columns) or "" in columns:
        twice = next(name for name in columns if not name or columns.count(name) > 1)
        raise DataError(f"{path} has two columns {twice!r} or one without a name: name each column once in the first line")
    for cells, number in zip(rows, lines, strict=True):
        if len(cells) != len(columns):
            raise DataError(f"line {number} of {path} has {len(cells)} cells, the header {len(columns)}: mend that line")
    return Table(columns, rows, lines)


def _texts(path: Path, table: Table, column: str) -> list[str]:
    """The cells of a column, none of them empty."""
    at = table.columns.index(column)
    for cells, number in zip(table.rows, table.lines, strict=True):
        if not cells[at]:
            raise DataError(f"line {number} of {path} has nothing in column {column!r}: fill it in, or leave the line out")
    return [cells[at] for cells in table.rows]


def _numbers(path: Path, table: Table, features: Sequence[int]) -> Array:
    """[rows, features] float64, all finite and none beyond LARGEST."""
    x = np.empty((len(table.rows), len(features)))
    for i, (cells, number) in enumerate(zip(table.rows, table.lines, strict=True)):
        for j, at in enumerate(features):
            x[i, j] = csv_files.number(cells[at])
            if not _usable(x[i, j]):
                if abs(x[i, j]) < np.inf:
                    raise DataError(
                        f"line {number} of {path} has {cells[at]!r} in column {table.columns[at]!r}, which is beyond "
                        f"{LARGEST:g}: scale the column, or leave it or the line out"
                    )
                what = f"{cells[at]!r}, which is no number" if cells[at] else "nothing"
                raise DataError(
                    f"line {number} of {path} has {what} in column {table.columns[at]!r}: give a number (text as one "
                    "column of 0 and 1 for each word), or leave the line or the column out"
                )
    return x


def _usable(x: Any) -> Any:
    """Which numbers single precision can compute with; NaN is none."""
    return np.abs(np.asarray(x, np.float64)) <= LARGEST


def _arrays(path: Path) -> dict[str, Array]:
    try:
        arrays = archives.read(path)
    except (OSError, archives.Unusable) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else line(error)
        raise DataError(f"cannot read {path} ({why}): give a file that np.savez(path, x=x, y=y) wrote") from error
    if missing := [name for name in KEYS[:2] if name not in arrays]:
        raise DataError(f"{path} has no {missing[0]} (it has {_some(sorted(arrays))}): save it by np.savez(path, x=x, y=y)")
    if unknown := sorted(arrays.keys() - {*KEYS}):
        raise DataError(f"{path} has {unknown[0]!r}, which means nothing here: it takes {', '.join(KEYS)}")
    return arrays


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
