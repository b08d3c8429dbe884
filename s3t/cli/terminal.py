"""Printing: answers written at once, lines that fit the terminal and nobody forges, and errors of one line."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable

from s3t.store.events import printable

TREE = ("│", "├", "└", " ")  # lines of a drawn plan: a fold would take them apart


def write(text: str) -> None:
    """Print an answer now.

    Raises:
      OSError: it cannot be written.
    """
    try:
        print(text, flush=True)
    except OSError:
        drop_output()
        raise


def shown(lines: Iterable[str]) -> str:
    r"""Lines for people; what others wrote into one of them adds none and moves no cursor.

    Example:
      >>> print(shown(["request R\nok", "not ok: refuted"]))
      request R\nok
      not ok: refuted
    """
    return "\n".join(map(printable, lines))


def in_words(lines: Iterable[str]) -> str:
    """An answer for people."""
    return fitted(shown(lines))


def fitted(text: str) -> str:
    """A text for people, folded to the terminal's width; a file or a pipe gets whole lines."""
    return folded(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text


def folded(text: str, width: int) -> str:
    """A text whose lines are folded at spaces to a width, what follows indented; a long word stays whole.

    Example:
      >>> print(folded("depth served by shard 4, 4, 3", 20))
      depth served by
        shard 4, 4, 3
    """
    fold = textwrap.TextWrapper(
        max(width, 20), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    lines = text.split("\n")
    return "\n".join(line if len(line) <= width or line.startswith(TREE) else fold.fill(line) for line in lines)


def drop_output() -> None:
    """Let go of output that cannot be written, so that the interpreter does not try once more when it leaves."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(error: object) -> int:
    """Say what is wrong in one line; exit status 2."""
    print("error: " + printable(" ".join(str(error).split())), file=sys.stderr)
    return 2
