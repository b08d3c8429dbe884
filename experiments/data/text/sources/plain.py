"""Plain text: a file in UTF-8 or as it is told, and a long text cut into passages."""

from __future__ import annotations

import codecs
import difflib
import encodings.aliases
import re
import unicodedata
from pathlib import Path

from experiments.core.archives import is_endless
from experiments.core.errors import DataError, line

MOST, LEAST = 600, 200  # characters of a passage
UTF8 = "utf-8"
UNSEEN = ("Zs", "Zl", "Zp", "Cc", "Cf")  # categories of Unicode: separators, controls and format, as zero-width spaces


def read(path: Path, encoding: str = UTF8) -> str:
    """The text of a file, without a byte order mark, its lines ended by newlines alone.

    Raises:
      DataError: an encoding that there is not; a file that cannot be read, has other bytes, or is empty.
    """
    codec = codec_of(encoding)
    try:
        if is_endless(path):
            raise DataError(f"{path} is no file: move it away")
        content = path.read_bytes()
    except OSError as error:
        why = error.strerror or line(error, 100)
        raise DataError(f"cannot read {path} ({why}): check its name and permissions") from error
    other = "save it as UTF-8, or set data.encoding to what it is, as in latin-1" if codec == UTF8 else "set data.encoding"
    try:
        text = content.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is 0x{content[error.start]:02x}"
        raise DataError(f"cannot read {path} as {codec.upper()} ({byte}): {other}") from error
    except UnicodeError as error:
        raise DataError(f"cannot read {path} as {codec.upper()} ({line(error, 100)}): {other}") from error
    if "\0" in text:
        raise DataError(f"{path} has a NUL at character {text.index(chr(0))}: it is no text, or in UTF-16; {other}")
    if is_blank(text):
        raise DataError(f"{path} is empty: fill it in, or move it away")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: it is empty, or all white space, controls and characters without width."""
    return all(unicodedata.category(character) in UNSEEN for character in text)


def codec_of(encoding: str) -> str:
    """Python's own name of an encoding of text.

    Raises:
      DataError: there is none of that name.
    """
    try:
        codec = codecs.lookup(encoding)
        if codec._is_text_encoding:  # zip and rot13 are codecs, too
            return UTF8 if codec.name == "utf-8-sig" else codec.name
    except (LookupError, ValueError):
        pass
    known = sorted({name.replace("_", "-") for pair in encodings.aliases.aliases.items() for name in pair})
    near = difflib.get_close_matches(encoding.lower(), known, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise DataError(f"unknown encoding {encoding!r:.60}{hint}: set data.encoding to one as utf-8, utf-16 or latin-1")


def paragraphs(text: str) -> list[str]:
    """What blank lines separate."""
    return [part.strip("\n") for part in re.split(r"\n(?:[ \t]*\n)+", text) if part.strip()]


def passages(text: str) -> list[str]:
    """A text cut at blank lines into passages of some 200 to 600 characters.

    Paragraphs are joined while they fit into 600 characters; a longer one is cut at the ends of its lines, or within a line
    that is longer. What has fewer than 200 joins a neighbour, which may so reach 1,000; a text of fewer is one passage.

    >>> [len(passage) for passage in passages("\\n\\n".join(["word " * 50] * 3))]
    [502, 250]
    """
    return joined(paragraphs(text))


def joined(parts: list[str]) -> list[str]:
    """Paragraphs joined, or cut, to passages; see `passages`."""
    result: list[str] = []
    for piece in (piece for part in parts for piece in _pieces(part)):
        if result and (len(result[-1]) < LEAST or len(result[-1]) + 2 + len(piece) <= MOST):
            result[-1] += "\n\n" + piece
        else:
            result.append(piece)
    if len(result) > 1 and len(result[-1]) < LEAST:
        result[-2:] = ["\n\n".join(result[-2:])]
    return result


def _pieces(paragraph: str) -> list[str]:
    """A paragraph cut at the ends of lines to at most MOST characters."""
    lines = [row[i : i + MOST] for row in paragraph.split("\n") for i in range(0, max(len(row), 1), MOST)]
    result = [lines[0]]
    for row in lines[1:]:
        if len(result[-1]) + 1 + len(row) <= MOST:
            result[-1] += "\n" + row
        else:
            result.append(row)
    return result
