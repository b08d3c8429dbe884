"""How examples and groups are called on a command line and in files: names between commas, quoted where they must be."""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

QUOTED = "one with a comma or white space stands in double quotes"
WORD = re.compile(r'"((?:[^"]|"")+)"|([^\s,"]+)')  # of a file


def labels(text: str) -> list[str]:
    """Names between commas, or those of a file; one with a comma, or in a file with white space, stands in double quotes.

    >>> labels('u003, "Lee, Ann"'), labels("person 3,u4")
    (['u003', 'Lee, Ann'], ['person 3', 'u4'])
    """
    found = _words(text[1:]) if text.startswith("@") else _cells(text)
    if "" in found:
        raise argparse.ArgumentTypeError(f"expected names between commas, got {text!r:.80}: nothing was changed")
    return found


def content(path: str) -> str:
    """What a file, or standard input for -, holds.

    Raises:
      argparse.ArgumentTypeError: it cannot be read, or is no text.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path!r} cannot be read ({error}): nothing was changed") from None


def _cells(text: str) -> list[str]:
    """What stands between commas, quotes taken away; "" alone for what cannot be read."""
    try:
        (cells,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (ValueError, csv.Error):
        return [""]
    return [cell.strip() for cell in cells]


def _words(path: str) -> list[str]:
    """What stands in a file between commas or white space, or in quotes."""
    text = content(path)
    if left := WORD.sub("", text).replace(",", " ").split():
        raise argparse.ArgumentTypeError(f"{path!r} has a stray {left[0]!r:.80}: close each quote; nothing was changed")
    words = [quoted.replace('""', '"') or word for quoted, word in WORD.findall(text)]
    if not words:
        raise argparse.ArgumentTypeError(f"{path!r} holds no name: nothing was changed")
    return words
