"""What happens to a store, as lines of the logger "s3t": one for each row of its ledger, once that row is committed.

A line holds kinds, names of requests and of nodes, counts and heads, and never the id of an example. Nothing is printed
unless the program that uses this package gives the logger a handler, or a command is given --log. Each event is one line,
whatever the names in it hold.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("s3t")
LOGGER.addHandler(logging.NullHandler())  # else Python prints warnings of a logger that has no handler
TOLD = ("count", "identity", "shard")  # of a row's detail; of what is a list only its length


def printable(text: object) -> str:
    r"""A text in which all that is no printable character is written as in a Python string, so that it stays one line.

    Example:
      >>> print(printable("R\nok\x1b[8m"), printable("Zoë"))
      R\nok\x1b[8m Zoë
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def row_line(kind: str, request: str, detail: str, seq: int, head: str) -> str:
    """A row of the ledger in one line, without the id of any example.

    Example:
      >>> row_line("received", "R 1", '{"ids": [12, 17]}', 3, "ab")
      'received request="R 1" ids=2 row=3 head=ab'
    """
    facts: dict[str, Any] = {"request": json.dumps(request)} if request else {}
    for name, value in json.loads(detail).items():
        if isinstance(value, list):
            facts[name] = len(value)
        elif name in TOLD:
            facts[name] = value
    return " ".join([kind, *(f"{name}={value}" for name, value in {**facts, "row": seq, "head": head}.items())])


class _Lines(logging.Formatter):
    """One line for each event, its time in UTC before it."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return printable(super().format(record))


class LogFile(logging.FileHandler):
    """A file to which lines are appended; one that cannot be written is named once, and stops nothing."""

    def __init__(self, path: str) -> None:
        """Open the file, which is made for its owner alone.

        Raises:
          OSError: it cannot be opened.
        """
        Path(path).touch(0o600)
        super().__init__(path, encoding="utf-8")
        self.setFormatter(_Lines("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S"))
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        """Say so once: what was logged is done already."""
        if not self.failed:
            self.failed = True
            why = f"warning: the log {self.baseFilename} cannot be written: {sys.exc_info()[1]}"
            print(printable(why), file=sys.stderr)

    def close(self) -> None:
        """Close the file, with what it still held back."""
        with suppress(OSError):  # of which `handleError` has told
            super().close()


@contextmanager
def appending_to(path: str | None) -> Iterator[None]:
    """Append the lines to a file meanwhile; None does nothing.

    Raises:
      OSError: it cannot be opened.
    """
    if path is None:
        yield
        return
    handler, level = LogFile(path), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)
        handler.close()
