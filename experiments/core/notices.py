"""What a user should know and need not mend, a line each: the log `forethought`, which the command line shows.

Libraries that a run stands on warn through absl, and the command line silences them. This log is the project's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

LOG = logging.getLogger("forethought")
LOG.setLevel(logging.WARNING)  # its own: that of the root is the libraries'


@contextmanager
def shown(stream: TextIO) -> Iterator[None]:
    """Show warnings on a stream meanwhile, each once and above a bar that is drawn there."""
    lines, propagates = _Lines(stream), LOG.propagate
    LOG.addHandler(lines)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(lines)
        LOG.propagate = propagates


class _Lines(logging.Handler):
    """A handler that says nothing twice: scores of every way notice the same."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.WARNING)
        self._stream = stream
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"warning: {record.getMessage()}"
        if line not in self._said:
            self._said.add(line)
            tqdm.write(line, file=self._stream)
