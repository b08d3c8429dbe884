"""How examples and groups are called on a command line and in files: names between commas, quoted where they must be."""

from __future__ import annotations

import argparse
import contextlib
import csv
import re
import sys
from pathlib import Path

from s3t.store.certificates import is_number

MOST_BYTES = 1 << 28  # of a file
QUOTED = "one with a comma or white space stands in double quotes"
WORD = re.compile(r'"((?:[^"]|"")+)"|([^\s,"]+)')  # of a file


def labels(text: str) -> list[str]:
    """Names between commas, or those of a file; one with a comma, or in a file with white space, stands in double quotes.

    >>> labels('u003, "Lee, Ann"'), labels("person 3,u4")
    (['u003', 'Lee, Ann'], ['person 3', 'u4'])
    """
    found = _words(text[1:], "name") if text.startswith("@") else _cells(text)
    if "" in found:
        raise argparse.ArgumentTypeError(f"expected names between commas, got {text!r:.80}: nothing was changed")
    return found


def ids(text: str) -> list[int | str]:
    """Examples by number or name; what is a number as it is usually written is one.

    >>> ids("12,alice.jpg,017")
    [12, 'alice.jpg', '017']
    """
    if text.startswith("@"):
        return [_id(word) for word in _words(text[1:], "whole number or name")]
    words = _cells(text)
    if "" in words:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers between commas, or names, got {text!r:.80}: nothing was changed"
        )
    return [_id(word) for word in words]


def _id(word: str) -> int | str:
    """A number, or a text that the store knows how to take."""
    return int(word) if is_number(word) and str(int(word)) == word else word


def content(path: str) -> str:
    """What a file, or standard input for -, holds.

    Raises:
      argparse.ArgumentTypeError: it cannot be read, or is no text.
    """
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")  # spreadsheets begin a file with a mark
    except (OSError, ValueError) as error:  # the latter of bytes that are no text
        raise argparse.ArgumentTypeError(f"{path!r} cannot be read ({error}): nothing was changed") from None
    if len(data) > MOST_BYTES:
        raise argparse.ArgumentTypeError(f"{path!r} has more than {MOST_BYTES} bytes: give a list of ids")
    return text


def _cells(text: str) -> list[str]:
    """What stands between commas, quotes taken away; "" alone for what cannot be read."""
    try:
        (cells,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (ValueError, csv.Error):
        return [""]
    return [cell.strip() for cell in cells] or [""]


def _words(path: str, what: str) -> list[str]:
    """What stands in a file between commas or white space, or in quotes."""
    text = content(path)
    if left := WORD.sub("", text).replace(",", " ").split():
        raise argparse.ArgumentTypeError(f"{path!r} has a stray {left[0]!r:.80}: close each quote; nothing was changed")
    words = [quoted.replace('""', '"') or word for quoted, word in WORD.findall(text)]
    if not words:
        raise argparse.ArgumentTypeError(f"{path!r} holds no {what}: nothing was changed")
    return words
