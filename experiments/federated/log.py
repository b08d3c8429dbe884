"""The log of an archive: rows of JSON, one a line, each bound to the row before by its digest, and only ever appended to.

A changed, removed or moved row shows. An end that was cut off shows only against files that it told of, or against a later
row that somebody kept: a certificate is such a row. Kinds of rows, and what they tell beside number, time and digests:

    created    format, about (what the caller says of it), start
    round      round, updates (user, weight, digest and bytes of each who took part), shared, model (a digest, or empty)
    dropped    before: rounds before it are gone; start, the model before it
    erased     user, method, model_before, model_after (digests), removed (round, digest and bytes of each update)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.core import files
from experiments.core.errors import UserError

FORMAT = 1
BEGINNING = "0" * 64  # what the first row follows

Row = dict[str, Any]


class ArchiveError(UserError):
    """An archive that cannot be used as asked; the message is one line that says what to do."""


def digest(content: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def facts(content: bytes) -> Row:
    """What a row tells of a file."""
    return {"digest": digest(content), "bytes": len(content)}


def next_row(rows: Sequence[Row], kind: str, told: Row) -> Row:
    """The row that follows others."""
    previous = rows[-1]["digest"] if rows else BEGINNING
    at = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"seq": len(rows), "at": at, "kind": kind, "previous": previous, **told}
    return row | {"digest": row_digest(row)}


def row_digest(row: Row) -> str:
    """The digest of all that a row says, whatever its `digest` is."""
    told = {name: value for name, value in row.items() if name != "digest"}
    return digest(json.dumps(told, sort_keys=True, separators=(",", ":")).encode())


def line(row: Row) -> bytes:
    """A row as it stands in the log."""
    return json.dumps(row).encode() + b"\n"


def append(path: Path, row: Row) -> None:
    """Add a row; when this returns it is on the disk, and if it fails the log is as it was.

    Raises:
      WorkdirError: the disk is full or may not be written.
    """
    with files.writing(path), path.open("ab", buffering=0) as log:
        size = log.tell()
        try:
            log.write(line(row))
            os.fsync(log.fileno())
        except OSError:
            log.truncate(size)
            raise


def read(path: Path, *, mend: bool) -> list[Row]:
    """All rows; one that a kill cut short is left out.

    Args:
      mend: remove such a row from the file: for a writer.

    Raises:
      ArchiveError: there is no log, it is of another format, or it was altered.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{path.parent} is no archive (no {path.name}): give the folder of one, or create it") from error
    whole = content.rfind(b"\n") + 1
    if mend and whole < len(content):
        with files.writing(path):
            os.truncate(path, whole)
    rows: list[Row] = []
    for number, text in enumerate(content[:whole].splitlines()):
        rows.append(_checked(path, number, text, rows[-1]["digest"] if rows else BEGINNING))
    if not rows:
        raise ArchiveError(f"{path.parent} is no archive: its log has no row; restore the log from a copy")
    return rows


def _checked(path: Path, number: int, text: bytes, previous: str) -> Row:
    try:
        row = json.loads(text)
        if number == 0 and row["format"] != FORMAT:
            raise ArchiveError(f"the archive {path.parent} is of format {row['format']}: this forethought reads {FORMAT}")
        if row["seq"] == number and row["previous"] == previous and row["digest"] == row_digest(row):
            return dict(row)
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, ArchiveError):
            raise
    raise ArchiveError(f"{path} was altered at line {number + 1}: restore the log from a copy")
